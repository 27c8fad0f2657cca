"""What a layer computes as plain torch trains it: eager operations on fp32 weights under torch.autocast.

The kernels are those that a profile of `executor/model` shows, in order, made of `torch_operations.py`.
"""

from __future__ import annotations

from dataclasses import replace

from ..model.decoder import Decoder
from ..model.layer import BLOCK, EMBEDDING, HEAD, MOE_BLOCK
from . import torch_experts, torch_float8, torch_latents
from .attention import attention_kernels
from .elementwise import FP32
from .layer_shape import Shape
from .torch_operations import (
    LAUNCHES,
    Kernels,
    activation,
    activation_backward,
    branch,
    cast,
    compiled,
    dropout,
    linear,
    linear_backward,
    norm,
    norm_backward,
    of,
    residual,
)


def forward(s: Shape, kind: str) -> Kernels:
    """Kernels of a layer's forward; ``kind`` is one of `sim/model/layer.py`."""
    return _precise(s, _FORWARD[kind](_linear_in(s, kind)))


def backward(s: Shape, kind: str) -> Kernels:
    """Kernels of a layer's backward, without anything computed again."""
    return _precise(s, _BACKWARD[kind](_linear_in(s, kind)))


def _linear_in(s: Shape, kind: str) -> Shape:
    """Only blocks multiply in fp8."""
    return s if kind == BLOCK else replace(s, fp8=False)


def _precise(s: Shape, kernels: Kernels) -> Kernels:
    """In an fp8 job, bf16 for all that says nothing else."""
    if not s.fp8:
        return kernels
    return tuple(replace(kernel, precision=kernel.precision or "bf16") for kernel in kernels)


KINDS = (EMBEDDING, BLOCK, HEAD)
"""Layers of dense decoders."""


def _rotary(s: Shape) -> bool:
    return s.decoder.positions == "rope"


def _rope(s: Shape) -> Kernels:
    if not _rotary(s):
        return ()
    b = _turned_bytes(s)
    if s.stack.compiles_blocks:
        return tuple(compiled(2 * s.bytes_per_value * s.tokens * width) for width in (s.q, s.k))
    return tuple(of("rope", 9 * b * s.tokens * width) for width in (s.q, s.k))


def _turned_bytes(s: Shape) -> int:
    """Of a value that rotary positions turn: norms of heads give fp32."""
    return FP32 if s.decoder.qk_norm else s.bytes_per_value


def _rope_backward(s: Shape) -> Kernels:
    """Then queries' and keys' gradients are laid token by token, as the GEMM reads them."""
    if not _rotary(s):
        return ()
    b = s.bytes_per_value
    if s.stack.compiles_blocks:
        return tuple(compiled(2 * b * s.tokens * width) for width in (s.q, s.k))
    turned = tuple(of("rope_backward", 10 * _turned_bytes(s) * s.tokens * width) for width in (s.k, s.q))
    return *turned, *(of("transpose", 2 * b * s.tokens * width) for width in (s.k, s.q))


def _head_norms(s: Shape) -> Kernels:
    """Queries and keys, head by head, cast to fp32, normalised, and cast back by attention."""
    if not s.decoder.qk_norm:
        return ()
    if s.stack.compiles_blocks:
        return tuple(compiled(2 * s.bytes_per_value * s.tokens * width) for width in (s.q, s.k))
    widths = [s.tokens * width for width in (s.q, s.k)]
    normed = [kernel for values in widths for kernel in (*cast(s, values), of("rms_norm", 2 * FP32 * values))]
    return *normed, *(kernel for values in widths for kernel in cast(s, values))


def _head_norms_backward(s: Shape) -> Kernels:
    if not s.decoder.qk_norm:
        return ()
    widths = [s.tokens * width for width in (s.k, s.q)]
    if s.stack.compiles_blocks:
        return tuple(compiled(3 * s.bytes_per_value * v, LAUNCHES["rms_norm_backward"]) for v in widths)
    return tuple(
        kernel
        for values in widths
        for kernel in (*cast(s, values), of("rms_norm_backward", 5 * FP32 * values), *cast(s, values))
    )


def without_flash(decoder: Decoder, bytes_per_value: int) -> bool:
    """Whether torch's attention falls back to GEMMs and a softmax: no fp32 kernel takes grouped keys
    (ATen, native/transformers/cuda/sdp_utils.cpp)."""
    return bytes_per_value == FP32 and decoder.kv_heads != decoder.heads


def copies_output(decoder: Decoder, bytes_per_value: int) -> bool:
    """Whether attention's output has to be laid token by token for the GEMM after it: half-precision
    kernels lay it as queries are, which rotary positions leave head by head; so do GEMMs."""
    return decoder.positions == "rope" and (bytes_per_value < FP32 or without_flash(decoder, bytes_per_value))


def attention(s: Shape, *, backward: bool = False) -> Kernels:
    """What is between projections, of queries, keys and values as they are."""
    if without_flash(s.decoder, s.bytes_per_value):
        return attention_kernels(replace(s, flash=False, fused_softmax=False), backward=backward)
    own = attention_kernels(s, backward=backward)
    if s.bytes_per_value < FP32:
        return own
    # The fused kernel of fp32 leaves tensor cores alone, whatever GEMMs do: tf32 is no faster (measured).
    return tuple(replace(kernel, precision="fp32") for kernel in own)


