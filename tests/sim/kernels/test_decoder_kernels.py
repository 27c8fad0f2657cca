"""Kernels of layers against the closed forms of the papers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import gpt, gpt3_175b, llama

from traincast.sim.costs.traffic import dispatch_bytes
from traincast.sim.kernels.attention import CAUSAL_SHARE
from traincast.sim.kernels.decoder_kernels import (
    backward_kernels,
    forward_kernels,
    input_gradient_kernels,
    weight_gradient_kernels,
)
from traincast.sim.kernels.flops import (
    attention_flops,
    hardware_flops_per_token,
    layer_flops,
    model_flops_per_token,
)
from traincast.sim.model.hf_config import read_model
from traincast.sim.model.layer import BLOCK, BLOCKS, EMBEDDING, HEAD, MOE_BLOCK
from traincast.sim.model.model import Model
from traincast.sim.plan.software_stacks import STACKS

EXPERTS = {"experts": 8, "experts_per_token": 2, "expert_ffn": 128, "shared_ffn": 64}
LATENT = {"kv_heads": 8, "q_rank": 96, "kv_rank": 64, "rope_dim": 16, "v_head_dim": 48}
KINDS = st.sampled_from([EMBEDDING, BLOCK, MOE_BLOCK, HEAD])
MODELS = st.sampled_from(
    [gpt(2, 256, 8, 512, **EXPERTS), llama(**EXPERTS), llama(qk_norm=True, **{**EXPERTS, **LATENT})]
)


def shape(
    tp: int = 1, micro_batch: int = 2, seq_len: int = 64, value: int = 2, **more: Any
) -> dict[str, Any]:
    return {"micro_batch": micro_batch, "seq_len": seq_len, "tp": tp, "bytes_per_value": value, **more}


def narayanan_flops(model: Model, batch: int, seq_len: int, factor: int) -> float:
    """FLOPs of one iteration (Narayanan et al. 2021, equation 3): 96 with full recompute, 72 without."""
    d = model.decoder
    l, h, s, v = d.layers, d.hidden, seq_len, d.vocab  # noqa: E741 - the paper's letters
    logits = 6 * batch * s * h * v
    return factor * batch * s * l * h**2 * (1 + s / (6 * h)) + logits


@pytest.mark.parametrize(("recompute", "factor"), [("none", 72), ("full", 96)])
def test_gpt3_flops_are_those_of_narayanan(recompute: str, factor: int):
    """GPT-3 175B: 96Bslh²(1 + s/6h + V/16lh) with recompute, 72Bslh²(1 + s/6h + V/12lh) without."""
    model = gpt3_175b()
    counted = hardware_flops_per_token(model, 2048, recompute) * 1536 * 2048
    assert counted == pytest.approx(narayanan_flops(model, 1536, 2048, factor), rel=1e-12)


def test_selective_recompute_repeats_attention_alone():
    """Two GEMMs of 2bs²h FLOPs a layer again."""
    model = gpt3_175b()
    more = hardware_flops_per_token(model, 2048, "selective") - model_flops_per_token(model, 2048)
    assert more == 96 * 4 * 2048 * 12288


def test_model_flops_are_six_a_parameter_and_attention():
    """PaLM, appendix B: 6N + 12LHQT, N without look-ups, biases and norms."""
    model = llama(layers=3)
    d = model.decoder
    matrices = 3 * (d.hidden * (2 * d.q_size + 2 * d.kv_size) + 3 * d.hidden * d.ffn) + d.hidden * d.vocab
    assert model_flops_per_token(model, 100) == 6 * matrices + 12 * 3 * d.q_size * 100
    assert 6 * matrices == pytest.approx(6 * (model.parameters - d.vocab * d.hidden), rel=1e-2), (
        "norms and biases are a small part"
    )


@given(model=MODELS, kind=KINDS)
def test_kernels_do_the_flops_of_the_layer(model: Model, kind: str):
    """Products' FLOPs agree with the paper's count once the masked half of attention is put back."""
    d = model.decoder
    kernels = forward_kernels(d, kind, **shape())
    masked = (1 - CAUSAL_SHARE) * attention_flops(d, tokens=128, seq_len=64) if kind in BLOCKS else 0.0
    assert sum(k.flops for k in kernels) + masked == layer_flops(d, kind, tokens=128, seq_len=64)


@given(model=MODELS, kind=KINDS)
def test_backward_products_are_twice_the_forward(model: Model, kind: str):
    """A gradient of the input and one of the weight for every GEMM; attention's two become five, three
    over the width of queries and two over that of values."""
    d = model.decoder
    forward = forward_kernels(model.decoder, kind, **shape())
    backward = backward_kernels(model.decoder, kind, **shape())

    def flops(kernels, kind):
        return sum(k.flops for k in kernels if k.kind == kind)

    assert flops(backward, "gemm") == 2 * flops(forward, "gemm")
    per_width = flops(forward, "attention") / (d.q_size + d.o_size)
    assert flops(backward, "attention") == pytest.approx(per_width * (3 * d.q_size + 2 * d.o_size), rel=1e-12)
    assert d.q_size != d.o_size or flops(backward, "attention") == 2.5 * flops(forward, "attention")


@given(model=MODELS, kind=KINDS)
def test_tensor_parallelism_splits_the_products(model: Model, kind: str):
    """Two ranks do half of the GEMMs' FLOPs each, but for the router and the way down to latents, which
    each does whole; they move less, but not half of the bytes."""
    d = model.decoder
    values = d.hidden * d.experts if kind == MOE_BLOCK else 0
    if d.kv_rank and kind in BLOCKS:
        values += d.hidden * (d.q_rank + d.kv_rank + d.rope_dim)
    for make, times in ((forward_kernels, 1), (backward_kernels, 2)):
        one, two = make(d, kind, **shape()), make(d, kind, **shape(tp=2))
        whole = times * 2.0 * 128 * values
        assert sum(k.flops for k in one) - whole == 2 * (sum(k.flops for k in two) - whole)
        whole, half = (sum(k.bytes for k in kernels) for kernels in (one, two))
        assert whole / 2 < half <= whole


@given(model=MODELS, kind=KINDS, more=st.integers(2, 5))
def test_more_samples_cost_in_proportion_at_most(model: Model, kind: str, more: int):
    """Weights are read once whatever the micro-batch is; all else grows with it."""
    one = forward_kernels(model.decoder, kind, **shape(micro_batch=1))
    many = forward_kernels(model.decoder, kind, **shape(micro_batch=more))
    assert sum(k.flops for k in many) == more * sum(k.flops for k in one)
    assert sum(k.bytes for k in one) < sum(k.bytes for k in many) <= more * sum(k.bytes for k in one)


def test_a_block_is_these_kernels():
    """Llama: norm, QKV, rotary, attention, output, add, norm, gate and up, activation, down, add."""
    kernels = forward_kernels(llama().decoder, BLOCK, **shape())
    kinds = "memory gemm memory attention gemm memory memory gemm memory gemm memory"
    assert [k.kind for k in kernels] == kinds.split()
    sizes = [(k.m, k.n, k.k) for k in kernels if k.kind == "gemm"]
    assert sizes == [(128, 512, 256), (128, 256, 256), (128, 1024, 256), (128, 256, 512)]


def test_the_loss_is_in_fp32():
    """torch casts bf16 logits, so they move more than half of the fp32 ones; a fused loss reads once."""
    d = llama().decoder

    def loss(stack: str, value: int) -> float:
        own = forward_kernels(d, HEAD, **shape(value=value), stack=STACKS[stack])
        return sum(k.bytes for k in own[2:])

    assert [loss("torchtitan", v) for v in (2, 4)] == [128 * 1024 * (2 + 4 + 8), 128 * 1024 * 8]
    assert loss("composer", 2) == 128 * 1024 * (2 + 2 * (2 + 4 + 8))  # and twice in fp32, to be logged
    # Megatron-LM's: a cast, then eight values read or written in fp32
    assert loss("megatron", 2) == 128 * 1024 * (2 + 4 + 8 * 4)


@given(model=MODELS, kind=KINDS)
def test_the_halves_of_backward_are_all_of_it(model: Model, kind: str):
    """Nothing is done twice; attention and whatever another layer waits for is in the first half."""
    whole = backward_kernels(model.decoder, kind, **shape())
    inputs = input_gradient_kernels(model.decoder, kind, **shape())
    weights = weight_gradient_kernels(model.decoder, kind, **shape())
    assert sum(k.flops for k in inputs) + sum(k.flops for k in weights) == sum(k.flops for k in whole)
    assert len(inputs) + len(weights) == len(whole)
    assert all(k.kind != "attention" for k in weights)
    assert weights or kind not in BLOCKS


@given(model=MODELS, kind=KINDS)
def test_context_parallelism_divides_the_work(model: Model, kind: str):
    """Tokens and attention's causal work alike."""
    for make in (forward_kernels, backward_kernels):
        one, two = make(model.decoder, kind, **shape()), make(model.decoder, kind, **shape(cp=2))
        assert sum(k.flops for k in one) == 2 * sum(k.flops for k in two)


