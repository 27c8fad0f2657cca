"""What a layer computes as plain torch trains it: eager operations on fp32 weights under torch.autocast.

The kernels are those that a profile of `executor/model` shows, in order. Autocast casts the input
and the weight of every GEMM to half precision and the gradient of the weight back; norms, the residual
stream and the loss stay in fp32. A fp32 job casts nothing. Blocks that torch.compile has compiled fuse what
is between GEMMs: norms with their casts, rotary positions, activations.

Every kernel names its family, whose speed a calibration measures (`Accelerator.kernel_speeds`); the speeds
here count where it was not. Bytes are counted operation by operation, each operand read or written once.
"""

from __future__ import annotations

from dataclasses import replace

from ..model.decoder import Decoder
from ..model.layer import BLOCK, EMBEDDING, HEAD
from . import torch_float8
from .attention import attention_kernels
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
}
"""Kernels of one call of a family; 1 where it is not named. A norm's backward sums the gain's gradient by
itself; a rotation is four products, two sums and a concatenation of halves; SwiGLU's backward concatenates
the gradients of gate and up; an embedding's sorts its tokens first; a bias' gradient is cast."""

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

Kernels = tuple[Kernel, ...]


def forward(s: Shape, kind: str) -> Kernels:
    """Kernels of a layer's forward; ``kind`` is `embedding`, `block` or `head`."""
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


def _of(family: str, size_bytes: float, *, weights: bool = False) -> Kernel:
    return Kernel(
        kind="memory",
        flops=0.0,
        bytes=float(size_bytes),
        launches=LAUNCHES.get(family, 1),
        weights=weights,
        speed=SPEEDS.get(family, 1.0),
        family=family,
    )


def _compiled(size_bytes: float, launches: int = 1) -> Kernel:
    """What torch.compile makes of operations between GEMMs, as fast as copying: norms with the casts behind
    them move 4.2 of a copy's 4.2 TB/s (benchmarks/results/gpu_nvidia-h200_2026-11-28_second_memory.csv)."""
    return replace(_of("compiled", size_bytes), launches=launches)


def _cast(s: Shape, values: float, *, weights: bool = False) -> Kernels:
    """Between fp32 and half precision; none in an fp32 job."""
    b = s.bytes_per_value
    return () if b == FP32 else (_of("cast", (b + FP32) * values, weights=weights),)


def _norm(s: Shape) -> Kernels:
    """Of the residual stream, and the cast of what the GEMM after it reads."""
    values = s.outside * s.hidden
    if s.stack.compiles_blocks:
        return (_compiled((FP32 + s.bytes_per_value) * values),)
    return _of(_norm_family(s), 2 * FP32 * values), *_cast(s, values)


def _norm_backward(s: Shape) -> Kernels:
    """The gradient cast, the norm's two kernels, and the sum with the gradient that came round it."""
    values, family = s.outside * s.hidden, f"{_norm_family(s)}_backward"
    if s.stack.compiles_blocks:
        return (_compiled((2 * s.bytes_per_value + 5 * FP32) * values, LAUNCHES[family]),)
    return *_cast(s, values), _of(family, 5 * FP32 * values), _of("add", 3 * FP32 * values)


def _norm_family(s: Shape) -> str:
    return "layer_norm" if s.decoder.norm == "layernorm" else "rms_norm"


def _linear(s: Shape, n: int, k: int, *, bias: bool = False) -> Kernels:
    """A linear layer from ``k`` to ``n`` values: its weight is cast, and its bias by a kernel of its own."""
    of_bias = _cast(s, n) if bias else ()
    if s.fp8:
        return *of_bias, *torch_float8.linear(s, n, k)
    return *_cast(s, n * k), *of_bias, s.gemm(s.tokens, n, k)


def _linear_backward(s: Shape, n: int, k: int, *, bias: bool = False) -> Kernels:
    """Gradients of input, weight and bias; those of weights are cast back, and added to earlier ones."""
    added = 3 * FP32 * n * k * s.added
    if s.fp8:
        return (
            *torch_float8.linear_backward(s, n, k),
            *((_of("sum", s.bytes_per_value * s.tokens * n, weights=True),) if bias else ()),
            *((_of("add", added, weights=True),) if added else ()),
        )
    return (
        s.gemm(s.tokens, k, n),
        s.gemm(n, k, s.tokens, weights=True),
        *((_of("sum", s.bytes_per_value * s.tokens * n, weights=True),) if bias else ()),
        *_cast(s, n * k, weights=True),
        *((_of("add", added, weights=True),) if added else ()),
    )