def _attention_forward(s: Shape) -> Kernels:
    """From the tokens as GEMMs read them to what the output projection reads; what is inside attention is
    marked as such."""
    d = s.decoder
    if d.kv_rank:
        return torch_latents.forward(s, attention)
    copied = ()
    if copies_output(d, s.bytes_per_value):
        copied = (of("transpose", 2 * s.bytes_per_value * s.tokens * s.o),)
    return (
        *linear(s, s.q + s.k + s.v, s.hidden, bias=d.attention_bias),
        *_head_norms(s),
        *_rope(s),
        *attention(s),
        *copied,
    )


def _attention_backward(s: Shape) -> Kernels:
    """Gradients of queries, keys and values become one again."""
    if s.decoder.kv_rank:
        return torch_latents.backward(s, attention)
    width = s.q + s.k + s.v
    return (
        *attention(s, backward=True),
        *_rope_backward(s),
        *_head_norms_backward(s),
        of("cast", 2 * s.bytes_per_value * s.tokens * width),
        *linear_backward(s, width, s.hidden, bias=s.decoder.attention_bias),
    )


def _block_forward(s: Shape) -> Kernels:
    """Of one block with a dense MLP."""
    d, ffn = s.decoder, s.decoder.ffn // s.tp
    return (
        *norm(s),
        *_attention_forward(s),
        *linear(s, s.hidden, s.o, bias=d.output_bias),
        *residual(s),
        *norm(s),
        *linear(s, s.mlp_inputs * ffn, s.hidden, bias=d.mlp_bias),
        activation(s, s.tokens * ffn),
        *linear(s, s.hidden, ffn, bias=d.mlp_bias),
        *residual(s),
    )


def _moe_block_forward(s: Shape) -> Kernels:
    return (
        *norm(s),
        *_attention_forward(s),
        *linear(s, s.hidden, s.o, bias=s.decoder.output_bias),
        *residual(s),
        *torch_experts.forward(s),
    )


def _moe_block_backward(s: Shape) -> Kernels:
    return *torch_experts.backward(s), *_first_half_backward(s)


def _computed_again(s: Shape, width: int) -> Kernels:
    """The inner GEMM of a compiled block in fp8: torch.compile takes `_scaled_mm` for cheap, and keeps what
    it is made of instead of what it gives (measured: the memory of a compiled Llama, 2026-11-28)."""
    if not (s.fp8 and s.stack.compiles_blocks):
        return ()
    return (torch_float8.gemm(s.tokens, width, s.hidden),)


def _block_backward(s: Shape) -> Kernels:
    """The forward in reverse."""
    d, ffn = s.decoder, s.decoder.ffn // s.tp
    return (
        *branch(s),
        *_computed_again(s, s.mlp_inputs * ffn),
        *linear_backward(s, s.hidden, ffn, bias=d.mlp_bias),
        activation_backward(s, s.tokens * ffn),
        *linear_backward(s, s.mlp_inputs * ffn, s.hidden, bias=d.mlp_bias),
        *norm_backward(s),
        *_first_half_backward(s),
    )


def _first_half_backward(s: Shape) -> Kernels:
    return (
        *branch(s),
        *linear_backward(s, s.hidden, s.o, bias=s.decoder.output_bias),
        *_attention_backward(s),
        *norm_backward(s),
    )


def _embedding_forward(s: Shape) -> Kernels:
    values = s.tokens * s.hidden
    outside = s.outside * s.hidden
    positions = () if _rotary(s) else (of("add", 2 * FP32 * outside),)
    return of("cast", 2 * FP32 * values), *positions, *dropout(s, FP32 * outside, outside)


def _embedding_backward(s: Shape) -> Kernels:
    """A dense gradient of the table, zeroed and scattered into; added to the head's where they are one, and
    to those of earlier micro-batches. That of the positions is a sum over the samples."""
    table, values = s.decoder.vocab * s.hidden // s.tp, s.tokens * s.hidden
    sums = s.added + (1.0 if s.decoder.tied_embeddings else 0.0)
    positions = () if _rotary(s) else (of("sum", FP32 * s.outside * s.hidden, weights=True),)
    return (
        *dropout(s, FP32 * s.outside * s.hidden, s.outside * s.hidden, backward=True),
        of("embedding_backward", FP32 * (table + 3 * values), weights=True),
        *positions,
        *((of("add", sums * 3 * FP32 * table, weights=True),) if sums else ()),
    )


def _head_forward(s: Shape) -> Kernels:
    return *norm(s), *linear(s, s.vocab, s.hidden), of("loss", _loss_bytes(s) * s.tokens * s.vocab)


def _head_backward(s: Shape) -> Kernels:
    gradient = _loss_bytes(s, backward=True) * s.tokens * s.vocab
    return (
        of("loss_backward", gradient),
        *linear_backward(s, s.vocab, s.hidden),
        *norm_backward(s)[:-1],
    )


def _loss_bytes(s: Shape, *, backward: bool = False) -> int:
    """Of one logit: a cast to fp32 and log-softmax; a gradient zeroed, log-softmax's, and the cast back."""
    cast = 0 if s.bytes_per_value == FP32 else s.bytes_per_value + FP32
    return cast + (4 if backward else 2) * FP32


_FORWARD = {
    EMBEDDING: _embedding_forward,
    BLOCK: _block_forward,
    MOE_BLOCK: _moe_block_forward,
    HEAD: _head_forward,
}
_BACKWARD = {
    EMBEDDING: _embedding_backward,
    BLOCK: _block_backward,
    MOE_BLOCK: _moe_block_backward,
    HEAD: _head_backward,
}
