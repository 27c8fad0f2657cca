"""Published rows become cases, derivations are exact, what is blank is left out, scores are what they say."""

from __future__ import annotations

import csv
import gzip
import json
import math
import subprocess
import sys

import pytest
from published_rows import row

from traincast.sim.errors import InputError
from traincast.sim.published import derivations
from traincast.sim.published.case import case_of
from traincast.sim.published.families import family_of
from traincast.sim.published.hardware import cluster_of, hardware_of
from traincast.sim.published.left_out import LeftOutError
from traincast.sim.published.prediction import Predictor
from traincast.sim.published.rows_file import write_rows
from traincast.sim.published.score import rank_correlation, regret_pct
from traincast.sim.published.table import read_table, shipped_tables
from traincast.sim.published.validation import judge, scores


def reason(**changes: str) -> str:
    with pytest.raises(LeftOutError) as caught:
        case_of(row(**changes))
    return str(caught.value)


def test_a_whole_row_becomes_a_case():
    case = case_of(row())
    strategy = case.strategy
    assert (strategy.dp, strategy.tp, strategy.pp, strategy.vp, strategy.micro_batch) == (2, 2, 2, 1, 2)
    assert (strategy.recompute, strategy.sharding, strategy.schedule) == ("full", "ddp", "1f1b")
    assert (case.job.precision, case.job.optimizer, case.job.dropout) == ("bf16", "adamw", False)
    decoder = case.job.model.decoder
    assert (decoder.ffn, decoder.kv_heads, decoder.head_dim) == (4096, 16, 64)
    assert (decoder.activation, decoder.norm, decoder.positions) == ("gelu", "layernorm", "learned")
    assert case.step_s == 1.5


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"micro_batch": ""}, "micro_batch blank"),
        ({"recompute": ""}, "recompute blank"),
        ({"recompute": "full (assumed as elsewhere)"}, "recompute not stated"),
        ({"recompute": "selective", "source": "torchtitan"}, "recompute selective not modelled"),
        ({"tp": ""}, "tp blank"),
        ({"pp": ""}, "pp blank"),
        ({"notes": "interleaved schedule, degree not stated"}, "vp blank"),
        ({"precision": "FP8-MX (blocks)"}, "precision fp8-mx not modelled"),
        ({"precision": "float8 rowwise"}, "precision float8 rowwise not modelled"),
        ({"stage_layers": "2-two"}, "stage_layers no whole numbers"),
        ({"precision": ""}, "precision blank"),
        ({"layers": ""}, "layers blank"),
        ({"step_s": ""}, "step time blank"),
        ({"model": "Falcon 7B"}, "architecture of Falcon 7B not known"),
        ({"model": "GPT OSS 120B"}, "not modelled: attention within a window in every other layer"),
        ({"model": "Nemotron_3_Nano"}, "not modelled: hybrid of Mamba and attention"),
        ({"accelerator": "Abacus"}, "no file for accelerator Abacus"),
        ({"gpus": "16"}, "degrees do not multiply to the GPUs"),
        ({"task": "LoRA"}, "task LoRA not modelled"),
        ({"sharding": "magic"}, "sharding magic not modelled"),
        ({"schedule": "zigzag"}, "schedule zigzag not modelled"),
        ({"model": "Llama 8B", "ffn": "4096"}, "kv_heads blank"),
        ({"status": "crashed"}, "status crashed"),
        ({"optimizer": "lion"}, "optimizer lion not modelled"),
    ],
)
def test_what_is_blank_or_not_modelled_is_left_out(changes, expected):
    assert reason(**changes) == expected


def test_a_rule_of_the_simulator_leaves_a_row_out():
    assert reason(heads="8", tp="8", dp="1", pp="1", hidden="1024", ffn="1020").startswith("not simulated")


def test_words_of_the_frameworks_become_strategy():
    mixed = case_of(row(recompute="selective + sequence parallelism", sharding="ZeRO-1"))
    assert (mixed.strategy.recompute, mixed.strategy.sequence_parallel) == ("selective", True)
    assert mixed.strategy.sharding == "zero1"
    alone = case_of(row(tp="1", pp="1", dp="8", sharding="SHARD_GRAD_OP"))
    assert (alone.strategy.sharding, alone.strategy.reshard_after_forward) == ("fsdp", False)
    full = case_of(row(tp="1", pp="1", dp="8", sharding="FULL_SHARD"))
    assert (full.strategy.sharding, full.strategy.reshard_after_forward) == ("fsdp", True)
    late = case_of(row(notes="gradient all-reduce NOT overlapped"))
    assert (late.strategy.overlap_gradients, mixed.strategy.overlap_gradients) == (False, True)
    turns = case_of(row(vp="2", layers="4"))
    assert (turns.strategy.vp, turns.strategy.schedule) == (2, "interleaved")