def _residual(s: Shape) -> Kernels:
    """A branch's output, perhaps dropped out, and added to the stream."""
    values = s.outside * s.hidden
    mask = MASK_BYTES * values if s.dropout and s.stack.compiles_blocks else 0
    dropped = () if s.stack.compiles_blocks else _dropout(s, s.bytes_per_value * values, values)
    return *dropped, _of("residual", (2 * FP32 + s.bytes_per_value) * values + mask)


def _dropout(s: Shape, size: float, values: float, *, backward: bool = False) -> Kernels:
    """Dropout of ``values`` values of ``size`` bytes, or its gradient: read, written, and the mask."""
    if not s.dropout:
        return ()
    return (_of("dropout_backward" if backward else "dropout", 2 * size + MASK_BYTES * values),)


def _branch(s: Shape) -> Kernels:
    """The stream's gradient as the branch reads it."""
    values = s.outside * s.hidden
    dropped = _dropout(s, s.bytes_per_value * values, values, backward=True)
    return *_cast(s, values), *dropped


def _rotary(s: Shape) -> bool:
    return s.decoder.positions == "rope"


def _rope(s: Shape) -> Kernels:
    if not _rotary(s):
        return ()
    if s.stack.compiles_blocks:
        return tuple(_compiled(2 * s.bytes_per_value * s.tokens * width) for width in (s.q, s.k))
    return tuple(_of("rope", 9 * s.bytes_per_value * s.tokens * width) for width in (s.q, s.k))


def _rope_backward(s: Shape) -> Kernels:
    """Then queries' and keys' gradients are laid token by token, as the GEMM reads them."""
    if not _rotary(s):
        return ()
    b = s.bytes_per_value
    if s.stack.compiles_blocks:
        return tuple(_compiled(2 * b * s.tokens * width) for width in (s.q, s.k))
    turned = tuple(_of("rope_backward", 10 * b * s.tokens * width) for width in (s.k, s.q))
    return *turned, *(_of("transpose", 2 * b * s.tokens * width) for width in (s.k, s.q))


def _activation(s: Shape) -> Kernel:
    b, values = s.bytes_per_value, s.tokens * s.decoder.ffn // s.tp
    if s.stack.compiles_blocks:
        return _compiled((1 + s.mlp_inputs) * b * values)
    if s.mlp_inputs == 1:
        return _of("gelu", 2 * b * values)
    return _of("swiglu", 5 * b * values)


def _activation_backward(s: Shape) -> Kernel:
    b, values = s.bytes_per_value, s.tokens * s.decoder.ffn // s.tp
    if s.stack.compiles_blocks:
        return _compiled((1 + 2 * s.mlp_inputs) * b * values)
    if s.mlp_inputs == 1:
        return _of("gelu_backward", 3 * b * values)
    return _of("swiglu_backward", 13 * b * values)


def without_flash(decoder: Decoder, bytes_per_value: int) -> bool:
    """Whether torch's attention falls back to GEMMs and a softmax: no fp32 kernel takes grouped keys
    (ATen, native/transformers/cuda/sdp_utils.cpp)."""
    return bytes_per_value == FP32 and decoder.kv_heads != decoder.heads


def copies_output(decoder: Decoder, bytes_per_value: int) -> bool:
    """Whether attention's output has to be laid token by token for the GEMM after it: half-precision
    kernels lay it as queries are, which rotary positions leave head by head; so do GEMMs."""
    return decoder.positions == "rope" and (bytes_per_value < FP32 or without_flash(decoder, bytes_per_value))


def _attention(s: Shape, *, backward: bool = False) -> Kernels:
    if without_flash(s.decoder, s.bytes_per_value):
        return attention_kernels(replace(s, flash=False, fused_softmax=False), backward=backward)
    own = attention_kernels(s, backward=backward)
    if s.bytes_per_value < FP32:
        return own
    # The fused kernel of fp32 leaves tensor cores alone, whatever GEMMs do: tf32 is no faster (measured).
    return tuple(replace(kernel, precision="fp32") for kernel in own)


