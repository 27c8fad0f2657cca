"""Layers of eager torch under autocast: the kernels that a profile shows, their bytes and their speeds."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from machines import gpt, gpu, gpu_cluster, llama

from traincast.sim.costs.costs import Costs
from traincast.sim.hardware.cluster import LayerProfile
from traincast.sim.kernels.layer_kernels import layer_kernels
from traincast.sim.kernels.roofline import kernel_s, kernels_s
from traincast.sim.plan.job import Job
from traincast.sim.plan.software_stacks import EXECUTOR_STACK
from traincast.sim.plan.strategy import Strategy

EAGER = Strategy(stack=EXECUTOR_STACK, micro_batch=4)
TOKENS = 4 * 1024


def job(model=None, *, precision: str = "bf16", micro_batches: int = 1, dropout: bool = False) -> Job:
    return Job(
        model=model or gpt(2, 768, 12, 50304),
        global_batch=4 * micro_batches,
        seq_len=1024,
        precision=precision,
        dropout=dropout,
    )


def families(one: Job, kind: str, part: str, strategy: Strategy = EAGER) -> Counter:
    """Calls by family; products and attention by their kind."""
    kernels = layer_kernels(one, strategy, kind, part)
    return Counter(k.family if k.kind == "memory" else k.kind for k in kernels)


def test_a_gpt_block_forward_is_what_a_profile_shows():
    """H200, benchmarks/results/gpu_nvidia-h200_2026-11-27_kernels.txt: two norms and their casts, four linear
    layers each of which casts its weight and its bias, attention, GELU, two residuals."""
    expected = {"layer_norm": 2, "cast": 2 + 4 * 2, "gemm": 4, "attention": 1, "gelu": 1, "residual": 2}
    assert families(job(), "block", "forward") == expected


def test_a_llama_block_backward_is_what_a_profile_shows():
    """Ditto: queries and keys turn back and are laid by tokens, then meet values; eight products, whose four
    weights' gradients are cast; two norms with casts and additions; the stream's gradient cast for each."""
    expected = {"swiglu_backward": 1, "rope_backward": 2, "transpose": 2, "attention": 1, "gemm": 8}
    expected |= {"rms_norm_backward": 2, "add": 2, "cast": 2 + 4 + 2 + 1}
    assert families(job(llama()), "block", "backward") == expected


def test_fp32_casts_nothing():
    for part in ("forward", "backward"):
        found = families(job(precision="fp32"), "block", part)
        assert found["cast"] == (1 if part == "backward" else 0)  # queries, keys and values become one


def test_bytes_of_norm_and_loss():
    """An fp32 norm reads and writes 4 bytes a value; the loss casts bf16 logits and takes log-softmax."""
    kernels = {k.family: k for k in layer_kernels(job(), EAGER, "head", "forward") if k.kind == "memory"}
    assert kernels["layer_norm"].bytes == 8 * TOKENS * 768
    assert kernels["loss"].bytes == (2 + 4 + 8) * TOKENS * 50304
    backward = {k.family: k for k in layer_kernels(job(), EAGER, "head", "backward") if k.kind == "memory"}
    assert backward["loss_backward"].bytes == (4 * 4 + 4 + 2) * TOKENS * 50304


def test_only_later_micro_batches_add_gradients():
    """The first one's gradients of weights are kept as they come: of four, three quarters are added."""

    def added(micro_batches: int) -> float:
        one = job(llama(), micro_batches=micro_batches)
        kernels = layer_kernels(one, EAGER, "block", "backward")
        return sum(k.bytes for k in kernels if k.family == "add" and k.weights)

    block = llama().layers[1].parameters - 2 * llama().decoder.hidden
    assert added(1) == 0
    assert added(4) == pytest.approx(0.75 * 12 * block)


def test_compiled_blocks_fuse_what_is_between_products():
    compiled = replace(EAGER, stack="torch-autocast-compile")
    one = job(llama())
    assert families(one, "block", "forward", compiled)["transpose"] == 1
    eager, fused = (
        sum(k.bytes for k in layer_kernels(one, s, "block", "forward") if k.kind == "memory")
        for s in (EAGER, compiled)
    )
    assert fused < 0.7 * eager