def test_sequence_parallelism_divides_norms_and_residuals():
    """The same GEMMs; norms and additions over a part of the tokens."""
    d = llama().decoder
    whole = forward_kernels(d, BLOCK, **shape(tp=4))
    split = forward_kernels(d, BLOCK, **shape(tp=4, sequence_parallel=True))
    assert [k for k in whole if k.kind != "memory"] == [k for k in split if k.kind != "memory"]
    outside = [0, 5, 6, 10]
    assert [split[i].bytes for i in outside] == [whole[i].bytes / 4 for i in outside]


def test_expert_parallelism_keeps_tokens_and_divides_weights():
    """As many tokens come from other ranks as go to them; each rank has fewer experts with more rows."""
    d = llama(**EXPERTS).decoder
    one = [k for k in forward_kernels(d, MOE_BLOCK, **shape()) if k.batch > 1 and k.kind == "gemm"]
    four = [k for k in forward_kernels(d, MOE_BLOCK, **shape(ep=4)) if k.batch > 1 and k.kind == "gemm"]
    assert [k.flops for k in one] == [k.flops for k in four]
    assert [(k.batch, k.m) for k in one] == [(8, 32)] * 2
    assert [(k.batch, k.m) for k in four] == [(2, 128)] * 2
    assert all(few.bytes < all_.bytes for few, all_ in zip(four, one, strict=True))


