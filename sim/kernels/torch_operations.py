"""Operations that plain torch's layers are made of: eager ones on fp32 weights under torch.autocast.

Autocast casts the input and the weight of every GEMM to half precision and the gradient of the weight back;
norms, the residual stream and the loss stay in fp32. A fp32 job casts nothing. Blocks that torch.compile has
compiled fuse what is between GEMMs: norms with their casts, rotary positions, activations.

Every kernel names its family, whose speed a calibration measures (`Accelerator.kernel_speeds`); the speeds
here count where it was not. Bytes are counted operation by operation, each operand read or written once.
"""

from __future__ import annotations

from dataclasses import replace

from . import torch_float8
from .elementwise import (
    ACTIVATION_SPEED,
    DROPOUT_SPEED,
    FP32,
    MASK_BYTES,
    NORM_BACKWARD_SPEED,
    NORM_SPEED,
    SUM_SPEED,
)
from .kernel import Kernel
from .layer_shape import Shape

Kernels = tuple[Kernel, ...]

LAUNCHES = {
    "rms_norm_backward": 2,
    "layer_norm_backward": 2,
    "swiglu": 2,
    "swiglu_backward": 4,
    "rope": 7,
    "rope_backward": 8,
    "loss": 3,
    "loss_backward": 4,
    "embedding_backward": 25,
    "sum": 2,
    "padding": 2,
    "parts_backward": 5,
    "routing": 46,
    "learned_routing": 19,
    "routing_backward": 10,
    "sorting": 14,
    "index_add": 3,
    "index_backward": 16,
    "weighing_backward": 20,
    "gate_backward": 4,
}
"""Kernels of one call of a family; 1 where it is not named. A norm's backward sums the gain's gradient by
itself; a rotation is four products, two sums and a concatenation of halves; SwiGLU's backward concatenates
the gradients of gate and up; an embedding's sorts its tokens first, and so does that of copied tokens and of
their weights; a bias' gradient is cast. What routes tokens are the operations of `executor/model/routing.py`
and `experts.py`, as PyTorch dispatches them, and a copy of places to the device; a histogram looks for the
least and the largest value first, and the highest scores are sorted."""

SPEEDS = {
    "rms_norm": NORM_SPEED,
    "rms_norm_backward": NORM_BACKWARD_SPEED,
    "layer_norm": NORM_SPEED,
    "layer_norm_backward": NORM_BACKWARD_SPEED,
    "gelu": ACTIVATION_SPEED,
    "gelu_backward": ACTIVATION_SPEED,
    "swiglu": ACTIVATION_SPEED,
    "swiglu_backward": ACTIVATION_SPEED,
    "rope": ACTIVATION_SPEED,
    "rope_backward": ACTIVATION_SPEED,
    "loss": ACTIVATION_SPEED,
    "loss_backward": ACTIVATION_SPEED,
    "sum": SUM_SPEED,
    "embedding_backward": SUM_SPEED,
    "transpose": SUM_SPEED,
    "dropout": DROPOUT_SPEED,
    "dropout_backward": DROPOUT_SPEED,
}
"""Of plain copying, where nobody measured: as the fused kernels of other stacks."""


def of(family: str, size_bytes: float, *, weights: bool = False) -> Kernel:
    return Kernel(
        kind="memory",
        flops=0.0,
        bytes=float(size_bytes),
        launches=LAUNCHES.get(family, 1),
        weights=weights,
        speed=SPEEDS.get(family, 1.0),
        family=family,
    )


def compiled(size_bytes: float, launches: int = 1) -> Kernel:
    """What torch.compile makes of operations between GEMMs, as fast as copying: norms with the casts behind
    them move 4.2 of a copy's 4.2 TB/s (benchmarks/results/gpu_nvidia-h200_2026-11-28_second_memory.csv)."""
    return replace(of("compiled", size_bytes), launches=launches)


def fused(s: Shape, kernels: Kernels) -> Kernels:
    """Operations between two GEMMs as they are, or as the one kernel that torch.compile makes of them, which
    reads and writes the widest operand."""
    if not (s.stack.compiles_blocks and kernels):
        return kernels
    return (compiled(max(kernel.bytes for kernel in kernels)),)