def _block_forward(s: Shape) -> Kernels:
    """Of one block; what is inside attention is marked as such."""
    d, ffn = s.decoder, s.decoder.ffn // s.tp
    copied = ()
    if copies_output(d, s.bytes_per_value):
        copied = (_of("transpose", 2 * s.bytes_per_value * s.tokens * s.o),)
    return (
        *_norm(s),
        *_linear(s, s.q + s.k + s.v, s.hidden, bias=d.attention_bias),
        *_rope(s),
        *_attention(s),
        *copied,
        *_linear(s, s.hidden, s.o, bias=d.output_bias),
        *_residual(s),
        *_norm(s),
        *_linear(s, s.mlp_inputs * ffn, s.hidden, bias=d.mlp_bias),
        _activation(s),
        *_linear(s, s.hidden, ffn, bias=d.mlp_bias),
        *_residual(s),
    )


def _computed_again(s: Shape, width: int) -> Kernels:
    """The inner GEMM of a compiled block in fp8: torch.compile takes `_scaled_mm` for cheap, and keeps what
    it is made of instead of what it gives (measured: the memory of a compiled Llama, 2026-11-28)."""
    if not (s.fp8 and s.stack.compiles_blocks):
        return ()
    return (torch_float8.gemm(s.tokens, width, s.hidden),)


def _block_backward(s: Shape) -> Kernels:
    """The forward in reverse; gradients of queries, keys and values become one again."""
    d, ffn = s.decoder, s.decoder.ffn // s.tp
    width = s.q + s.k + s.v
    return (
        *_branch(s),
        *_computed_again(s, s.mlp_inputs * ffn),
        *_linear_backward(s, s.hidden, ffn, bias=d.mlp_bias),
        _activation_backward(s),
        *_linear_backward(s, s.mlp_inputs * ffn, s.hidden, bias=d.mlp_bias),
        *_norm_backward(s),
        *_branch(s),
        *_linear_backward(s, s.hidden, s.o, bias=d.output_bias),
        *_attention(s, backward=True),
        *_rope_backward(s),
        _of("cast", 2 * s.bytes_per_value * s.tokens * width),
        *_linear_backward(s, width, s.hidden, bias=d.attention_bias),
        *_norm_backward(s),
    )


def _embedding_forward(s: Shape) -> Kernels:
    values = s.tokens * s.hidden
    outside = s.outside * s.hidden
    positions = () if _rotary(s) else (_of("add", 2 * FP32 * outside),)
    return _of("cast", 2 * FP32 * values), *positions, *_dropout(s, FP32 * outside, outside)


def _embedding_backward(s: Shape) -> Kernels:
    """A dense gradient of the table, zeroed and scattered into; added to the head's where they are one, and
    to those of earlier micro-batches. That of the positions is a sum over the samples."""
    table, values = s.decoder.vocab * s.hidden // s.tp, s.tokens * s.hidden
    sums = s.added + (1.0 if s.decoder.tied_embeddings else 0.0)
    positions = () if _rotary(s) else (_of("sum", FP32 * s.outside * s.hidden, weights=True),)
    return (
        *_dropout(s, FP32 * s.outside * s.hidden, s.outside * s.hidden, backward=True),
        _of("embedding_backward", FP32 * (table + 3 * values), weights=True),
        *positions,
        *((_of("add", sums * 3 * FP32 * table, weights=True),) if sums else ()),
    )


def _head_forward(s: Shape) -> Kernels:
    return *_norm(s), *_linear(s, s.vocab, s.hidden), _of("loss", _loss_bytes(s) * s.tokens * s.vocab)


def _head_backward(s: Shape) -> Kernels:
    gradient = _loss_bytes(s, backward=True) * s.tokens * s.vocab
    return (
        _of("loss_backward", gradient),
        *_linear_backward(s, s.vocab, s.hidden),
        *_norm_backward(s)[:-1],
    )


def _loss_bytes(s: Shape, *, backward: bool = False) -> int:
    """Of one logit: a cast to fp32 and log-softmax; a gradient zeroed, log-softmax's, and the cast back."""
    cast = 0 if s.bytes_per_value == FP32 else s.bytes_per_value + FP32
    return cast + (4 if backward else 2) * FP32


_FORWARD = {EMBEDDING: _embedding_forward, BLOCK: _block_forward, HEAD: _head_forward}
_BACKWARD = {EMBEDDING: _embedding_backward, BLOCK: _block_backward, HEAD: _head_backward}
