"""The second half of a block with experts: the router, sorting by expert, grouped GEMMs, shared experts.

The experts of a rank are one grouped GEMM. How uneven they are is in `sim/model/expert_imbalance.py`.
"""

from __future__ import annotations

from dataclasses import replace

from . import elementwise
from .kernel import Kernel
from .layer_shape import Shape
from .linear import linear_backward
from .mlp import inner_backward, inner_forward

ROUTING_LAUNCHES = 20
"""Small kernels that choose experts, count and sort their tokens, either way: a block with experts takes
about 50 launches more than a dense one (NVIDIA/Megatron-LM tests/functional_tests/test_cases, moe and gpt,
golden values of H100: 8 ms a block and micro-batch against 4.2)."""


def experts_forward(s: Shape) -> tuple[Kernel, ...]:
    """Route, sort tokens by expert, the experts, and their outputs back in order, weighed and summed."""
    decoder, ffn = s.decoder, s.decoder.expert_ffn // s.tp
    return (
        elementwise.hidden_norm(s),
        s.gemm(s.outside, decoder.experts, s.hidden),
        replace(s.memory(2 * s.outside * decoder.experts), launches=ROUTING_LAUNCHES),
        *_sorting(s),
        s.grouped(s.mlp_inputs * ffn, s.hidden),
        elementwise.activation(s, s.routed * ffn),
        s.grouped(s.hidden, ffn),
        *_sorting(s)[::-1],
        *_shared_forward(s),
        elementwise.hidden_add(s),
    )


def experts_backward(s: Shape) -> tuple[Kernel, ...]:
    decoder, ffn = s.decoder, s.decoder.expert_ffn // s.tp
    return (
        *_shared_backward(s),
        *_sorting(s),
        s.grouped(ffn, s.hidden),
        s.grouped(s.hidden, ffn, weights=True),
        elementwise.activation(s, s.routed * ffn, backward=True),
        s.grouped(s.hidden, s.mlp_inputs * ffn),
        s.grouped(s.mlp_inputs * ffn, s.hidden, weights=True),
        *_sorting(s)[::-1],
        replace(s.memory(3 * s.outside * decoder.experts), launches=ROUTING_LAUNCHES),
        *linear_backward(s, decoder.experts, s.hidden, s.outside),
        elementwise.hidden_norm(s, backward=True),
        elementwise.hidden_add(s),
    )


def _sorting(s: Shape) -> tuple[Kernel, ...]:
    """A copy of every token for each of its experts, by the rank it goes to; what arrives is sorted by the
    experts of this rank (Megatron Core's `MoEAlltoAllTokenDispatcher`). Back again is the same in reverse."""
    copies = s.memory((s.outside + s.sent) * s.hidden)
    arrives_in_order = s.ep == 1 or s.local_experts == 1
    return (copies,) if arrives_in_order else (copies, s.memory(2 * s.routed * s.hidden))


def _shared_forward(s: Shape) -> tuple[Kernel, ...]:
    """The experts that every token visits, added to the others; some scaled by a gate of one value."""
    if not s.decoder.shared_ffn:
        return ()
    gate = (s.gemm(s.outside, 1, s.hidden), s.memory(2 * s.outside * s.hidden))
    return (
        *inner_forward(s, s.decoder.shared_ffn // s.tp),
        *(gate if s.decoder.shared_gate else ()),
        elementwise.hidden_add(s),
    )


def _shared_backward(s: Shape) -> tuple[Kernel, ...]:
    if not s.decoder.shared_ffn:
        return ()
    gate = (s.memory(4 * s.outside * s.hidden), *linear_backward(s, 1, s.hidden, s.outside))
    return (
        *(gate if s.decoder.shared_gate else ()),
        *inner_backward(s, s.decoder.shared_ffn // s.tp),
        elementwise.hidden_add(s),
    )
