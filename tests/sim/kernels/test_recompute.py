"""Recompute policies: what is computed again, what is kept, what is communicated twice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from traincast.sim.costs.costs import Costs
from traincast.sim.costs.rank_flops import backward_flops
from traincast.sim.costs.traffic import layer_collectives
from traincast.sim.hardware.cluster_file import read_cluster
from traincast.sim.kernels.flops import hardware_flops_per_token, layer_flops, model_flops_per_token
from traincast.sim.kernels.layer_kernels import layer_kernels
from traincast.sim.kernels.recompute import repeated_blocks, repeated_parts
from traincast.sim.memory.layer_bytes import kept_bytes
from traincast.sim.model.hf_config import read_model
from traincast.sim.model.layer import BLOCK, MOE_BLOCK
from traincast.sim.plan.job import Job
from traincast.sim.plan.strategy import Strategy
from traincast.sim.plan.strategy_rules import strategy_faults

JOB = Job(model=read_model("llama-3-8b"), global_batch=8, seq_len=8192)
BLOCK_LAYER = JOB.model.layers[1]
CLUSTER = read_cluster("hgx-h100")


def parts(policy: str, *, stops_early: bool = False) -> list[float]:
    """Of the four products of Llama's block, the parts that are computed again."""
    kernels = layer_kernels(JOB, Strategy(), BLOCK, "forward")
    found = repeated_parts(JOB.model.decoder, BLOCK, policy, kernels, stops_early=stops_early)
    return [part for part, kernel in zip(found, kernels, strict=True) if kernel.kind == "gemm"]


def test_every_second_product_is_saved_by_selective_op():
    """Of wq wk wv wo w1 w3 w2 the 1st, 3rd, 5th and 7th; the fused ones are repeated in part."""
    assert parts("selective_op") == pytest.approx([1024 / 6144, 1.0, 0.5, 0.0])


def test_selective_op_saves_attention_and_repeats_everything_else():
    """Norms, positions, residuals and activations have no saved results."""
    kernels = layer_kernels(JOB, Strategy(), BLOCK, "forward")
    found = repeated_parts(JOB.model.decoder, BLOCK, "selective_op", kernels)
    for part, kernel in zip(found, kernels, strict=True):
        if kernel.kind != "gemm":
            assert part == (0.0 if kernel.attention else 1.0)


def test_selective_is_attention_alone_and_full_is_everything():
    """As Korthikanti et al. define them."""
    assert parts("selective") == [0.0] * 4
    assert parts("full") == [1.0] * 4
    assert parts("none") == [0.0] * 4


def test_recompute_that_stops_early_leaves_out_the_last_product():
    """Backward of the down projection reads its input, not its output."""
    assert parts("full", stops_early=True) == [1.0, 1.0, 1.0, 0.0]


def test_grouped_products_of_experts_are_not_saved_by_selective_op():
    """They are no `aten.mm`."""
    job = Job(model=read_model("mixtral-8x7b"), global_batch=8, seq_len=4096)
    kernels = layer_kernels(job, Strategy(), MOE_BLOCK, "forward")
    found = repeated_parts(job.model.decoder, MOE_BLOCK, "selective_op", kernels)
    experts = job.model.decoder.experts
    grouped = [
        part for part, k in zip(found, kernels, strict=True) if k.kind == "gemm" and k.batch == experts
    ]
    assert grouped == [1.0, 1.0]


def test_policies_stand_in_order_of_time_and_memory():
    """What is kept falls as what is repeated grows."""
    policies = ["none", "selective", "selective_op", "full"]
    costs = [Costs(CLUSTER, JOB, Strategy(recompute=policy)) for policy in policies]
    seconds = [one.compute.backward_s(BLOCK_LAYER) for one in costs]
    kept = [kept_bytes(JOB, Strategy(recompute=policy), BLOCK) for policy in policies]
    assert seconds == sorted(seconds)
    assert kept == sorted(kept, reverse=True)
    assert len(set(seconds)) == len(set(kept)) == 4


def test_selective_op_keeps_its_saved_results_and_no_more():
    """Input, wq, wv, attention's output, w1, w2 of each token in bf16, and the log-sums."""
    decoder, tokens = JOB.model.decoder, JOB.seq_len
    saved = 4096 + 4096 + 1024 + 4096 + decoder.ffn + 4096
    assert kept_bytes(JOB, Strategy(recompute="selective_op"), BLOCK) == tokens * (2 * saved + 4 * 32)


def test_some_blocks_cost_their_share():
    """Half the blocks: half of what full recompute adds, half of what it saves."""
    some = Strategy(recompute="full", recompute_blocks=16)
    three = (Strategy(), some, Strategy(recompute="full"))
    assert repeated_blocks(JOB, some) == 0.5
    seconds = [Costs(CLUSTER, JOB, s).compute.backward_s(BLOCK_LAYER) for s in three]
    kept = [kept_bytes(JOB, s, BLOCK) for s in three]
    assert seconds[1] == pytest.approx((seconds[0] + seconds[2]) / 2, rel=1e-12)
    assert kept[1] == pytest.approx((kept[0] + kept[2]) / 2, rel=1e-12)


