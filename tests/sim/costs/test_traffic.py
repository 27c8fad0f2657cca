"""What is communicated: bytes by hand, and sums that no way of dividing changes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from machines import gpt, llama

from traincast.sim.costs.traffic import layer_collectives
from traincast.sim.model.hf_config import read_model
from traincast.sim.model.layer import BLOCK, EMBEDDING, HEAD, MOE_BLOCK
from traincast.sim.plan.job import Job
from traincast.sim.plan.rank_parameters import split_parameters
from traincast.sim.plan.strategy import Strategy
from traincast.sim.plan.traffic import averaging, boundary_bytes, gathering, message_bytes, reduction

JOB = Job(model=gpt(4, 1024, 16, 51200), global_batch=64, seq_len=2048)


def summary(collectives) -> list[tuple[str, str, float, int]]:
    return [(one.dimension, one.operation, one.size_bytes, one.count) for one in collectives]


def test_messages_are_the_activations_of_a_micro_batch():
    """Sequence parallelism sends each rank's part, as Megatron does without; context parallelism has fewer
    tokens."""
    whole = 2 * 2048 * 1024 * 2
    assert boundary_bytes(JOB, Strategy(micro_batch=2)) == whole
    assert message_bytes(JOB, Strategy(micro_batch=2, tp=4, stack="torchtitan")) == whole
    assert message_bytes(JOB, Strategy(micro_batch=2, tp=4)) == whole / 4
    assert message_bytes(JOB, Strategy(micro_batch=2, tp=4, sequence_parallel=True)) == whole / 4
    assert message_bytes(JOB, Strategy(micro_batch=2, cp=2)) == whole / 2


def test_context_parallelism_sends_keys_and_values_or_heads():
    """A ring passes keys and values on cp - 1 times; all-to-all exchanges queries, keys, values, output, and
    repeats keys where there are fewer heads of them than ranks."""
    ring = layer_collectives(JOB, Strategy(cp=4), BLOCK, backward=False)
    assert summary(ring) == [("cp", "send_recv", 2 * 512 * 1024 * 2, 3)]
    every = layer_collectives(JOB, Strategy(cp=4, cp_exchange="all_to_all"), BLOCK, backward=False)
    assert summary(every) == [("cp", "all_to_all", 512 * 1024 * 2, 1)] * 4
    few_heads = Job(model=llama(), global_batch=8, seq_len=128, precision="bf16")
    grouped = layer_collectives(few_heads, Strategy(cp=2, cp_exchange="all_to_all"), BLOCK, backward=False)
    heads, keys = 64 * 256 * 2, 64 * 128 * 2
    assert [one.size_bytes for one in grouped] == [heads, keys, keys, heads]
    copied = Strategy(tp=4, cp=2, cp_exchange="all_to_all")
    assert few_heads.model.decoder.kv_heads == 4
    sizes = [one.size_bytes for one in layer_collectives(few_heads, copied, BLOCK, backward=False)][-4:]
    assert sizes == [heads / 4, keys / 2, keys / 2, heads / 4]


def test_gradients_of_keys_travel_behind_attention_but_for_the_last_way():
    """As often and as much as the keys, on the ring with them; over two ranks there is only the last way."""
    size = 2 * 512 * 1024 * 2
    found = layer_collectives(JOB, Strategy(cp=4), BLOCK, backward=True)
    ways = [(one.size_bytes, one.count, one.behind_attention, one.together) for one in found]
    assert ways == [(size, 3, True, 2), (size, 2, True, 2), (size, 1, False, 1)]
    found = layer_collectives(JOB, Strategy(cp=2), BLOCK, backward=True)
    assert [(one.size_bytes, one.count, one.behind_attention) for one in found] == [
        (2 * size, 1, True),
        (2 * size, 1, False),
    ]


@pytest.mark.parametrize(
    ("exchange", "stack", "repeated"),
    [
        ("ring", "megatron", ["send_recv"]),
        ("all_gather", "torchtitan", ["all_gather"]),
        ("all_to_all", "megatron", ["all_to_all"] * 4),
        ("all_to_all", "torch-autocast", ["all_to_all"] * 4),
    ],
)
def test_selective_recompute_exchanges_keys_again(exchange: str, stack: str, repeated: list[str]):
    """Nothing of tensor parallelism."""
    strategy = Strategy(
        tp=2, cp=2, cp_exchange=exchange, stack=stack, recompute="selective", sequence_parallel=True
    )
    found = layer_collectives(JOB, strategy, BLOCK, backward=True)
    assert [one.operation for one in found if one.repeats_forward] == repeated


def test_a_split_embedding_gathers_the_gradients_of_all_tokens():
    """Without sequence parallelism every rank has them."""
    for sequence, backward, expected in (
        (False, False, ["all_reduce"]),
        (False, True, []),
        (True, False, ["reduce_scatter"]),
        (True, True, ["all_gather"]),
    ):
        strategy = Strategy(tp=4, sequence_parallel=sequence)
        found = layer_collectives(JOB, strategy, EMBEDDING, backward=backward)
        assert [one.operation for one in found] == expected


@pytest.mark.parametrize("kind", [EMBEDDING, HEAD])
def test_context_parallelism_is_a_matter_of_blocks(kind):
    assert layer_collectives(JOB, Strategy(cp=4), kind, backward=True) == ()


def test_sharding_decides_how_gradients_are_reduced():
    """All-reduce, reduce-scatter, or within groups and then over them (4 bytes a gradient for bf16)."""
    assert summary(reduction(JOB, Strategy(dp=8), 1000, 0)) == [("dp", "all_reduce", 4000, 1)]
    for sharding in ("zero1", "zero2", "fsdp"):
        scattered = reduction(JOB, Strategy(dp=8, sharding=sharding), 1000, 0)
        assert summary(scattered) == [("dp", "reduce_scatter", 4000, 1)]
    hybrid = reduction(JOB, Strategy(dp=8, sharding="hsdp", shard_degree=4), 1000, 0)
    assert summary(hybrid) == [("dp", "reduce_scatter", 4000, 1), ("dp", "all_reduce", 1000, 1)]
    assert [one.group for one in hybrid] == ["shards", "shard_replicas"]


def test_weights_are_gathered_and_averaged_as_computed_with():
    """2 bytes of bf16; experts among those that hold the same ones."""
    gathered = gathering(JOB, Strategy(dp=8, sharding="fsdp"), 1000, 500)
    assert [(one.group, one.size_bytes) for one in gathered] == [("shards", 2000), ("expert_replicas", 1000)]
    assert [(one.group, one.size_bytes) for one in averaging(JOB, 1000, 0)] == [("replicas", 2000)]


def test_parameters_of_a_rank():
    """tp divides every layer but what is whole everywhere; a dense model has no experts."""
    layers = JOB.model.layers
    dense, experts = split_parameters(layers, Strategy(tp=4))
    whole = sum(layer.whole_parameters for layer in layers)
    assert whole > 0
    assert (dense, experts) == (whole + (JOB.model.parameters - whole) / 4, 0)


def test_context_parallel_keys_and_values_may_be_gathered_at_once():
    """As many bytes as the ring passes on; backward passes their gradients on round the ring all the same."""
    job = Job(model=read_model("llama-3-8b"), global_batch=4, seq_len=8192)
    ring, gathered = (
        Strategy(dp=1, cp=4, cp_exchange=exchange, stack="megatron") for exchange in ("ring", "all_gather")
    )
    (passed,) = layer_collectives(job, ring, "block", backward=False)
    (whole,) = layer_collectives(job, gathered, "block", backward=False)
    assert whole.operation == "all_gather"
    assert whole.size_bytes == 4 * passed.size_bytes  # the whole buffer, of which each rank has its part
    assert whole.behind_attention
    again, *gradients = layer_collectives(job, gathered, "block", backward=True)
    assert again == whole
    ways = [(one.operation, one.count, one.size_bytes, one.together) for one in gradients]
    assert ways == [("send_recv", count, passed.size_bytes, 1) for count in (2, 1)]


def test_software_that_repeats_keys_exchanges_them_for_every_head():
    """Llama 3 8B has four times as many heads as keys."""
    job = Job(model=read_model("llama-3-8b"), global_batch=4, seq_len=8192)
    (lean,) = layer_collectives(job, Strategy(cp=4, stack="megatron"), "block", backward=False)
    (repeated,) = layer_collectives(job, Strategy(cp=4, stack="torchtitan"), "block", backward=False)
    assert repeated.size_bytes == 4 * lean.size_bytes


EXPERTS = {"experts": 8, "experts_per_token": 2, "expert_ffn": 64}
SPLIT = Strategy(dp=2, tp=2, ep=2, sequence_parallel=True)


def experts_job(**changes) -> Job:
    return Job(model=llama(**EXPERTS), global_batch=4, seq_len=64, precision="fp32", **changes)


def test_before_shared_experts_every_token_is_gathered():
    """Attention, what arrives at experts, and with shared experts their own half."""
    size, routed = 64 * 256 * 4, 2 * 64 * 256 * 4
    own = Job(model=llama(**EXPERTS, hidden=256), global_batch=4, seq_len=64, precision="fp32")
    shared = Job(
        model=llama(**EXPERTS, hidden=256, shared_ffn=64), global_batch=4, seq_len=64, precision="fp32"
    )
    for job, halves in ((own, 1), (shared, 2)):
        found = layer_collectives(job, SPLIT, MOE_BLOCK, backward=False)
        assert summary(one for one in found if one.dimension == "tp") == [
            ("tp", "all_gather", size, halves),
            ("tp", "reduce_scatter", size, halves),
            ("tp", "all_gather", routed, 1),
            ("tp", "reduce_scatter", routed, 1),
        ]


def test_learned_routing_tells_its_counts():
    """4 bytes an expert: to its rank and that one's tensor-parallel peers, and for the balance loss among the
    ranks that share a sequence; nothing of it backward."""

    def added(strategy: Strategy, backward: bool = False) -> list:
        ways = [
            layer_collectives(experts_job(routing=kind), strategy, MOE_BLOCK, backward=backward)
            for kind in ("learned", "imposed")
        ]
        assert ways[0][: len(ways[1])] == ways[1]
        return summary(ways[0][len(ways[1]) :])

    assert added(Strategy(dp=2)) == []
    assert added(Strategy(dp=2, ep=2)) == [("ep", "all_to_all", 8 * 4, 1)]
    assert added(Strategy(cp=2, micro_batch=2)) == [("cp", "all_reduce", 2 * 8 * 4, 1)]
    assert added(SPLIT) == [
        ("ep", "all_to_all", 8 * 4, 1),
        ("tp", "all_gather", 2 * 8 * 4, 1),
        ("tp", "all_reduce", 8 * 4, 1),
    ]
    assert added(SPLIT, backward=True) == []


def test_what_is_computed_again_ends_before_the_last_sum():
    """Where recompute stops early nothing reads the last sum over tensor-parallel ranks; but from experts of
    other ranks it comes back to be weighed, whose gradient wants it."""
    for strategy, fewer in ((Strategy(tp=2), 1), (Strategy(dp=2, tp=2, ep=2, sequence_parallel=True), 0)):
        again = replace(strategy, stack="torchtitan", recompute="full")
        forward, backward, whole = (
            [
                one
                for one in layer_collectives(experts_job(), s, MOE_BLOCK, backward=way)
                if one.dimension == "tp"
            ]
            for s, way in ((again, False), (strategy, True), (again, True))
        )
        count = sum(one.count for one in whole) - sum(one.count for one in backward)
        assert count == sum(one.count for one in forward) - fewer
