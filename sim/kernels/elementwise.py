"""What a stack makes of the operations between GEMMs: norms, activations, rotary positions, the loss,
gradients of biases, accumulation of gradients. All are bound by memory: their bytes are what counts.

Bytes are counted operation by operation as the stack's code has them, each operand read or written once.
"""

from __future__ import annotations

from .kernel import Kernel
from .layer_shape import Shape

PROFILE = "microsoft/SuperScaler profiler/profiled-time-eurosys: Megatron-LM's GPT layers, V100-32GB, fp16"
"""Where the speeds below are from: medians over sizes, tensor-parallel degree 1. Each is against plain
copying, which reaches 0.9 of the bandwidth (`roofline.DEFAULT_MEMORY_EFFICIENCY`)."""
NORM_SPEED, NORM_BACKWARD_SPEED = 0.6, 0.45
"""Rows are read twice, and the gain's gradient is a sum over all of them."""
ACTIVATION_SPEED, DROPOUT_SPEED = 0.91, 0.86
SUM_SPEED = 0.5
"""A sum over the tokens: as the norm's backward, most of which is one."""

FP32 = 4
MASK_BYTES = 1
"""One entry of a mask."""
LOSS_BYTES = FP32
"""Bytes of one logit in the loss, which is computed in fp32."""


def _kernel(size_bytes: float, launches: int = 1, *, weights: bool = False, speed: float = 1.0) -> Kernel:
    return Kernel(
        kind="memory",
        flops=0.0,
        bytes=float(size_bytes),
        launches=launches,
        weights=weights,
        speed=speed,
    )


def norm(s: Shape, values: float, *, backward: bool = False) -> Kernel:
    """A norm over ``values`` values."""
    style = s.stack.norm
    if style.startswith("eager") and s.decoder.norm != "rmsnorm":
        style = "two_pass"  # torch has a kernel for LayerNorm
    if style == "autocast" and s.bytes_per_value == FP32:
        style = "two_pass"
    each, launches = _NORMS[style](s.bytes_per_value)[1 if backward else 0]
    if style == "fused":
        return _kernel(values * each, launches, speed=ACTIVATION_SPEED)
    return _kernel(values * each, launches, speed=NORM_BACKWARD_SPEED if backward else NORM_SPEED)


Norm = tuple[tuple[float, int], tuple[float, int]]
"""(bytes of one value, launches) of forward and of backward."""


def _fused_norm(b: int) -> Norm:
    return (2 * b, 1), (3 * b, 2)


def _two_pass_norm(b: int) -> Norm:
    return (2 * b, 1), (5 * b, 2)


def _autocast_norm(b: int) -> Norm:
    """A cast, the norm in fp32, a cast; backward likewise."""
    casts = 2 * (b + FP32)
    return (casts + 2 * FP32, 3), (casts + 5 * FP32, 4)


def _eager_norm(b: int) -> Norm:
    """RMSNorm in plain torch: x.float(), square, mean, rsqrt, product, type_as(x), product with the gain.

    Backward: of the gain (its gradient summed over tokens), of the casts, of the product to both factors, of
    the mean and the square, and the sum of the two ways to x.
    """
    casts = 0 if b == FP32 else 2 * (b + FP32)
    forward = casts + 2 * FP32 + FP32 + 2 * FP32 + 2 * b
    backward = casts + 6 * b + 2 * FP32 + 4 * FP32 + 4 * FP32 + 3 * FP32
    return (forward, 8), (backward, 14)


def _half_norm(b: int) -> Norm:
    """RMSNorm in plain torch in the layer's own precision but for one cast to fp32 and back."""
    casts = 0 if b == FP32 else 2 * (b + FP32)
    return (casts + 7 * b, 7), (casts + 19 * b, 13)


_NORMS = {
    "fused": _fused_norm,
    "two_pass": _two_pass_norm,
    "autocast": _autocast_norm,
    "eager": _eager_norm,
    "eager_half": _half_norm,
}


def dropout(s: Shape, values: float) -> tuple[Kernel, ...]:
    """Dropout by itself, or its gradient, where there is any."""
    b = s.bytes_per_value
    return (_kernel((2 * b + MASK_BYTES) * values, speed=DROPOUT_SPEED),) if s.dropout else ()


def residual(s: Shape, values: float) -> Kernel:
    """The addition after a block's half, in one kernel with the bias and the dropout before it."""
    b = s.bytes_per_value
    if not s.dropout:
        return _kernel(3 * b * values)
    return _kernel((3 * b + MASK_BYTES) * values, speed=DROPOUT_SPEED)


