"""Multi-head latent attention as plain torch computes it, as `executor/model/latent_attention.py` has it.

One GEMM goes down to all latents; each latent is cast to fp32, normalised and cast again for the GEMM that
comes up from it. The part of queries and keys with rotary positions is turned by itself and laid behind the
rest; values are padded to the width of keys, which torch's fused attention wants. Every tensor-parallel rank
has the ways down whole, over all tokens. Where blocks are compiled, a run of operations between two GEMMs is
one kernel, which reads and writes its widest operand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from .elementwise import FP32
from .layer_shape import Shape
from .torch_operations import Kernels, cast, fused, linear, linear_backward, of

Attention = Callable[..., Kernels]
"""Kernels of attention itself for a Shape, forward or ``backward``."""


def forward(s: Shape, attention: Attention) -> Kernels:
    """From the tokens as GEMMs read them to what the output projection reads."""
    return (
        *linear(s, _down(s), s.hidden),
        *_queries(s),
        *_normed(s, s.decoder.kv_rank),
        *linear(s, _up(s), s.decoder.kv_rank),
        *fused(s, _laid(s)),
        *attention(_padded(s)),
        *fused(s, (of("transpose", 2 * s.bytes_per_value * s.tokens * s.o),)),
    )


def backward(s: Shape, attention: Attention) -> Kernels:
    """The forward in reverse, from the gradient of what the output projection read."""
    b, d = s.bytes_per_value, s.decoder
    return (
        *fused(s, _widened(s)),
        *attention(_padded(s), backward=True),
        *fused(s, _laid_backward(s)),
        *linear_backward(s, _up(s), d.kv_rank),
        *_normed(s, d.kv_rank, backward=True),
        *_queries_backward(s),
        *fused(s, (of("copy", 2 * b * s.tokens * _down(s)),)),
        *linear_backward(s, _down(s), s.hidden),
    )


def _down(s: Shape) -> int:
    return s.decoder.q_rank + s.decoder.kv_rank + s.decoder.rope_dim


def _up(s: Shape) -> int:
    """Keys without positions, and values, of this rank's heads."""
    return s.k - _heads(s) * s.decoder.rope_dim + s.v


def _heads(s: Shape) -> int:
    return s.decoder.heads // s.tp


def _width(s: Shape) -> int:
    """Values of a head as attention reads them, those of values padded."""
    return max(s.decoder.head_dim, s.decoder.v_head_dim)


def _padded(s: Shape) -> Shape:
    wide = _width(s)
    return replace(s, decoder=replace(s.decoder, head_dim=wide, v_head_dim=wide))


def _queries(s: Shape) -> Kernels:
    """From their latent, or from the tokens, which are cast for each GEMM that reads them."""
    rank = s.decoder.q_rank
    if rank:
        return *_normed(s, rank), *linear(s, s.q, rank)
    return *fused(s, cast(s, s.tokens * s.hidden)), *linear(s, s.q, s.hidden)


def _queries_backward(s: Shape) -> Kernels:
    rank, values = s.decoder.q_rank, s.tokens * s.hidden
    if rank:
        return *linear_backward(s, s.q, rank), *_normed(s, rank, backward=True)
    return *linear_backward(s, s.q, s.hidden), *fused(s, (*cast(s, values), of("add", 3 * FP32 * values)))


def _normed(s: Shape, rank: int, *, backward: bool = False) -> Kernels:
    """A latent's norm in fp32 between casts."""
    values = s.tokens * rank
    own = of("rms_norm_backward", 5 * FP32 * values) if backward else of("rms_norm", 2 * FP32 * values)
    return fused(s, (*cast(s, values), own, *cast(s, values)))


def _laid(s: Shape) -> Kernels:
    """Rotary positions of one head of keys, for all, and of queries; parts of a head become one; values, or
    queries and keys, are filled with zeros."""
    b, d, heads = s.bytes_per_value, s.decoder, _heads(s)
    narrower = [width for width in (d.head_dim, d.head_dim, d.v_head_dim or d.head_dim) if width < _width(s)]
    return (
        of("rope", 9 * b * s.tokens * d.rope_dim),
        of("rope", 9 * b * s.tokens * heads * d.rope_dim),
        of("copy", 2 * b * s.tokens * s.q),
        of("copy", 2 * b * s.tokens * s.k),
        *(of("padding", b * s.tokens * heads * (_width(s) + 2 * width)) for width in narrower),
    )


def _widened(s: Shape) -> Kernels:
    """The gradient of attention's output, whose padding nobody reads."""
    b, width, own = s.bytes_per_value, _width(s), s.decoder.v_head_dim or s.decoder.head_dim
    return () if own == width else (of("padding", b * s.tokens * _heads(s) * (width + 2 * own)),)


def _laid_backward(s: Shape) -> Kernels:
    """Padding is cut off; the heads' gradients of shared keys are summed; the parts of queries, cut out of
    zeros, are added; keys and values become one again; what the GEMMs read is laid token by token."""
    b, d, heads = s.bytes_per_value, s.decoder, _heads(s)
    narrower = [width for width in (d.head_dim, d.head_dim, d.v_head_dim or d.head_dim) if width < _width(s)]
    return (
        *(of("copy", 2 * b * s.tokens * heads * width) for width in narrower),
        of("sum", b * s.tokens * heads * d.rope_dim),
        of("rope_backward", 10 * b * s.tokens * d.rope_dim),
        of("rope_backward", 10 * b * s.tokens * heads * d.rope_dim),
        of("parts_backward", 7 * b * s.tokens * s.q),
        of("transpose", 2 * b * s.tokens * s.q),
        of("copy", 2 * b * s.tokens * _up(s)),
        of("transpose", 2 * b * s.tokens * _up(s)),
    )
