"""The second half of a dense block: norm, the GEMMs of the MLP and its activation, forward and backward."""

from __future__ import annotations

from . import elementwise
from .kernel import Kernel
from .layer_shape import Shape
from .linear import linear_backward


def mlp_forward(s: Shape, ffn: int) -> tuple[Kernel, ...]:
    return elementwise.hidden_norm(s), *inner_forward(s, ffn // s.tp), elementwise.hidden_residual(s)


def mlp_backward(s: Shape, ffn: int) -> tuple[Kernel, ...]:
    return (
        *elementwise.hidden_dropout(s),
        *inner_backward(s, ffn // s.tp),
        elementwise.hidden_norm(s, backward=True),
        elementwise.hidden_add(s),
    )


def inner_forward(s: Shape, ffn: int) -> tuple[Kernel, ...]:
    return (
        *(s.gemm(s.tokens, width, s.hidden) for width in _inner_widths(s, ffn)),
        elementwise.activation(s, s.tokens * ffn),
        s.gemm(s.tokens, s.hidden, ffn),
    )


def inner_backward(s: Shape, ffn: int) -> tuple[Kernel, ...]:
    return (
        *linear_backward(s, s.hidden, ffn, bias=s.decoder.mlp_bias),
        elementwise.activation(s, s.tokens * ffn, backward=True),
        *(
            kernel
            for width in _inner_widths(s, ffn)
            for kernel in linear_backward(s, width, s.hidden, bias=s.decoder.mlp_bias)
        ),
    )


def _inner_widths(s: Shape, ffn: int) -> tuple[int, ...]:
    """Outputs of the GEMMs that lead into an MLP."""
    return (s.mlp_inputs * ffn,) if s.stack.fused_gate_up else (ffn,) * s.mlp_inputs