def softmax(s: Shape, values: float, *, backward: bool = False) -> Kernel:
    """Scale, mask and softmax in one kernel; or a cast, a mask filled in, a softmax, a cast back."""
    b = s.bytes_per_value
    if s.fused_softmax:
        return _kernel((3 if backward else 2) * b * values)
    casts = 0 if b == FP32 else 2 * (b + FP32)
    passes = casts + (3 + 2) * FP32 + MASK_BYTES if backward else casts + (2 + 2) * FP32 + MASK_BYTES
    return _kernel(passes * values, 4, speed=ACTIVATION_SPEED)


def activation(s: Shape, values: float, *, backward: bool = False) -> Kernel:
    """The MLP's activation of ``values`` values: reads one (or gate and value), writes one."""
    b, gated = s.bytes_per_value, s.mlp_inputs > 1
    if not gated:
        return _kernel((3 if backward else 2) * b * values, speed=ACTIVATION_SPEED)
    if s.stack.fused_activation:
        return _kernel((5 if backward else 3) * b * values, speed=ACTIVATION_SPEED)
    # silu alone, then the product; backward both factors' gradients, then silu's.
    return _kernel((9 if backward else 5) * b * values, 3 if backward else 2, speed=ACTIVATION_SPEED)


def rope(s: Shape, values: float) -> Kernel:
    """Rotary positions of ``values`` values of queries and keys, either way."""
    b = s.bytes_per_value
    if s.stack.fused_rope:
        return _kernel(2 * b * values, speed=ACTIVATION_SPEED)
    casts = 0 if b == FP32 else 2 * (b + FP32)
    return _kernel((casts + 2 * FP32) * values, 6, speed=ACTIVATION_SPEED)


def bias_gradient(s: Shape, values: float) -> tuple[Kernel, ...]:
    """The gradient of a bias is the sum of ``values`` values over the tokens."""
    if s.stack.fused_bias_gradient:
        return ()
    return (_kernel(s.bytes_per_value * values, weights=True, speed=SUM_SPEED),)


def accumulation(s: Shape, parameters: float) -> tuple[Kernel, ...]:
    """A gradient of ``parameters`` parameters is added to the accumulated one, if its GEMM does not."""
    each = {"fused": 0, "sharded": 0, "same": 3 * s.bytes_per_value}
    size = each[s.stack.accumulation] * parameters
    return (_kernel(size, weights=True),) if size else ()


def attention_copies(s: Shape) -> tuple[Kernel, ...]:
    """What attention's inputs and output are copied into shape for, either way."""
    inputs, output = s.tokens * (s.q + s.k + s.v), s.tokens * s.o
    b = s.bytes_per_value
    if s.stack.attention_copies == "output" or not s.flash:
        return (_kernel(2 * b * output),)
    if s.stack.attention_copies == "unpad":
        return _kernel(2 * b * inputs, 3), _kernel(3 * b * output, 2)
    return ()


def loss(s: Shape, *, backward: bool = False) -> Kernel:
    """Cross-entropy over this rank's logits."""
    b = s.bytes_per_value
    cast = 0 if b == FP32 else b + FP32
    forward, backward_ = {
        # In place, in the precision of the logits.
        "fused": ((b, 1), (2 * b, 1)),
        # log_softmax; backward a dense gradient of what is picked, then log_softmax's.
        "torch": ((cast + 2 * FP32, 3), (FP32 + 3 * FP32 + cast, 3)),
        # Maximum, difference, exponential, sum, quotient; backward the softmax scaled in place.
        "vocab_parallel": ((cast + 8 * FP32, 12), (2 * FP32 + cast, 5)),
    }[s.stack.loss]
    each, launches = backward_ if backward else forward
    if not backward:
        each += s.stack.loss_metrics * (cast + 2 * FP32)
    ranks = s.tp if s.stack.gathers_logits else 1
    return _kernel(each * s.tokens * s.vocab * ranks, launches, speed=ACTIVATION_SPEED)


def hidden_norm(s: Shape, *, backward: bool = False) -> Kernel:
    """A norm over the hidden values of the tokens between a block's halves."""
    return norm(s, s.outside * s.hidden, backward=backward)


def hidden_add(s: Shape) -> Kernel:
    """A residual, or the meeting of two branches' gradients."""
    return s.memory(3 * s.outside * s.hidden)


def hidden_residual(s: Shape) -> Kernel:
    """A half's output, its dropout included, added to its input."""
    return residual(s, s.outside * s.hidden)


def hidden_dropout(s: Shape) -> tuple[Kernel, ...]:
    """Dropout over the same values, where the job has it."""
    return dropout(s, s.outside * s.hidden)
