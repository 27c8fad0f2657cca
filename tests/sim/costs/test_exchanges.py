"""What layers communicate inside their passes, and what of it compute waits for."""

from __future__ import annotations

from dataclasses import replace

from machines import NVLINK, gpt3_175b, gpu_cluster

from traincast.sim.costs.costs import Costs
from traincast.sim.model.layer import Layer
from traincast.sim.plan.job import Job
from traincast.sim.plan.strategy import Strategy
from traincast.sim.plan.traffic import boundary_bytes

BIG = Job(model=gpt3_175b(), global_batch=64, seq_len=2048)


def exchanged(costs: Costs, layer: Layer, *, backward: bool = False) -> tuple[float, float]:
    """Bytes and seconds of all exchanges of one pass through ``layer``."""
    found = costs.exchanges.of(layer, backward=backward)
    return sum(one.collective.total_bytes for one in found), sum(one.seconds for one in found)


def test_a_block_sends_two_all_reduces_each_way():
    """Of micro_batch x seq x hidden values; full recompute repeats those of forward."""
    block = BIG.model.layers[1]
    size = 2048 * 12288 * 2
    costs = Costs(gpu_cluster(), BIG, Strategy(tp=8, stack="megatron-2021"))
    again = Costs(gpu_cluster(), BIG, Strategy(tp=8, recompute="full", stack="megatron-2021"))
    once = costs.communication.collective_s("all_reduce", size, range(8))
    assert exchanged(costs, block) == exchanged(costs, block, backward=True) == (2 * size, 2 * once)
    assert exchanged(again, block, backward=True) == (4 * size, 4 * once)


def test_sequence_parallelism_gathers_and_scatters_instead():
    """The same bytes over the same links: a ring's all-reduce is a reduce-scatter and an all-gather."""
    whole, split = (
        Costs(gpu_cluster(), BIG, Strategy(tp=8, sequence_parallel=parallel)) for parallel in (False, True)
    )
    block = BIG.model.layers[1]
    names = [one.collective.operation for one in split.exchanges.of(block, backward=False)]
    assert names == ["all_gather", "reduce_scatter"]
    assert exchanged(split, block)[0] == 2 * exchanged(whole, block)[0]


def test_embedding_and_head_communicate_as_in_megatron():
    """Look-ups are summed forward; the head's input gradient backward, three values a token for the loss."""
    costs = Costs(gpu_cluster(), BIG, Strategy(tp=8))
    embedding, head = BIG.model.layers[0], BIG.model.layers[-1]
    size = boundary_bytes(BIG, Strategy(tp=8))
    assert [exchanged(costs, embedding, backward=b)[0] for b in (False, True)] == [size, 0]
    assert [exchanged(costs, head, backward=b)[0] for b in (False, True)] == [3 * 2048 * 4, size]


def test_what_no_group_shares_is_not_sent():
    """A single rank."""
    costs = Costs(gpu_cluster(), BIG, Strategy())
    for layer in BIG.model.layers[:2]:
        assert costs.exchanges.of(layer, backward=False) == costs.exchanges.of(layer, backward=True) == ()


def test_ring_attention_hides_behind_attention():
    """A long part of the sequence on each rank hides the keys and values that travel, on a fast link."""
    block = BIG.model.layers[1]
    strategy, long = Strategy(cp=2), replace(BIG, seq_len=32768)
    fast = Costs(gpu_cluster(), long, strategy)
    slow_link = replace(NVLINK, bandwidth=1e9)
    slow = Costs(gpu_cluster(links={"nvlink": slow_link}), long, strategy)
    assert exchanged(fast, block)[1] == 0
    assert exchanged(slow, block)[1] > 0
    assert exchanged(fast, block)[0] == 2 * 12288 * 16384 * 2
    assert exchanged(fast, block, backward=True)[0] == 2 * exchanged(fast, block)[0]