def test_fp32_attention_with_grouped_keys_has_no_flash_kernel():
    """Products and a softmax on the whole matrix of scores, as torch falls back to."""
    grouped = families(job(llama(), precision="fp32"), "block", "forward")
    assert grouped["attention"] == 0
    assert grouped["gemm"] == 4 + 2
    whole = llama(heads=8, kv_heads=8)
    assert families(job(whole, precision="fp32"), "block", "forward")["attention"] == 1


def test_a_measured_speed_counts_before_the_assumed_one():
    """Twice as fast as additions is half of their time."""
    (kernel,) = (k for k in layer_kernels(job(), EAGER, "block", "forward") if k.family == "gelu")
    plain = kernel_s(gpu(), replace(kernel, family="", speed=1.0), "bf16") - gpu().launch_overhead_s
    measured = kernel_s(gpu(kernel_speeds={"gelu": 2.0}), kernel, "bf16") - gpu().launch_overhead_s
    assert measured == pytest.approx(plain / 2)


def test_a_measured_backward_of_attention_has_its_own_curve():
    """Half of peak by its curve, whatever forward's speed and the assumed ratio; heads of 64 at 0.8 of it."""
    curve = {"bf16": ((1.0, 0.5),)}
    (kernel,) = (k for k in layer_kernels(job(), EAGER, "block", "backward") if k.kind == "attention")
    accelerator = gpu(attention_backward_efficiency=curve, kernel_speeds={"head_64_backward": 0.8})
    expected = kernel.flops / (312e12 * 0.5 * 0.8) + accelerator.launch_overhead_s
    assert kernel_s(accelerator, kernel, "bf16") == pytest.approx(expected)


def test_unaligned_products_are_as_slow_as_measured():
    one = job(gpt(2, 768, 12, 50257))
    head = next(k for k in layer_kernels(one, EAGER, "head", "forward") if k.kind == "gemm")
    aligned = replace(head, n=50256, flops=head.flops)
    ratio = kernel_s(gpu(launch_overhead_s=0.0), aligned, "bf16") / kernel_s(
        gpu(launch_overhead_s=0.0, kernel_speeds={"unaligned": 0.2}), head, "bf16"
    )
    assert ratio == pytest.approx(0.2, rel=1e-3)


def profile(micro_batch: int, factor: float, accelerator) -> LayerProfile:
    """A GPT block's, so many times what its kernels add up to in steps of four micro-batches."""
    one = replace(job(), global_batch=4 * micro_batch)
    forward, backward = (
        kernels_s(
            accelerator,
            layer_kernels(one, replace(EAGER, micro_batch=micro_batch), "block", part),
            "bf16",
            accelerator.host_launch_s,
        )
        for part in ("forward", "backward")
    )
    d = one.model.decoder
    names = ("hidden", "heads", "kv_heads", "ffn", "vocab", "activation", "norm")
    return LayerProfile(
        kind="block",
        **{name: getattr(d, name) for name in names},
        seq_len=1024,
        micro_batch=micro_batch,
        precision="bf16",
        forward_s=factor * forward,
        backward_s=factor * backward,
        micro_batches=4,
    )


def test_profiles_correct_the_kernels_they_are_of():
    """1.1 times at micro-batch 2, 1.3 at 8: 1.2 at 4, the nearest outside; other sequences are not corrected.

    A step of one micro-batch adds up no gradients, though the profiled ones did.
    """
    plain = gpu(host_launch_s=1e-9)
    corrected = replace(plain, layer_profiles=(profile(2, 1.1, plain), profile(8, 1.3, plain)))

    def ratio(micro_batch: int, seq_len: int = 1024) -> float:
        one = replace(job(), global_batch=micro_batch, seq_len=seq_len)
        strategy, layer = replace(EAGER, micro_batch=micro_batch), one.model.layers[1]
        with_, without = (
            Costs(gpu_cluster(accelerator=accelerator), one, strategy) for accelerator in (corrected, plain)
        )
        backward = with_.compute.backward_s(layer) / without.compute.backward_s(layer)
        assert with_.compute.forward_s(layer) / without.compute.forward_s(layer) == pytest.approx(backward)
        return backward

    assert [ratio(2), ratio(4), ratio(8), ratio(32)] == pytest.approx([1.1, 1.2, 1.3, 1.3], rel=1e-6)
    assert ratio(4, seq_len=512) == 1.0


