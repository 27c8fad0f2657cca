"""Kernels of layers against the closed forms of the papers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import gpt, gpt3_175b, llama

from traincast.sim.kernels import (
    CAUSAL_SHARE,
    attention_flops,
    backward_kernels,
    forward_kernels,
    hardware_flops_per_token,
    layer_flops,
    model_flops_per_token,
)
from traincast.sim.model import BLOCK, EMBEDDING, HEAD, Model

KINDS = st.sampled_from([EMBEDDING, BLOCK, HEAD])
MODELS = st.sampled_from([gpt(2, 256, 8, 512), llama(), llama(qk_norm=True, kv_heads=8)])


def shape(tp: int = 1, micro_batch: int = 2, seq_len: int = 64, value: int = 2) -> dict[str, int]:
    return {"micro_batch": micro_batch, "seq_len": seq_len, "tp": tp, "bytes_per_value": value}


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
    """Two products of 2bs²h FLOPs a layer again."""
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
    masked = (1 - CAUSAL_SHARE) * attention_flops(d, tokens=128, seq_len=64) if kind == BLOCK else 0.0
    assert sum(k.flops for k in kernels) + masked == layer_flops(d, kind, tokens=128, seq_len=64)


@given(model=MODELS, kind=KINDS)
def test_backward_products_are_twice_the_forward(model: Model, kind: str):
    """A gradient of the input and one of the weight for every product; attention is 2.5 times."""
    forward = forward_kernels(model.decoder, kind, **shape())
    backward = backward_kernels(model.decoder, kind, **shape())

    def flops(kernels, kind):
        return sum(k.flops for k in kernels if k.kind == kind)

    assert flops(backward, "gemm") == 2 * flops(forward, "gemm")
    assert flops(backward, "attention") == 2.5 * flops(forward, "attention")


@given(model=MODELS, kind=KINDS)
def test_tensor_parallelism_splits_the_products(model: Model, kind: str):
    """Two ranks do half of the products' FLOPs each, and move less, but not half of the bytes."""
    for make in (forward_kernels, backward_kernels):
        one, two = make(model.decoder, kind, **shape()), make(model.decoder, kind, **shape(tp=2))
        assert sum(k.flops for k in one) == 2 * sum(k.flops for k in two)
        whole, half = sum(k.bytes for k in one), sum(k.bytes for k in two)
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
    """bf16 logits are cast, so they move more bytes than half of the fp32 ones."""
    d = llama().decoder
    loss = [sum(k.bytes for k in forward_kernels(d, HEAD, **shape(value=v))[2:]) for v in (2, 4)]
    assert loss == [128 * 1024 * (2 + 4 + 8), 128 * 1024 * 8]