def test_the_busiest_rank_has_more_to_do():
    """Skewed routing multiplies the experts' work, not the rest; at most all tokens of four ranks come to
    their two experts, and one rank alone is as busy as the mean."""
    d = llama(**EXPERTS).decoder

    def flops(imbalance: float, ep: int = 4) -> float:
        kernels = forward_kernels(d, MOE_BLOCK, **shape(expert_imbalance=imbalance, ep=ep))
        return sum(k.flops for k in kernels)

    experts = 2.0 * 128 * 2 * 3 * 256 * 128
    assert flops(1.5) - flops(1.0) == 0.5 * experts
    assert flops(100.0) - flops(1.0) == 3.0 * experts
    assert flops(1.5, ep=1) == flops(1.0, ep=1)


@pytest.mark.parametrize("kind", [BLOCK, MOE_BLOCK])
def test_with_sequence_parallelism_nothing_is_done_twice(kind: str):
    """The router and the way down to latents work on a rank's own tokens then."""
    d = llama(**EXPERTS, **LATENT).decoder
    one = forward_kernels(d, kind, **shape())
    four = forward_kernels(d, kind, **shape(tp=4, sequence_parallel=True))
    assert sum(k.flops for k in one) == 4 * sum(k.flops for k in four)


def test_deepseek_v3_by_hand():
    """Attention's matrices of one layer are down to the latents, up from them and out; a token visits eight
    experts and a shared one, and the router."""
    d = read_model("deepseek-v3").decoder
    attention = 7168 * (1536 + 512 + 64) + 1536 * 128 * 192 + 512 * 128 * (128 + 128) + 128 * 128 * 7168
    assert attention == 187_105_280
    scores = 2 * 128 * (192 + 128) * 4096
    assert layer_flops(d, BLOCK, tokens=1, seq_len=4096) == 2 * (attention + 3 * 7168 * 18432) + scores
    experts = 9 * 3 * 7168 * 2048 + 7168 * 256
    assert layer_flops(d, MOE_BLOCK, tokens=1, seq_len=4096) == 2 * (attention + experts) + scores