def test_a_run_out_of_memory_has_no_step_time():
    failed = case_of(row(status="OOM Error", step_s=""))
    assert (failed.ran, failed.step_s) == (False, None)
    assert case_of(row(status="ok")).ran is True
    assert case_of(row()).ran is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"step_s": "1.5", "step_ms": "9"}, 1.5),
        ({"step_ms": "1500"}, 1.5),
        ({"tokens_per_s": "8192"}, 16 * 1024 / 8192),
        ({"tokens_per_s_gpu": "1024"}, 16 * 1024 / (1024 * 8)),
        ({"samples_per_s": "8"}, 2.0),
        ({"tokens_per_s": "0"}, None),
        ({"tokens_per_s": "nan"}, None),
        ({}, None),
    ],
)
def test_step_times_from_what_is_printed(changes, expected):
    assert derivations.step_s(row(**{"step_s": "", **changes})) == expected


def test_step_time_from_narayanans_flops():
    """Of the row of Table 1 whose rate is 137 TFLOP/s: 96 B s l h² (1 + s/6h + V/16lh), by hand."""
    told = {"step_s": "", "tflops_per_gpu": "137", "tflops_def": "hardware FLOPs", "gpus": "32"}
    sizes = {"layers": "24", "hidden": "2304", "seq_len": "2048", "global_batch": "512", "vocab": "51200"}
    flops = 96 * 512 * 2048 * 24 * 2304**2 * (1 + 2048 / (6 * 2304) + 51200 / (16 * 24 * 2304))
    hardware = derivations.step_s(row(**told, **sizes))
    assert hardware == pytest.approx(flops / (137e12 * 32), rel=1e-12)
    model = derivations.step_s(row(**{**told, "tflops_def": "model FLOPs"}, **sizes))
    assert model is not None
    assert model == pytest.approx(0.75 * hardware, rel=1e-12)
    assert derivations.step_s(row(**told, **sizes, recompute="none")) is None
    assert derivations.step_s(row(**{**told, "tflops_def": "who knows"}, **sizes)) is None


def test_micro_batch_and_replicas_are_derived_where_exact():
    assert derivations.micro_batch(row(micro_batch="", grad_accum="4"), 2) == 2
    assert derivations.micro_batch(row(micro_batch="", grad_accum="3"), 2) is None
    assert derivations.replicas(row(dp=""), 4) == 2
    assert derivations.replicas(row(dp=""), 3) is None


def test_families_by_name():
    known = ("MPT-7b", "mosaic-gpt-1b", "LLAMA3_70B", "Nemotron-340B")
    assert all(family_of(name) for name in known)
    assert not any(family_of(name) for name in ("Qwen3", "Nemotron_3_Nano", "GPT-OSS", ""))


def test_clusters_are_as_large_as_the_row_says():
    found = hardware_of("A100-SXM-40GB")
    assert found is not None
    cluster = cluster_of(found, 20, 0)
    assert (cluster.nodes, cluster.accelerators_per_node) == (3, 8)
    assert cluster.accelerator.memory_bytes < 50e9
    assert hardware_of("Abacus") is None
    selene = hardware_of("A100-SXM-80GB (Selene)")
    assert selene is not None
    assert (selene.accelerator, selene.cluster) == ("a100-80gb-sxm", "selene")


def test_regret_and_rank_correlation():
    assert regret_pct([1.0, 2.0, 3.0], [11.0, 10.0, 12.0]) == pytest.approx(10.0)
    assert regret_pct([1.0, 1.0, 3.0], [10.0, 12.0, 12.0]) == pytest.approx(10.0)
    assert regret_pct([1.0, 2.0], [5.0, 6.0]) == 0.0
    assert rank_correlation([1.0, 2.0, 3.0], [10.0, 20.0, 21.0]) == pytest.approx(1.0)
    assert rank_correlation([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]) == pytest.approx(-1.0)
    assert rank_correlation([1.0, 1.0, 1.0], [3.0, 2.0, 1.0]) is None
    assert rank_correlation([1.0, 2.0], [3.0, 2.0]) is None


def test_scores_count_every_row_once():
    """Errors against the predictions themselves, so that every figure is known."""
    predictor = Predictor()
    plain, wide = case_of(row()), case_of(row(tp="4", dp="1"))
    times = [predictor.predict(case).step_s for case in (plain, wide)]
    rows = [
        row(step_s=repr(times[0] / 1.1), status="ok", memory_gib="1"),
        row(tp="4", dp="1", step_s=repr(times[1] * 2)),
        row(status="oom", step_s=""),
        row(micro_batch=""),
        row(micro_batch=""),
    ]
    (score,) = scores(judge(rows, predictor))
    assert (score.rows, score.used, score.left_out) == (5, 3, {"micro_batch blank": 2})
    assert score.mean_abs_pct == pytest.approx((10 + 50) / 2)
    assert score.bias_pct == pytest.approx((10 - 50) / 2)
    assert score.max_abs_pct == pytest.approx(50)
    assert score.interval_coverage == 0.5
    assert score.fit_accuracy == 0.5
    assert (score.sweeps, score.spearman) == (1, None)
    assert score.memory_mean_abs_pct is not None
    assert score.memory_mean_abs_pct == pytest.approx(
        100 * abs(predictor.predict(plain).memory_bytes / 2**30 - 1)
    )


