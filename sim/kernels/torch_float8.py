"""Linear layers in fp8 as plain torch computes them: GEMMs by `torch._scaled_mm`, casts scaled by tensor.

As torchao's tensorwise recipe, in `executor/model/float8.py`: inputs and weights in e4m3, gradients in e5m2,
each scaled by the largest value in it at the moment (dynamic scaling). Such GEMMs want both factors
contiguous along what is summed up, so what a weight's gradient is made of is copied transposed. Weights are
cast, and copied transposed, once a step; compiled blocks cast them for every micro-batch. Operation by
operation a cast is five kernels over values or numbers; compiled, one finds the largest value, and one casts.
"""

from __future__ import annotations

from dataclasses import replace

from .elementwise import FP32, SUM_SPEED
from .fp8 import BF16_BYTES, FP8, FP8_BYTES
from .kernel import Kernel
from .layer_shape import Shape

Kernels = tuple[Kernel, ...]
NUMBERS = 3
"""Kernels that make a scale and its inverse of the largest value."""


def linear(s: Shape, n: int, k: int) -> Kernels:
    """From ``k`` to ``n`` values."""
    share = 1.0 if s.stack.compiles_blocks else 1.0 - s.added
    weight = tuple(_shared(one, share) for one in (*_cast(s, n * k, FP32), _turned(n * k)))
    return *weight, *_cast(s, s.tokens * k, BF16_BYTES), gemm(s.tokens, n, k)


def linear_backward(s: Shape, n: int, k: int) -> Kernels:
    """Gradients of the input in bf16 and of the weight in fp32."""
    turned = tuple(replace(_turned(s.tokens * width), weights=True) for width in (n, k))
    return (
        *_cast(s, s.tokens * n, BF16_BYTES),
        gemm(s.tokens, k, n),
        *turned,
        replace(gemm(n, k, s.tokens, FP32), weights=True),
    )


def _shared(kernel: Kernel, share: float) -> Kernel:
    """A kernel that runs for this share of the micro-batches."""
    return replace(kernel, bytes=share * kernel.bytes, launches=share * kernel.launches)


def _cast(s: Shape, values: float, width: int) -> Kernels:
    """Of ``values`` values of ``width`` bytes."""
    largest = _memory("largest", width * values, 1 if s.stack.compiles_blocks else 1 + NUMBERS)
    if s.stack.compiles_blocks:
        return largest, _memory("cast", (width + FP8_BYTES) * values)
    return (
        largest,
        _memory("scale", 2 * width * values),
        _memory("cast", (width + FP8_BYTES) * values),
    )


def _turned(values: float) -> Kernel:
    """A copy whose rows were columns."""
    return replace(_memory("transpose", 2 * FP8_BYTES * values), speed=SUM_SPEED)


def _memory(family: str, size: float, launches: int = 1) -> Kernel:
    return Kernel(kind="memory", flops=0.0, bytes=float(size), launches=launches, family=family)


def gemm(m: int, n: int, k: int, written: int = BF16_BYTES) -> Kernel:
    """[m, k] x [k, n] in fp8, of which ``written`` bytes are written for each value."""
    size = FP8_BYTES * (m * k + k * n) + written * m * n
    return Kernel(kind="gemm", flops=2.0 * m * n * k, bytes=float(size), m=m, n=n, k=k, precision=FP8)