def test_a_mixture_is_these_kernels():
    """Norm, router, top-k, copies; the experts; copies back, shared experts and their gate, additions."""
    d = llama(**EXPERTS, shared_gate=True).decoder
    attention = len(forward_kernels(d, BLOCK, **shape())) - 5
    kernels = forward_kernels(d, MOE_BLOCK, **shape(ep=4))[attention:]
    names = "memory gemm memory memory memory gemm memory gemm memory memory"
    shared = "gemm memory gemm gemm memory memory memory"
    assert [k.kind for k in kernels] == f"{names} {shared}".split()
    sizes = [(k.m, k.n, k.k, k.batch) for k in kernels if k.kind == "gemm"]
    experts = [(128, 256, 256, 2), (128, 256, 128, 2)]
    assert sizes == [(128, 8, 256, 1), *experts, (128, 128, 256, 1), (128, 256, 64, 1), (128, 1, 256, 1)]
    copies, sorting = kernels[3], kernels[4]
    assert copies.bytes == (1 + 2) * 128 * 256 * 2
    assert sorting.bytes == 2 * 2 * 128 * 256 * 2


def test_dispatch_sends_every_token_to_each_of_its_experts():
    """Tokens x experts a token x hidden x bytes, shared out over tp and cp."""
    d = llama(**EXPERTS).decoder
    sent = dispatch_bytes(d, micro_batch=2, seq_len=64, cp=2, tp=4, bytes_per_value=2)
    assert sent == 128 * 2 * 256 * 2 / 8


@given(model=MODELS)
def test_unfused_attention_computes_the_whole_score_matrix(model: Model):
    """Two GEMMs forward, four backward; scores are written and read, and dropped with dropout; the output
    is copied."""
    d = model.decoder
    for backward, count in ((False, 2), (True, 4)):
        own = [
            k
            for k in (backward_kernels if backward else forward_kernels)(d, BLOCK, **shape(flash=False))
            if k.attention
        ]
        assert sum(k.kind == "gemm" for k in own) == count
        whole = attention_flops(d, tokens=128, seq_len=64)
        assert sum(k.flops for k in own) == whole * count / 2
        softmax = sum(k.bytes for k in own if k.kind == "memory")
        copied = 2 * 2 * 128 * d.o_size  # from heads to tokens
        assert softmax == copied + (3 if backward else 2) * 2 * d.heads * 64 * 64 * 2
        dropped = (backward_kernels if backward else forward_kernels)(
            d, BLOCK, **shape(flash=False, dropout=True)
        )
        more = sum(k.bytes for k in dropped if k.attention and k.kind == "memory") - softmax
        assert more == 2.5 * 2 * d.heads * 64 * 64 * 2


def test_dropout_costs_masks_and_a_gradient():
    """A mask a byte an entry in the additions that follow a block's halves; two more passes backward."""
    d = llama().decoder
    values = 128 * 256
    forward, backward = (
        sum(k.bytes for k in make(d, BLOCK, **shape(dropout=True)))
        - sum(k.bytes for k in make(d, BLOCK, **shape()))
        for make in (forward_kernels, backward_kernels)
    )
    assert forward == 2 * values
    assert backward == 2 * values * (2 * 2 + 1)
