"""The first half of a block: norm, projections, attention and the output projection, forward and backward.

Query, key and value are one GEMM; latent attention goes down to its latents and up from them.
"""

from __future__ import annotations

from . import elementwise
from .attention import attention_kernels
from .kernel import Kernel
from .layer_shape import Shape
from .linear import linear_backward


def projections(s: Shape) -> tuple[tuple[int, int, int], ...]:
    """(outputs, inputs, tokens) of the GEMMs that make queries, keys and values: one for all; or, latent
    (DeepSeek-V2), down to the latents and up from them.

    The way down is whole on every tensor-parallel rank, over the tokens that are its own under sequence
    parallelism (Megatron Core's multi-latent attention, `linear_q_down_proj`).
    """
    decoder, tokens = s.decoder, s.tokens
    if not decoder.kv_rank:
        return ((s.q + s.k + s.v, s.hidden, tokens),)
    keys = (decoder.kv_size - decoder.kv_heads * decoder.rope_dim) // s.tp
    down = decoder.kv_rank + decoder.rope_dim
    up = (keys + s.v, decoder.kv_rank, tokens)
    if not decoder.q_rank:
        return (s.q, s.hidden, tokens), (down, s.hidden, s.outside), up
    return (decoder.q_rank + down, s.hidden, s.outside), (s.q, decoder.q_rank, tokens), up


def attention_forward(s: Shape) -> tuple[Kernel, ...]:
    return (
        elementwise.hidden_norm(s),
        *(s.gemm(rows, n, k) for n, k, rows in projections(s)),
        *_latent_norms(s),
        *_per_head(s),
        *attention_kernels(s),
        s.gemm(s.tokens, s.hidden, s.o),
        elementwise.hidden_residual(s),
    )


def attention_backward(s: Shape) -> tuple[Kernel, ...]:
    return (
        *elementwise.hidden_dropout(s),
        *linear_backward(s, s.hidden, s.o, bias=s.decoder.output_bias),
        *attention_kernels(s, backward=True),
        *_per_head(s, backward=True),
        *_latent_norms(s, backward=True),
        *(
            kernel
            for n, k, rows in projections(s)[::-1]
            for kernel in linear_backward(s, n, k, rows, bias=s.decoder.attention_bias)
        ),
        elementwise.hidden_norm(s, backward=True),
        elementwise.hidden_add(s),
    )


def _per_head(s: Shape, *, backward: bool = False) -> tuple[Kernel, ...]:
    """Rotary positions and norms of queries and keys, where the architecture has them."""
    values = s.tokens * (s.q + s.k)
    turned = (elementwise.rope(s, values),) if s.decoder.positions == "rope" else ()
    normed = (elementwise.norm(s, values, backward=backward),) if s.decoder.qk_norm else ()
    return (*turned, *normed) if backward else (*normed, *turned)


def _latent_norms(s: Shape, *, backward: bool = False) -> tuple[Kernel, ...]:
    """Norms of the latents of queries and of keys and values."""
    ranks = [rank for rank in (s.decoder.q_rank, s.decoder.kv_rank) if s.decoder.kv_rank and rank]
    return tuple(elementwise.norm(s, s.outside * rank, backward=backward) for rank in ranks)
