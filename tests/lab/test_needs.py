"""What plans need of a calibration: their divisions, their sizes, and nothing else."""

from __future__ import annotations

from machines import llama

from traincast.executor.calibrate.needs import MOST_SIZES, thinned
from traincast.lab.needs import needs, usual_needs
from traincast.sim.plan.job import Job
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.strategy import Strategy

JOB = Job(model=llama(layers=2), global_batch=8, seq_len=64, precision="fp32")
BOUNDARY = 64 * JOB.model.decoder.hidden * 4
"""Bytes of one sample between two layers."""


def of(**fields) -> object:
    return needs([make_plan(JOB, Strategy(**fields))])


def test_a_single_process_needs_its_layers_and_its_optimizer():
    """No communication, no other ranks."""
    found = of(micro_batch=2)
    assert [(one.micro_batch, one.tp, one.cp) for one in found.layers] == [(2, 1, 1)]
    assert found.transports == found.ranks == ()
    assert [one.optimizer for one in found.optimizers] == ["adamw"]
    assert [(one.micro_batch, one.micro_batches) for one in found.memories] == [(2, 4)]
    assert found.world_size == 1


def test_tensor_parallel_layers_are_measured_as_they_are_divided():
    """Two all-reduces a block either way, three values a token for the loss, at just these sizes."""
    found = of(tp=2, micro_batch=2)
    assert [(one.tp, one.sequence_parallel) for one in found.layers] == [(2, False)]
    sizes = {(one.operation, one.ranks): one.sizes for one in found.transports}
    assert sizes["all_reduce", 2] == (2 * 64 * 4, 2 * BOUNDARY)
    split = of(tp=2, sequence_parallel=True, micro_batch=2)
    assert [(one.tp, one.sequence_parallel) for one in split.layers] == [(2, True)]
    assert {one.operation for one in split.transports} >= {"all_gather", "reduce_scatter"}


def test_exchanges_round_a_ring_are_shifts():
    """Of keys and values forward, of their gradients too backward."""
    found = of(cp=2, micro_batch=1)
    assert [(one.cp, one.cp_exchange) for one in found.layers] == [(2, "ring")]
    assert "shift" in {one.operation for one in found.transports}


def test_pipelines_need_messages_and_split_ones_the_halves_of_backward():
    """The message of one micro-batch."""
    whole, split = of(pp=2, micro_batch=2), of(pp=2, micro_batch=2, schedule="zb-h1")
    assert [one.splits_backward for one in (*whole.layers, *split.layers)] == [False, True]
    (messages,) = (one for one in whole.transports if one.operation == "send_recv")
    assert 2 * BOUNDARY in messages.sizes


def test_plans_share_what_they_need_alike():
    """Replicas of the same micro-batch have the same layers; sharded ones gather in addition."""
    plans = [make_plan(JOB, Strategy(dp=2, micro_batch=2, sharding=name)) for name in ("ddp", "fsdp")]
    both = needs(plans)
    assert len(both.layers) == 1
    assert {one.operation for one in both.transports} >= {"all_reduce", "all_gather", "reduce_scatter"}
    assert both.ranks == (2,)


def test_sizes_are_few_and_apart_with_both_ends():
    """Neighbours are measured as the larger; of many the ends stay."""
    assert thinned([100, 120, 1000]) == (120, 1000)
    many = thinned(2.0**k for k in range(4, 24))
    assert len(many) == MOST_SIZES
    assert (many[0], many[-1]) == (16, 2**23)
    assert thinned([]) == ()


def test_without_plans_there_are_the_usual_ones():
    """Every operation of every number of ranks, messages between two."""
    found = usual_needs([JOB.model], 64, (4, 1), (2, 4))
    assert [one.micro_batch for one in found.layers] == [1, 4]
    pairs = {(one.operation, one.ranks) for one in found.transports}
    assert ("send_recv", 2) in pairs
    assert ("send_recv", 4) not in pairs
    assert {operation for operation, count in pairs if count == 4} == {
        *("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "shift")
    }
    assert found.world_size == 4
