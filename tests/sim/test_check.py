"""`check` knows what a file is and tells everything that is wrong with it."""

import json
from pathlib import Path

import pytest

from traincast.sim.check import check_file
from traincast.sim.hardware.cluster_file import accelerator_presets, cluster_presets
from traincast.sim.model.hf_config import model_presets, read_model
from traincast.sim.plan.job import Job
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.plan_file import write_plan
from traincast.sim.plan.strategy import Strategy

SHIPPED = [
    path
    for presets in (cluster_presets(), accelerator_presets(), model_presets())
    for path in presets.values()
]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_files_are_sound(path):
    assert check_file(path) == ([], [])


def test_a_plan_is_sound(tmp_path):
    job = Job(model=read_model("tiny-llama-bytes"), global_batch=8, seq_len=64)
    write_plan(make_plan(job, Strategy(dp=2, pp=2)), tmp_path / "p.json")
    assert check_file(tmp_path / "p.json") == ([], [])


@pytest.mark.parametrize(
    ("name", "content", "errors", "warnings"),
    [
        ("x.yaml", "a: 1", [": no schema -> expected {kinds}; add schema: traincast.cluster/1"], []),
        ("x.yaml", "- 1", [": a list of 1 -> expected {kinds}"], []),
        (
            "x.yaml",
            "schema: traincast.clster/1",
            [
                ":1: schema: 'traincast.clster/1' -> expected traincast.cluster/1 | traincast.accelerator/1 "
                "| traincast.plan/1 | traincast.model/1; did you mean traincast.cluster/1?"
            ],
            [],
        ),
        ("x.yaml", "nodes: [", [":1: no YAML: expected the node content, but found '<stream end>'"], []),
        (
            "x.yaml",
            "peak_flops: {bf16: 1 TFLOP/s}\nname: a\nkind: gpu\nmemory: 1 GiB\nmemory_bandwidth: 80 TB/s",
            [],
            [":5: memory_bandwidth: 80 TB/s is implausible"],
        ),
        ("x.json", '{"stages": []}', [": schema: missing -> expected traincast.plan/1"], []),
        (
            "x.safetensors",
            "",
            [": weights -> expected a config.json; give the config.json that lies beside it"],
            [],
        ),
    ],
)
def test_kinds_and_faults(tmp_path, name, content, errors, warnings):
    """By `schema`, else by content; what is no known kind says what could be."""
    path = tmp_path / name
    path.write_text(content)
    found, doubts = check_file(path)
    kinds = "a cluster, accelerator, plan or model file"
    assert [str(fault) for fault in found] == [f"{path}{text.format(kinds=kinds)}" for text in errors]
    assert [str(fault) for fault in doubts] == [f"{path}{text}" for text in warnings]


def test_a_models_code_is_warned_of(tmp_path):
    config = json.loads(Path(model_presets()["llama3-8b"]).read_text())
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"auto_map": {"AutoModel": "m.M"}, **config}))
    errors, warnings = check_file(path)
    assert errors == []
    assert [str(w) for w in warnings] == [f"{path}:1: auto_map: ignored; traincast runs no code from a model"]


def test_an_absent_file_is_a_fault():
    errors, _ = check_file("absent.yaml")
    assert [str(error) for error in errors] == [
        "absent.yaml: no such file -> expected a file that can be read"
    ]
