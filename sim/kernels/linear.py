"""A linear layer's backward: the GEMMs of its two gradients, and what follows them."""

from __future__ import annotations

from . import elementwise
from .kernel import Kernel
from .layer_shape import Shape


def linear_backward(
    s: Shape, n: int, k: int, rows: int | None = None, *, bias: bool = False
) -> tuple[Kernel, ...]:
    """Gradients of the input, the weight and the bias of a linear layer from ``k`` to ``n`` values.

    ``rows`` are its tokens, all of this rank where it is None.
    """
    rows = s.tokens if rows is None else rows
    return (
        s.gemm(rows, k, n),
        s.gemm(n, k, rows, weights=True),
        *elementwise.accumulation(s, n * k),
        *(elementwise.bias_gradient(s, rows * n) if bias else ()),
    )
