"""Each command prints what the same call in Python returns: there is one door."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import traincast as tc
from traincast.__main__ import cli
from traincast.sim.errors import InputError

JOB = {"global_batch": 32, "seq_len": 2048}
ON = ("--cluster", "hgx-h100", "--nodes", 1)
OPTIONS = ("--global-batch", 32, "--seq-len", 2048)


def cluster() -> tc.Cluster:
    return tc.cluster("hgx-h100", nodes=1)


def servers() -> dict[str, Any]:
    return {"gradient_exchange": "parameter_server", "servers": 2, "synchrony": "stale:1"}


CALLS: dict[str, tuple[tuple, Callable[[], dict]]] = {
    "plan": (
        ("plan", "gpt2", *ON, "--global-batch", 64, "--seq-len", 1024, "--top", 3, "--samples", 4),
        lambda: tc.plan(tc.Job("gpt2", global_batch=64, seq_len=1024), cluster(), top=3, samples=4).to_dict(),
    ),
    "plan-of-images": (
        ("plan", "resnet50", "--cluster", "dgx-1-v100", "--global-batch", 256, "--top", 2, "--seed", 3),
        lambda: tc.plan("resnet50", "dgx-1-v100", global_batch=256, top=2, seed=3).to_dict(),
    ),
    "simulate": (
        ("simulate", "llama3-8b", *ON, *OPTIONS, "--tp", 4, "--pp", 2, "--samples", 5, "--seed", 1),
        lambda: tc.predict("llama3-8b", cluster(), tp=4, pp=2, samples=5, seed=1, **JOB).to_dict(),
    ),
    "simulate-arranged": (
        ("simulate", "llama3-8b", *ON, *OPTIONS, "--tp", 2, "--pp", 4, "--schedule", "zb-1p"),
        lambda: tc.predict(
            tc.make_plan(tc.Job("llama3-8b", **JOB), tc.Strategy(tp=2, pp=4, schedule="zb-1p"), cluster()),
            cluster(),
        ).to_dict(),
    ),
    "simulate-servers": (
        (
            *("simulate", "llama3-8b", *ON, *OPTIONS, "--dp", 4, "--gradient-exchange", "parameter_server"),
            *("--servers", 2, "--synchrony", "stale:1", "--samples", 4),
        ),
        lambda: tc.predict("llama3-8b", cluster(), dp=4, samples=4, **servers(), **JOB).to_dict(),
    ),
    "simulate-slow": (
        (
            *("simulate", "llama3-8b", *ON, *OPTIONS, "--dp", 4, "--pp", 2, "--slow-rank", "3=1.5"),
            *("--slow-node", "0=1.1", "--jitter", 0.05, "--collectives", "stepwise"),
        ),
        lambda: tc.predict(
            tc.Job("llama3-8b", **JOB),
            cluster(),
            tc.Strategy(dp=4, pp=2),
            slow_ranks={3: 1.5},
            slow_nodes={0: 1.1},
            jitter=0.05,
            stepwise=True,
        ).to_dict(),
    ),
    "memory": (
        ("memory", "llama3-8b", *ON, *OPTIONS, "--tp", 8),
        lambda: tc.memory("llama3-8b", cluster(), tp=8, **JOB).to_dict(),
    ),
    "memory-that-is-short": (
        ("memory", "llama3-8b", *ON, *OPTIONS, "--dp", 8),
        lambda: tc.memory(tc.make_plan(tc.Job("llama3-8b", **JOB), dp=8), cluster()).to_dict(),
    ),
    "collective": (
        ("collective", "all_reduce", "--cluster", "hgx-h100", "--ranks", "8..32", "--size", "1MiB..4MiB"),
        lambda: tc.collective(
            "all_reduce", "hgx-h100", ranks=[8, 16, 32], sizes=[2**20, 2**21, 2**22]
        ).to_dict(),
    ),
    "collective-flow": (
        ("collective", "all_gather", "--cluster", "rail-h100", "--ranks", 32, "--detail", "flow"),
        lambda: tc.collective("all_gather", "rail-h100", ranks=32, detail="flow").to_dict(),
    ),
    "schedule": (
        ("schedule", "all", "--ranks", 4, "--micro-batches", 8, "--transfer", "100us"),
        lambda: tc.schedules(ranks=4, micro_batches=8, transfer=1e-4).to_dict(),
    ),
    "goodput": (
        ("goodput", "--cluster", "hgx-h100", "--nodes", 64, "--step-time", "10 s", "--samples", 40,
         "--mtbf", "5 years", "--checkpoint", "30 s", "--steps", 1000, "--interval", "1 h"),
        lambda: tc.goodput(
            tc.cluster("hgx-h100", nodes=64), step_time=10.0, samples=40, mtbf="5 years", checkpoint=30.0,
            steps=1000, interval="1 h",
        ).to_dict(),
    ),
    "goodput-of-a-model": (
        ("goodput", "llama3-8b", *ON, *OPTIONS, "--tp", 8, "--samples", 20, "--seed", 2),
        lambda: tc.goodput(cluster(), "llama3-8b", tp=8, samples=20, seed=2, **JOB).to_dict(),
    ),
    "converge": (
        ("converge", "--workers", 3, "--slow", "1=3.0", "--protocols", "sync,async", "--seconds", 0.5),
        lambda: tc.converge(workers=3, slow={1: 3.0}, protocols=["sync", "async"], seconds=0.5).to_dict(),
    ),
    "validate": (
        ("validate", "korthikanti_recompute", "--samples", 4),
        lambda: tc.validate("korthikanti_recompute", samples=4).to_dict(),
    ),
}  # fmt: skip


def printed(*arguments: object) -> dict:
    done = CliRunner().invoke(cli, ["-q", *map(str, arguments), "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", CALLS)
def test_a_command_prints_what_python_returns(name):
    arguments, call = CALLS[name]
    found = printed(*arguments)
    if arguments[0] == "simulate":
        assert found.pop("schema") == "traincast.prediction/1"
    assert found == json.loads(json.dumps(call()))


def test_every_command_with_a_result_is_compared():
    """Those that need files are below; the others run something, or write files only."""
    compared = {arguments[0] for arguments, _ in CALLS.values()} | {"check", "compare"}
    others = {"demo", "calibrate", "run", "report", "import", "doctor"}
    assert compared | others == set(cli.list_commands(None))  # type: ignore[attr-defined]


def test_checks_and_comparisons_are_the_same(tmp_path):
    """Of files: a cluster, a plan, and two traces."""
    plan = tc.make_plan(tc.Job("gpt2", global_batch=8, seq_len=512), pp=2)
    paths = [tmp_path / name for name in ("plan.json", "a.trace.json.gz", "b.trace.json.gz")]
    tc.write_plan(plan, paths[0])
    for path, slow in zip(paths[1:], ({}, {1: 1.5}), strict=True):
        tc.write_trace(tc.simulate(paths[0], "dgx-a100", slow_ranks=slow), path)
    files = [paths[0], tc.cluster_presets()["hgx-h100"]]
    assert printed("check", *files) == tc.check(*files).to_dict()
    found = printed("compare", *paths[1:])
    assert found == json.loads(json.dumps(tc.compare(*paths[1:]).to_dict()))
    both = [tc.read_trace(path) for path in paths[1:]]
    assert tc.compare(*both).to_dict() == tc.compare(*paths[1:]).to_dict()


def test_a_processor_trains_in_fp32_by_either_way(tmp_path, host_cluster):
    """Where nobody says a precision; what is said stays."""
    path = tmp_path / "host.yaml"
    tc.write_cluster(host_cluster, path)
    arguments = (
        "plan",
        "tiny-llama-bytes",
        "--cluster",
        path,
        "--global-batch",
        4,
        "--seq-len",
        32,
        "--top",
        1,
    )
    by_command = printed(*arguments)
    job = tc.Job("tiny-llama-bytes", global_batch=4, seq_len=32)
    by_python = tc.plan(job, path, top=1).to_dict()
    assert by_command == json.loads(json.dumps(by_python))
    assert by_command["job"]["precision"] == "fp32"
    said = tc.Job("tiny-llama-bytes", global_batch=4, seq_len=32, precision="bf16")
    assert said.on("cpu").precision == "bf16"


def test_more_ranks_than_accelerators_are_refused_by_either_way(tmp_path):
    plan = tc.make_plan(tc.Job("gpt2", global_batch=128, seq_len=512), dp=128)
    path = tmp_path / "plan.json"
    tc.write_plan(plan, path)
    numbers = "= 128 ranks, but hgx-h100 has 32 accelerators"
    for call in (tc.simulate, tc.memory, tc.predict):
        with pytest.raises(InputError, match=numbers):
            call(plan, "hgx-h100")
    done = CliRunner().invoke(cli, ["simulate", str(path), "--cluster", "hgx-h100"])
    assert numbers in str(done.exception)
    with pytest.raises(InputError, match=numbers):
        tc.make_plan(plan.job, plan.strategy, "hgx-h100")


def test_a_plan_says_its_own_strategy(tmp_path):
    """What is given next to it is refused, not ignored."""
    path = tmp_path / "plan.json"
    tc.write_plan(tc.make_plan(tc.Job("gpt2", global_batch=8, seq_len=512), pp=2), path)
    with pytest.raises(tc.UsageError, match="a plan says its own tp"):
        tc.simulate(path, "hgx-h100", tp=2)
    done = CliRunner().invoke(cli, ["simulate", str(path), "--cluster", "hgx-h100", "--tp", "2"])
    assert "a plan says its own tp" in str(done.exception)


def test_wires_are_checked_where_nodes_are_changed():
    inputs = Path(tc.__file__).parent / "benchmarks/results_inputs"
    wired = tc.cluster(inputs / "wires.yaml")
    for change in (wired.with_nodes, lambda nodes: tc.cluster(wired, nodes=nodes)):
        with pytest.raises(tc.UsageError, match="one by one"):
            change(wired.nodes + 1)
    with pytest.raises(tc.UsageError, match="more than 10,000,000 accelerators"):
        tc.cluster("hgx-h100", nodes=10**7)
    with pytest.raises(tc.UsageError, match="at least 1"):
        tc.cluster("hgx-h100", nodes=0)
