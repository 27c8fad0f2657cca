"""Attention's own kernels: one flash kernel, or GEMMs, softmax and dropout as before it."""

from __future__ import annotations

from dataclasses import replace

from . import elementwise
from .kernel import Kernel
from .layer_shape import Shape

CAUSAL_SHARE = 0.5
"""Part of the score matrix that a causal flash kernel computes (FlashAttention-2, Dao 2023, section 4.1)."""

FLASH_SPEEDS = {
    "flash": (1.0, 1.0),
    "flash1": (0.4 / 0.73, 0.3 / 0.63),
    "triton": (0.9, 0.48),
    "flash3": (1.75, 1.6),
}
"""Forward and backward against FlashAttention-2. The first one reaches 30-50 % of an A100's peak forward and
25-35 % backward, the second 73 % and 63 % (Dao 2023, sections 1, 3.2 and 4.1). Triton's of 2023 is fitted on
LLM Foundry's runs with sequences of 16 Ki tokens and more, most of which is attention. FlashAttention-3, on
Hopper alone, is 1.5-2 times as fast forward and 1.5-1.75 times backward (Shah et al. 2024, section 1);
cuDNN's kernel is alike there."""

BACKWARD_SPEED = 63 / 73
"""Of backward against forward: 63 % of an A100's peak against 73 % (Dao 2023, section 4.1)."""

FLASH_BACKWARD_GEMMS = (3, 2)
"""GEMMs of flash attention's backward over the widths of queries and of values: scores again, gradients of
queries and keys; gradients of values and probabilities (Dao 2023, section 2.3.2). Forward has one of each."""


def attention_kernels(s: Shape, *, backward: bool = False) -> tuple[Kernel, ...]:
    """Kernels between the projections and the output GEMM, all of which selective recompute repeats."""
    own = (_flash(s, backward=backward),) if s.flash else _unfused(s, backward=backward)
    return tuple(replace(kernel, attention=True) for kernel in (*elementwise.attention_copies(s), *own))


def _flash(s: Shape, *, backward: bool) -> Kernel:
    """Flash attention of this rank's queries on the whole sequence; causal work is shared out evenly.

    Backward reads q, k, v, output and its gradient, and writes three gradients. Dropout is drawn inside; it
    costs nothing where nobody measured what it does.
    """
    of_queries, of_values = FLASH_BACKWARD_GEMMS if backward else (1, 1)
    scores = CAUSAL_SHARE * 2.0 * s.micro_batch * s.seq_len**2 / s.cp
    values = s.tokens * (s.q + s.k + s.v + s.o) * (2 if backward else 1)
    speeds = FLASH_SPEEDS[s.flash_kind]
    speed = speeds[1] * BACKWARD_SPEED if backward else speeds[0]
    return Kernel(
        kind="attention",
        flops=scores * (of_queries * s.q + of_values * s.o),
        bytes=float(values * s.bytes_per_value),
        m=s.seq_len // s.cp,
        n=s.seq_len,
        k=s.decoder.head_dim,
        batch=s.micro_batch * s.q // s.decoder.head_dim,
        speed=speed,
        family="attention_backward" if backward else "",
        dropped=s.dropout,
    )


def _unfused(s: Shape, *, backward: bool) -> tuple[Kernel, ...]:
    """Scores, a fused scale, mask and softmax, dropout, and their sum over values; the whole score matrix, as
    Megatron-LM computes it without flash attention (Korthikanti et al. 2022, figure 3)."""
    queries, width = s.seq_len // s.cp, s.o // max(1, s.q // s.decoder.head_dim)
    scores = _gemm(s, queries, s.seq_len, s.decoder.head_dim)
    sums = _gemm(s, queries, width, s.seq_len)
    values = float(scores.batch * queries * s.seq_len)
    dropout = elementwise.dropout(s, values)
    if not backward:
        return scores, elementwise.softmax(s, values), *dropout, sums
    of_keys = _gemm(s, s.seq_len, s.decoder.head_dim, queries)
    of_values = _gemm(s, s.seq_len, width, queries)
    of_queries = _gemm(s, queries, s.decoder.head_dim, s.seq_len)
    of_probabilities = _gemm(s, queries, s.seq_len, width)
    return (
        of_probabilities,
        of_values,
        *dropout,
        elementwise.softmax(s, values, backward=True),
        of_queries,
        of_keys,
    )


def _gemm(s: Shape, m: int, n: int, k: int) -> Kernel:
    """[m, k] x [k, n] for every head of every sample."""
    batch = s.micro_batch * max(1, s.q // s.decoder.head_dim)
    one = s.gemm(m, n, k)
    return replace(one, flops=one.flops * batch, bytes=one.bytes * batch, batch=batch)