def cast(s: Shape, values: float, *, weights: bool = False) -> Kernels:
    """Between fp32 and half precision; none in an fp32 job."""
    b = s.bytes_per_value
    return () if b == FP32 else (of("cast", (b + FP32) * values, weights=weights),)


def norm(s: Shape) -> Kernels:
    """Of the residual stream, and the cast of what the GEMM after it reads."""
    values = s.outside * s.hidden
    if s.stack.compiles_blocks:
        return (compiled((FP32 + s.bytes_per_value) * values),)
    return of(norm_family(s), 2 * FP32 * values), *cast(s, values)


def norm_backward(s: Shape) -> Kernels:
    """The gradient cast, the norm's two kernels, and the sum with the gradient that came round it."""
    values, family = s.outside * s.hidden, f"{norm_family(s)}_backward"
    if s.stack.compiles_blocks:
        return (compiled((2 * s.bytes_per_value + 5 * FP32) * values, LAUNCHES[family]),)
    return *cast(s, values), of(family, 5 * FP32 * values), of("add", 3 * FP32 * values)


def norm_family(s: Shape) -> str:
    return "layer_norm" if s.decoder.norm == "layernorm" else "rms_norm"


def linear(s: Shape, n: int, k: int, *, bias: bool = False) -> Kernels:
    """A linear layer from ``k`` to ``n`` values: its weight is cast, and its bias by a kernel of its own."""
    of_bias = cast(s, n) if bias else ()
    if s.fp8:
        return *of_bias, *torch_float8.linear(s, n, k)
    return *cast(s, n * k), *of_bias, s.gemm(s.tokens, n, k)


def linear_backward(s: Shape, n: int, k: int, *, bias: bool = False) -> Kernels:
    """Gradients of input, weight and bias; those of weights are cast back, and added to earlier ones."""
    added = 3 * FP32 * n * k * s.added
    if s.fp8:
        return (
            *torch_float8.linear_backward(s, n, k),
            *((of("sum", s.bytes_per_value * s.tokens * n, weights=True),) if bias else ()),
            *((of("add", added, weights=True),) if added else ()),
        )
    return (
        s.gemm(s.tokens, k, n),
        s.gemm(n, k, s.tokens, weights=True),
        *((of("sum", s.bytes_per_value * s.tokens * n, weights=True),) if bias else ()),
        *cast(s, n * k, weights=True),
        *((of("add", added, weights=True),) if added else ()),
    )


def residual(s: Shape) -> Kernels:
    """A branch's output, perhaps dropped out, and added to the stream."""
    values = s.outside * s.hidden
    mask = MASK_BYTES * values if s.dropout and s.stack.compiles_blocks else 0
    dropped = () if s.stack.compiles_blocks else dropout(s, s.bytes_per_value * values, values)
    return *dropped, of("residual", (2 * FP32 + s.bytes_per_value) * values + mask)


def dropout(s: Shape, size: float, values: float, *, backward: bool = False) -> Kernels:
    """Dropout of ``values`` values of ``size`` bytes, or its gradient: read, written, and the mask."""
    if not s.dropout:
        return ()
    return (of("dropout_backward" if backward else "dropout", 2 * size + MASK_BYTES * values),)


def branch(s: Shape) -> Kernels:
    """The stream's gradient as the branch reads it."""
    values = s.outside * s.hidden
    dropped = dropout(s, s.bytes_per_value * values, values, backward=True)
    return *cast(s, values), *dropped


def activation(s: Shape, values: float) -> Kernel:
    """Of an MLP with so many inner values."""
    b = s.bytes_per_value
    if s.stack.compiles_blocks:
        return compiled((1 + s.mlp_inputs) * b * values)
    if s.mlp_inputs == 1:
        return of("gelu", 2 * b * values)
    return of("swiglu", 5 * b * values)


def activation_backward(s: Shape, values: float) -> Kernel:
    b = s.bytes_per_value
    if s.stack.compiles_blocks:
        return compiled((1 + 2 * s.mlp_inputs) * b * values)
    if s.mlp_inputs == 1:
        return of("gelu_backward", 3 * b * values)
    return of("swiglu_backward", 13 * b * values)
