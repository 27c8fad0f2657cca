"""A rank's actions cut into steps: what is issued when."""

from __future__ import annotations

from dataclasses import replace

from machines import job, llama

from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.strategy import Strategy
from traincast.sim.program.steps import Step, StepKind, steps_of

JOB = job(llama(layers=2), global_batch=4)
"""Layers: 0 embedding, 1 and 2 blocks, 3 head."""


def shown(step: Step) -> str:
    if step.kind is StepKind.BLOCK:
        layers = ",".join(str(i) for part in step.layers for i in part)
        return f"{step.action}[{layers}]"
    if step.kind is StepKind.COLLECTIVE:
        assert step.collective is not None
        return f"{step.collective.operation}({step.action})"
    return str(step.action)


def cut(strategy: Strategy, rank: int = 0, *, batch: int = 4) -> list[str]:
    return [shown(step) for step in steps_of(make_plan(replace(JOB, global_batch=batch), strategy), rank)]


def test_a_plain_pass_is_one_step():
    assert cut(Strategy(), batch=1) == ["0F0[0,1,2,3]", "0B0[0,1,2,3]", "0STEP"]


def test_backward_is_cut_where_a_bucket_is_whole_and_reduced_there():
    """Small buckets hold one layer each; only the last micro-batch's backward is cut."""
    assert cut(Strategy(dp=2, bucket_bytes=1)) == [
        "0F0[0,1,2,3]",
        "0B0[0,1,2,3]",
        "0F1[0,1,2,3]",
        *(f"0B1[{layer}] all_reduce(0REDUCE_GRAD{i})".split()[part] for i, layer in enumerate((3, 2, 1, 0))
          for part in (0, 1)),
        "0STEP",
    ]  # fmt: skip


def test_without_overlap_reductions_follow_the_whole_backward():
    steps = cut(Strategy(dp=2, bucket_bytes=1, overlap_gradients=False), batch=2)
    assert steps == [
        "0F0[0,1,2,3]",
        "0B0[0,1,2,3]",
        *(f"all_reduce(0REDUCE_GRAD{i})" for i in range(4)),
        "0STEP",
    ]


def test_fsdp_gathers_one_block_ahead():
    """The first two blocks at once, then each one pass ahead; reductions in the middle of backward."""
    assert cut(Strategy(dp=2, sharding="fsdp"), batch=2) == [
        "all_gather(0UNSHARD)", "all_gather(0UNSHARD)", "0F0[0]",
        "all_gather(0UNSHARD)", "0F0[1]",
        "all_gather(0UNSHARD)", "0F0[2]",
        "all_gather(0UNSHARD)", "0F0[3]",
        "all_gather(0UNSHARD)", "0B0[3]", "reduce_scatter(0REDUCE_GRAD0)",
        "all_gather(0UNSHARD)", "0B0[2]", "reduce_scatter(0REDUCE_GRAD1)",
        "all_gather(0UNSHARD)", "0B0[1]", "reduce_scatter(0REDUCE_GRAD2)",
        "0B0[0]", "reduce_scatter(0REDUCE_GRAD3)",
        "0STEP",
    ]  # fmt: skip


def test_fsdp_without_prefetch_gathers_when_it_must():
    steps = cut(Strategy(dp=2, sharding="fsdp", prefetch=0), batch=2)
    assert steps[:4] == ["all_gather(0UNSHARD)", "0F0[0]", "all_gather(0UNSHARD)", "0F0[1]"]


def test_fsdp_that_keeps_gathers_once():
    """Later passes find the parameters there; gradients are reduced with every micro-batch."""
    steps = cut(Strategy(dp=2, sharding="fsdp", reshard_after_forward=False))
    assert steps.count("all_gather(0UNSHARD)") == 4
    assert steps.count("0F1[0,1,2,3]") == 1


def test_zero1_gathers_after_the_step():
    """Each replica steps its part, then all get all."""
    steps = cut(Strategy(dp=2, sharding="zero1", bucket_bytes=10**9), batch=2)
    assert steps[-3:] == ["reduce_scatter(0REDUCE_GRAD0)", "0STEP", "all_gather(0UNSHARD)"]


def test_offloaded_activations_come_back_one_pass_ahead():
    assert cut(Strategy(offload="activations", schedule="gpipe"), batch=2) == [
        "0F0[0,1,2,3]", "0OFFLOAD0", "0FETCH0", "0F1[0,1,2,3]", "0OFFLOAD1", "0FETCH1", "0B0[0,1,2,3]",
        "0B1[0,1,2,3]", "0STEP",
    ]  # fmt: skip


def test_local_steps_average_parameters_once():
    assert cut(Strategy(dp=2, synchrony="local:2"), batch=2) == [
        "0F0[0,1,2,3]", "0B0[0,1,2,3]", "0STEP", "0F1[0,1,2,3]", "0B1[0,1,2,3]", "0STEP",
        "all_reduce(0AVERAGE)",
    ]  # fmt: skip