def test_blocks_are_counted_in_every_stage():
    """2 blocks of each of 8 stages are 16 of 32."""
    strategy = Strategy(pp=4, vp=2, schedule="interleaved", recompute="full", recompute_blocks=2)
    assert repeated_blocks(JOB, strategy) == 0.5
    assert repeated_blocks(JOB, replace(strategy, recompute_blocks=9)) == 1.0


def test_hardware_flops_count_what_is_repeated():
    """A quarter of the blocks in full; the products that selective_op does not save."""
    model, decoder = JOB.model, JOB.model.decoder
    base = model_flops_per_token(model, 8192)
    block = layer_flops(decoder, BLOCK, tokens=1, seq_len=8192)
    assert hardware_flops_per_token(model, 8192, "full", 0.25) == pytest.approx(base + 8 * block)
    again = 2 * 4096 * (1024 + 4096 + decoder.ffn)
    assert hardware_flops_per_token(model, 8192, "selective_op") == pytest.approx(base + 32 * again)


def test_flops_of_a_pass_count_what_is_repeated():
    """A tensor-parallel rank does its part of them."""
    base, again = (
        backward_flops(JOB, Strategy(tp=4, recompute=policy), BLOCK_LAYER)
        for policy in ("none", "selective_op")
    )
    products = 2 * 4096 * (1024 + 4096 + JOB.model.decoder.ffn)
    assert again - base == pytest.approx(JOB.seq_len * products / 4)


def collectives(policy: str, stack: str = "megatron") -> list[tuple[str, int, bool]]:
    """Operation, count, and whether it is of a forward that is computed again."""
    strategy = Strategy(tp=8, sequence_parallel=True, recompute=policy, stack=stack)
    found = layer_collectives(JOB, strategy, BLOCK, backward=True)
    return [(one.operation, one.count, one.repeats_forward) for one in found]


def test_full_recompute_gathers_and_scatters_again():
    """All of the forward's, or one scatter fewer where it stops early."""
    own = [("all_gather", 2, False), ("reduce_scatter", 2, False)]
    assert collectives("none") == own
    assert collectives("full") == [("all_gather", 2, True), ("reduce_scatter", 2, True), *own]
    early = [("all_gather", 2, True), ("reduce_scatter", 1, True), *own]
    assert collectives("full", "torchtitan") == early


def test_selective_op_only_gathers_again():
    """What a reduce-scatter brought is saved."""
    own = [("all_gather", 2, False), ("reduce_scatter", 2, False)]
    assert collectives("selective_op") == [("all_gather", 2, True), *own]


def test_repeated_blocks_without_a_policy_are_refused():
    """There is nothing to repeat."""
    assert [fault.path for fault in strategy_faults(Strategy(recompute_blocks=1), JOB)] == [
        "strategy.recompute_blocks"
    ]


@pytest.mark.parametrize("backward", [False, True])
def test_tensor_traffic_hides_behind_products(backward: bool):
    """With overlap_tensor what shows is less, and nothing is less than nothing."""
    plain = Strategy(tp=8, sequence_parallel=True, stack="torchtitan")
    shown = [
        [one.seconds for one in Costs(CLUSTER, JOB, s).exchanges.of(BLOCK_LAYER, backward=backward)]
        for s in (plain, replace(plain, overlap_tensor=True))
    ]
    assert all(0.0 <= hidden < whole for whole, hidden in zip(*shown, strict=True))


def test_tensor_traffic_shows_what_is_longer_than_its_products():
    """On slow wires products hide no more than they take."""
    slow = read_cluster("ethernet-a100")
    plain = Strategy(tp=16, sequence_parallel=True)
    job = Job(model=read_model("llama3.1-405b"), global_batch=8, seq_len=8192)
    layer = job.model.layers[1]
    whole, shown = (
        sum(one.seconds for one in Costs(slow, job, s).exchanges.of(layer, backward=False))
        for s in (plain, replace(plain, overlap_tensor=True))
    )
    assert 0.0 < shown < whole
    assert whole - shown <= Costs(slow, job, plain).compute.forward_s(layer)


def test_overlap_needs_sequence_parallelism():
    """All-reduces do not divide among products."""
    faults = strategy_faults(Strategy(tp=8, overlap_tensor=True), JOB)
    assert [fault.path for fault in faults] == ["strategy.overlap_tensor"]


def test_fp8_gathers_half_the_bytes():
    """A linear layer's input is cast before it is gathered, its output is scattered in bf16."""
    strategy = Strategy(tp=8, sequence_parallel=True)
    bf16, fp8 = (
        [one.size_bytes for one in layer_collectives(job, strategy, BLOCK, backward=False)]
        for job in (JOB, replace(JOB, precision="fp8"))
    )
    assert fp8 == [bf16[0] / 2, bf16[1]]


def test_tokens_to_experts_travel_beside_another_micro_batch():
    """What is longer than the other pass shows; over links inside a node nothing does."""
    job = Job(model=read_model("mixtral-8x7b"), global_batch=8, seq_len=4096)
    layer, plain = job.model.layers[1], Strategy(dp=8, ep=8)
    overlapped = replace(plain, overlap_experts=True)
    whole, shown = (
        sum(one.seconds for one in Costs(CLUSTER, job, s).exchanges.of(layer, backward=False))
        for s in (plain, overlapped)
    )
    assert whole > 0.0
    assert shown == 0.0
    assert [fault.path for fault in strategy_faults(Strategy(overlap_experts=True), job)] == [
        "strategy.overlap_experts"
    ]
