"""What configurations and stacks say becomes Strategy: recompute, precision, overlap, blocks by hand."""

from __future__ import annotations

from published_rows import row

from traincast.sim.published.case import case_of
from traincast.sim.published.prediction import Predictor
from traincast.sim.published.table import read_table


def test_recompute_of_some_operations_or_blocks():
    """torchtitan's two policies and Megatron-LM's number of blocks of each stage."""
    policies = {
        "selective op": ("selective_op", 0),
        "selective (per-op)": ("selective_op", 0),
        "selective layer 2": ("full", 1),  # of the 2 blocks of each of 2 stages
        "full 2": ("full", 2),
        "full": ("full", 0),
        "none": ("none", 0),
    }
    for text, expected in policies.items():
        strategy = case_of(row(recompute=text)).strategy
        assert (strategy.recompute, strategy.recompute_blocks) == expected


def test_fp8_by_its_names():
    """Of Transformer Engine, Composer and torchtitan; what stays in bf16 is named beside."""
    names = ("FP8 (Transformer Engine) + bf16", "FP8-CS", "amp_fp8", "float8 tensorwise", "float8 + bf16")
    hopper = {"accelerator": "H100-SXM-80GB"}
    assert {case_of(row(precision=name, **hopper)).job.precision for name in names} == {"fp8"}


def test_what_a_configuration_says_becomes_strategy():
    """Columns of facts that a project's configuration states beside its table."""
    whole = case_of(
        row(
            source="torchtitan",
            compiled="yes",
            tensor_overlap="yes",
            dropout="yes",
            stage_layers="1-3",
            sharding="8",
        )
    )
    strategy = whole.strategy
    assert (strategy.stack, strategy.overlap_tensor, strategy.sharding) == (
        "torchtitan-compile",
        True,
        "fsdp",
    )
    assert (strategy.stage_layers, whole.job.dropout) == ((1, 3), True)
    assert not case_of(row(tensor_overlap="yes", tp="1", dp="4")).strategy.overlap_tensor
    assert case_of(row(source="Korthikanti", dropout="no")).job.dropout is False


def test_blocks_dealt_by_hand_leave_the_ends_to_embedding_and_head():
    """As many chunks as blocks and two more; the prediction has every block once."""
    first = next(one for one in read_table("zero_bubble") if one.get("schedule") == "1F1B-I")
    case = case_of(first)
    layers = case.strategy.stage_layers
    assert (layers[0], layers[-1], set(layers[1:-1]), len(layers)) == (0, 0, {1}, 24)
    assert case.strategy.label.startswith("pp8 vp3 interleaved layers0-1x22-0 mb6 unfused")
    assert Predictor(samples=2).predict(case).step_s > 0
    assert case.memory_bytes == 40e9


def test_torchtitan_keeps_parameters_gathered_in_a_pipeline_and_gathers_keys():
    """As its code has it, whatever the table says; others pass keys round a ring."""
    cells = {"sharding": "FSDP2 2", "cp": "2", "tp": "1", "recompute": "full", "dp": "2"}
    ours, others = (
        case_of(row(source=source, **cells)).strategy for source in ("torchtitan benchmarks", "me")
    )
    assert (ours.reshard_after_forward, ours.cp_exchange) == (False, "all_gather")
    assert (others.reshard_after_forward, others.cp_exchange) == (True, "ring")


def test_models_that_are_presets_need_no_sizes():
    """Mixtures of experts of the published tables; experts are shared out beside the dense layers."""
    blank = dict.fromkeys(("layers", "hidden", "heads", "vocab", "tp", "pp"), "")
    changes = {**blank, "tp": "1", "pp": "1", "dp": "8", "ep": "8", "expert_overlap": "yes"}
    case = case_of(row(model="Qwen3_30B_a3B", **changes))
    assert case.job.model.decoder.experts == 128
    assert (case.strategy.ep, case.strategy.overlap_experts) == (8, True)


def test_all_parameters_fine_tuned_are_judged():
    """On packed samples it is the same work; adapters are not."""
    assert case_of(row(task="SFT")).step_s == case_of(row(task="Pre-training")).step_s == 1.5


def test_old_stacks_have_unfused_attention_and_dropout():
    """But for rows that name their kernel."""
    old = case_of(row(source="Korthikanti et al. 2022"))
    assert (old.strategy.attention, old.job.dropout) == ("unfused", True)
    assert case_of(row()).strategy.attention == "flash"
    assert case_of(row(attention="torch")).strategy.attention == "eager"
    assert case_of(row(attention="fused")).strategy.attention == "unfused"
    assert case_of(row(attention="flash_attention2")).strategy.attention == "flash"