def test_the_host_launches_a_backward_and_what_is_computed_again_in_one_go():
    """Device-bound backward and host-bound recomputation overlap: the slower of the two sums counts."""
    layer = job().model.layers[1]
    slow_host = gpu(host_launch_s=1e-3, host_recompute_s={"full": 5e-3})
    none, full = (
        Costs(gpu_cluster(accelerator=slow_host), job(), replace(EAGER, recompute=policy)).compute.backward_s(
            layer
        )
        for policy in ("none", "full")
    )
    backward = sum(k.launches for k in layer_kernels(job(), EAGER, "block", "backward"))
    forward = layer_kernels(job(), EAGER, "block", "forward")
    last = max(place for place, k in enumerate(forward) if k.kind == "gemm")
    assert none == pytest.approx(1e-3 * backward)
    again = sum(k.launches for k in forward[:last])
    assert full == pytest.approx(1e-3 * (backward + again) + 5e-3)


def test_a_backward_is_launched_without_an_interpreter():
    """The host takes less for a kernel of a backward, and for what a backward computes again as for a
    forward's; unmeasured, a stack's own seconds count."""
    layer = job().model.layers[1]
    measured = gpu(host_launch_s=3e-3, host_backward_launch_s=1e-3, host_recompute_s={"selective": 5e-3})
    costs = Costs(gpu_cluster(accelerator=measured), job(), replace(EAGER, recompute="selective")).compute
    launches = {
        part: sum(k.launches for k in layer_kernels(job(), EAGER, "block", part))
        for part in ("forward", "backward")
    }
    again = sum(k.launches for k in layer_kernels(job(), EAGER, "block", "forward") if k.attention)
    assert costs.forward_s(layer) == pytest.approx(3e-3 * launches["forward"])
    assert costs.backward_s(layer) == pytest.approx(1e-3 * launches["backward"] + 3e-3 * again + 5e-3)
    slow = Costs(gpu_cluster(accelerator=gpu(memory_bandwidth=1e18)), job(), EAGER).compute
    stack = EAGER.software
    assert stack.host_backward_launch_s < stack.host_launch_s
    assert slow.backward_s(layer) >= stack.host_backward_launch_s * launches["backward"]


def test_dropout_is_a_kernel_of_its_own_but_in_compiled_blocks():
    """Behind both halves and the embedding: read, written, and a byte of mask; its gradient likewise."""
    for part, family in (("forward", "dropout"), ("backward", "dropout_backward")):
        kernels = layer_kernels(job(dropout=True), EAGER, "block", part)
        own = [k.bytes for k in kernels if k.family == family]
        assert own == [(2 * 2 + 1) * TOKENS * 768] * 2
        assert families(job(dropout=True), "embedding", part)[family] == 1
        assert family not in families(job(), "block", part)
    compiled = replace(EAGER, stack="torch-autocast-compile")
    assert "dropout" not in families(job(dropout=True), "block", "forward", compiled)
    (attention,) = [k for k in kernels if k.kind == "attention"]
    plain, slower = gpu(), gpu(kernel_speeds={"attention_dropout_backward": 0.5})
    assert kernel_s(slower, attention, "bf16") > 1.5 * kernel_s(plain, attention, "bf16")


def test_attention_of_tf32_runs_as_in_fp32():
    (kernel,) = [k for k in layer_kernels(job(precision="tf32"), EAGER, "block", "forward") if k.attention]
    assert kernel.precision == "fp32"


EXPERTS = {"experts": 8, "experts_per_token": 2, "expert_ffn": 512}
LATENTS = {"kv_heads": 8, "head_dim": 96, "q_rank": 64, "kv_rank": 48, "rope_dim": 32, "v_head_dim": 64}


def test_each_expert_casts_and_multiplies_by_itself():
    """Two matrices an expert, both cast; the router multiplies in fp32; what experts gave is one again,
    weighed and summed."""
    dense = families(job(llama()), "block", "forward")
    sparse = families(job(llama(**EXPERTS)), "moe_block", "forward")
    assert sparse - dense == Counter(
        gemm=2 * 8 + 1 - 2,
        cast=2 * 8 - 2,
        swiglu=8 - 1,
        routing=1,
        sorting=1,
        index=1,
        index_add=1,
        copy=2,
    )
    kernels = layer_kernels(job(llama(**EXPERTS)), EAGER, "moe_block", "forward")
    assert [k.n for k in kernels if k.precision == "fp32"] == [8]
    rows = sum(k.m for k in kernels if k.kind == "gemm" and k.n == 2 * 512)
    assert rows == 2 * TOKENS