def test_tables_are_read_plain_and_compressed(tmp_path):
    text = "model,num_gpus,accelerator,iteration_time_ms,other\nGPT,8,A100-SXM-80GB,12,x\n,,,,\n"
    (tmp_path / "a.csv").write_text(text)
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(text.encode()))
    for name in ("a.csv", "b.csv.gz"):
        (read,) = read_table(tmp_path / name)
        assert read.cells == {"model": "GPT", "gpus": "8", "accelerator": "A100-SXM-80GB", "step_ms": "12"}
        assert (read.line, read.source) == (2, name)


@pytest.mark.parametrize(
    "data", [b"a,b\n1,2\n", b"model,num_gpus,gpu\n\xff\xfe", b"model,model,num_gpus,gpu\n1,2,3,4\n", b""]
)
def test_what_is_no_table_is_refused(tmp_path, data):
    path = tmp_path / "a.csv"
    path.write_bytes(data)
    with pytest.raises(InputError):
        read_table(path)


def test_broken_compression_and_missing_files_are_refused(tmp_path):
    (tmp_path / "a.csv.gz").write_bytes(b"no gzip")
    for name in (tmp_path / "a.csv.gz", tmp_path / "none.csv", "korthikanti"):
        with pytest.raises(InputError):
            read_table(name)


def test_every_shipped_row_has_a_source_and_is_used_or_left_out_for_a_reason():
    assert len(shipped_tables()) >= 9
    for name in shipped_tables():
        rows = read_table(name)
        assert rows
        assert all(one.get("source") and one.get("citation") for one in rows)
        for one in rows:
            try:
                case = case_of(one)
            except LeftOutError as left:
                assert str(left)  # noqa: PT017
            else:
                assert case.strategy.world_size == case.gpus


@pytest.mark.parametrize(
    ("table", "model", "published"),
    [
        ("llm_foundry_mpt", "MPT-70b", 64_862_437_376),
        ("llm_foundry_full_tables_2022", "mosaic-gpt-70b", 64_861_528_064),
        ("vtrain_ground_truth", "GPT (Megatron-DeepSpeed)", 355_786_752),
        # NVIDIA, "Nemotron-4 340B Technical Report", table 1: 9.4 B of embeddings and 331.6 B others.
        ("nemo_2407_and_longseq", "Nemotron-340B", 341.0e9),
        # Brown et al. 2020, table 2.1.
        ("nemo_2407_and_longseq", "GPT3-175B", 174.6e9),
    ],
)
def test_models_have_the_published_parameters(table, model, published):
    """Within half a percent of what the first row of each source counts."""
    first = next(one for one in read_table(table) if one.get("model") == model)
    assert case_of(first).job.model.parameters == pytest.approx(published, rel=5e-3)


def test_rows_are_written_with_prediction_or_reason(tmp_path):
    judged = judge([row(), row(recompute="", model="=1+1")], Predictor())
    write_rows(judged, tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open(newline="") as file:
        used, left = csv.DictReader(file)
    assert float(used["error_pct"]) == pytest.approx(100 * (float(used["predicted_s"]) / 1.5 - 1), abs=1e-3)
    assert float(used["p5_s"]) < float(used["predicted_s"]) < float(used["p95_s"])
    assert (used["left_out"], left["predicted_s"]) == ("", "")
    assert left["left_out"].startswith("architecture of")
    assert left["model"] == "'=1+1"


def test_the_command_prints_and_writes(tmp_path):
    table = tmp_path / "mine.csv"
    table.write_text(
        "source_title,model,num_gpus,accelerator,layers,hidden,heads,vocab,seq_len,tp,pp,global_batch,"
        "micro_batch,recompute,precision,iteration_time_ms\n"
        "me,GPT,8,A100-SXM-80GB,4,1024,16,51200,1024,1,1,16,2,none,bf16,40\n"
        "me,GPT,8,A100-SXM-80GB,4,1024,16,51200,1024,1,1,16,,none,bf16,40\n"
    )
    command = [sys.executable, "-m", "traincast", "validate", str(table), "-o", "out", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    (source,) = json.loads(done.stdout)["sources"]
    assert (source["file"], source["source"], source["rows"], source["used"]) == ("mine.csv", "me", 2, 1)
    assert source["left_out"] == {"micro_batch blank": 1}
    assert source["spearman"] is source["fit_accuracy"] is None
    assert math.isclose(source["mean_abs_pct"], abs(source["bias_pct"]))
    assert json.loads((tmp_path / "out/summary.json").read_text())["sources"] == [source]
    assert (tmp_path / "out/scatter.png").read_bytes().startswith(b"\x89PNG")
    assert "mine.csv" in (tmp_path / "out/validation.html").read_text(encoding="utf-8")
    assert len((tmp_path / "out/rows.csv").read_text().splitlines()) == 3
    shown = subprocess.run(command[:-1], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "Left out" in shown
    assert "mine.csv:2" in shown