def test_learned_routing_launches_less_than_what_is_imposed():
    """A choice of the highest scores instead of one that follows from places."""
    imposed = job(llama(**EXPERTS))
    counts = [
        sum(k.launches for k in layer_kernels(one, EAGER, "moe_block", "forward"))
        for one in (replace(imposed, routing="learned"), imposed)
    ]
    assert counts[1] - counts[0] == 46 - 19


def test_backward_of_experts_stacks_their_gradients():
    """Four GEMMs an expert and two of the router; every expert's two gradients are cast and become one; those
    of earlier micro-batches are added to whole matrices."""
    found = families(job(llama(**EXPERTS), micro_batches=2), "moe_block", "backward")
    dense = families(job(llama(), micro_batches=2), "block", "backward")
    assert found["gemm"] - dense["gemm"] == 4 * 8 + 2 - 4
    assert found["swiglu_backward"] == 8
    assert (found["weighing_backward"], found["index_backward"], found["routing_backward"]) == (1, 1, 1)
    weights = layer_kernels(job(llama(**EXPERTS)), EAGER, "moe_block", "weight_gradient")
    stacked = [k.bytes for k in weights if k.family == "copy"]
    assert stacked == [8.0 * 8 * 2 * 512 * 256, 8.0 * 8 * 512 * 256]


@pytest.mark.parametrize("gated", [False, True])
def test_shared_experts_are_an_mlp_of_their_own(gated):
    plain, shared = (
        families(job(llama(**EXPERTS, **more)), "moe_block", "forward")
        for more in ({}, {"shared_ffn": 256, "shared_gate": gated})
    )
    expected = Counter(gemm=2, cast=3, swiglu=1, residual=1)
    if gated:
        expected += Counter(gemm=1, cast=2, sigmoid=1, copy=1)
    assert shared - plain == expected


def test_expert_parallel_ranks_sort_what_arrives():
    """Among the experts of a rank, where it has several; there and back, and backward both ways."""
    one = replace(job(llama(**EXPERTS), micro_batches=4), global_batch=64)
    for dp, ep, again in ((1, 1, 0), (4, 4, 2), (8, 8, 0)):
        strategy = replace(EAGER, dp=dp, ep=ep)
        assert families(one, "moe_block", "forward", strategy)["index"] == 1 + again
        assert families(one, "moe_block", "forward", strategy)["gemm"] == 2 + 1 + 2 * (8 // ep)
        assert families(one, "moe_block", "backward", strategy)["index_add"] == again


def test_latent_attention_is_what_its_module_does():
    """Down in one GEMM, up in two, each latent's norm between casts; rotary parts are turned by themselves;
    values, narrower than keys, are padded."""
    found = families(job(llama(**LATENTS)), "block", "forward")
    expected = {"rms_norm": 2 + 2, "gemm": 4 + 2, "rope": 2, "copy": 2, "padding": 1, "attention": 1}
    expected |= {"transpose": 1, "swiglu": 1, "residual": 2, "cast": 2 + 6 + 2 * 2}
    assert found == expected
    kernels = layer_kernels(job(llama(**LATENTS)), EAGER, "block", "forward")
    assert [(k.n, k.k) for k in kernels if k.kind == "gemm"][:3] == [
        (64 + 48 + 32, 256),
        (8 * 96, 64),
        (8 * (64 + 64), 48),
    ]
    backward = families(job(llama(**LATENTS)), "block", "backward")
    assert backward["gemm"] == 2 * 6
    assert backward["parts_backward"] == 1


def test_queries_without_a_latent_read_the_tokens():
    with_latent, without = (
        families(job(llama(**{**LATENTS, "q_rank": rank})), "block", "forward") for rank in (64, 0)
    )
    assert with_latent["gemm"] == without["gemm"]
    assert with_latent["rms_norm"] - without["rms_norm"] == 1


def test_norms_of_heads_are_in_fp32_between_casts():
    plain, normed = (families(job(llama(qk_norm=on)), "block", "forward") for on in (False, True))
    assert normed - plain == Counter(rms_norm=2, cast=4)
    plain, normed = (families(job(llama(qk_norm=on)), "block", "backward") for on in (False, True))
    assert normed - plain == Counter(rms_norm_backward=2, cast=4)
