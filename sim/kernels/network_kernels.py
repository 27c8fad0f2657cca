"""The kernels of a network's layer on one rank, forward and backward, with the algorithms that a library
chooses among.

A convolution is an implicit GEMM: every place of the output is a row, the window over all input channels
the inner size; its gradients are GEMMs of the same three sizes in other orders. In fp32 a window of 3, 5
or 7 places that moves by one may be computed by Winograd's minimal filtering instead (Lavin & Gray 2015,
arXiv:1509.09308) or by Fourier transforms: fused into one kernel for tiles of 2 × 2, or as transforms and
GEMMs for larger ones. The weight gradient has both too (cuDNN 5.1). Frameworks time the algorithms and
keep the fastest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from ..model.networks.network import (
    ATTENTION,
    CONVOLUTION,
    LOOKUP,
    MEMORY,
    PAIRS,
    RECURRENT,
    NetworkLayer,
    Operation,
)
from .convolution import DIRECT, FILTERED, FUSED_SPEED, STRIDED_GRADIENT_SPEED, TRANSFORM_SPEED
from .kernel import FP32_BYTES, Kernel

Choice = tuple[tuple[Kernel, ...], ...]
"""Ways to do the same; the first is the plain one."""

FUSED_TILE = 2
"""Outputs each way of a tile in fused Winograd of 3 × 3 windows."""
LARGE_TILES = {1: 1, 3: 4, 5: 4, 7: 2}
"""The same with transforms of their own, by the window's side: up to eight inputs each way."""
WORKSPACE_BYTES = 4 * 2**30
"""Tiles that take more are not tried: TensorFlow's TF_CUDNN_WORKSPACE_LIMIT_IN_MB, 4096 as it comes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one rank has at once."""

    micro_batch: int
    seq_len: int
    bytes_per_value: int
    fp32: bool = False
    """GEMMs are not those of tensor cores."""
    flash: bool = True
    """Attention is one flash kernel."""
    norm_speed: float = 1.0
    """Of norms against other kernels that are bound by memory."""
    convolution_speed: float = 1.0
    """Of convolutions against those of `convolution.py`."""
    autocasts: bool = False
    """Layer norms and attention's softmax are in fp32 between casts, where the rest is in two bytes."""
    transposes: bool = False
    """Tensors are transposed before and after every convolution (NVIDIA, "Convolutional Layers User's Guide",
    section 3.1)."""
    filters_lines: bool = True
    """Windows of one row or column have fast algorithms too."""

    @property
    def tokens(self) -> int:
        return self.micro_batch * self.seq_len

    def memory(self, values: float) -> Kernel:
        """A kernel that reads and writes so many values."""
        return Kernel(kind="memory", flops=0.0, bytes=float(values * self.bytes_per_value))

    def gemm(
        self, m: float, n: float, k: float, values: float, *, batch: int = 1, weights: bool = False
    ) -> Kernel:
        """``batch`` GEMMs [m, k] x [k, n] that read and write ``values`` values in all."""
        return Kernel(
            kind=DIRECT if self.fp32 else "gemm",
            flops=2.0 * m * n * k * batch,
            bytes=float(values * self.bytes_per_value),
            m=max(1, math.ceil(m)),
            n=max(1, math.ceil(n)),
            k=max(1, math.ceil(k)),
            batch=batch,
            weights=weights,
        )


def layer_choices(layer: NetworkLayer, batch: Batch, part: str) -> tuple[Choice, ...]:
    """The kernels of ``part`` of a pass, in order, each with what might be done instead.

    ``part`` is `forward`, `backward`, `input_gradient` or `weight_gradient`.
    """
    if part == "forward":
        return tuple(choice for op in layer.operations for choice in _forward(op, batch))
    choices = tuple(choice for op in reversed(layer.operations) for choice in _backward(op, batch))
    if part == "backward":
        return choices
    of_weights = part == "weight_gradient"
    return tuple(choice for choice in choices if choice[0][0].weights == of_weights)


def plain(choices: tuple[Choice, ...]) -> tuple[Kernel, ...]:
    """The kernels where every operation is done the plain way."""
    return tuple(kernel for choice in choices for kernel in choice[0])


def fastest(choices: tuple[Choice, ...], seconds: Callable[[Kernel], float]) -> tuple[Kernel, ...]:
    """The kernels where every operation is done the way that takes least ``seconds``."""
    return tuple(
        kernel
        for choice in choices
        for kernel in (choice[0] if len(choice) == 1 else min(choice, key=lambda way: sum(map(seconds, way))))
    )


def _forward(op: Operation, batch: Batch) -> list[Choice]:
    if op.kind == MEMORY:
        return _moved(op.moved * _cast(op, batch, AUTOCAST_NORM[0]), batch, speed=_speed(op, batch))
    if op.kind == LOOKUP:
        return _moved(op.reads + op.writes, batch)
    if op.kind == ATTENTION:
        return [((kernel,),) for kernel in _attention(op, batch, backward=False)]
    if op.kind == RECURRENT:
        step = batch.gemm(batch.micro_batch, op.n, op.k, batch.micro_batch * (op.k + op.n) + op.weights)
        return [((step,),)] * batch.seq_len
    return [_gemm(op, batch, rows=op.rows, n=op.n, k=op.k)]


def _backward(op: Operation, batch: Batch) -> list[Choice]:
    if op.kind == MEMORY:
        return _moved(op.moved_back * _cast(op, batch, AUTOCAST_NORM[1]), batch, speed=_speed(op, batch))
    if op.kind == LOOKUP:
        return _moved(2 * op.writes, batch, fixed=0.0 if op.name == "sparse" else op.weights)
    if op.kind == ATTENTION:
        return [((kernel,),) for kernel in _attention(op, batch, backward=True)]
    weights = _weight_gradient(op, batch)
    if not op.has_input_gradient:
        return [weights]
    if op.kind == RECURRENT:
        step = batch.gemm(batch.micro_batch, op.k, op.n, batch.micro_batch * (op.k + op.n) + op.weights)
        return [*[((step,),)] * batch.seq_len, weights]
    channels = _channels(op)
    places = op.reads / (channels * op.groups) if op.kind == CONVOLUTION else op.rows
    inner = op.rows * op.n * op.k / (places * channels)
    return [_gemm(op, batch, rows=places, n=channels, k=inner, gradient=True), weights]


AUTOCAST_NORM = ((6 + 8 + 6) / 4, (6 + 20 + 6) / 10)
AUTOCAST_SOFTMAX = ((6 + 17 + 6) / 8.5, (6 + 21 + 6) / 10.5)
"""Bytes for a value over those where all is in two bytes, forward and backward: values are twice as wide,
and casts before and after read the one width and write the other. Softmax with the dropout behind it."""


def _casts(batch: Batch) -> bool:
    return batch.autocasts and batch.bytes_per_value < FP32_BYTES


def _cast(op: Operation, batch: Batch, more: float) -> float:
    """What a layer norm moves more where it is in fp32."""
    return more if op.name == "layer_norm" and _casts(batch) else 1.0


def _speed(op: Operation, batch: Batch) -> float:
    return batch.norm_speed if op.name == "norm" else 1.0


def _moved(values: float, batch: Batch, fixed: float = 0.0, speed: float = 1.0) -> list[Choice]:
    """A memory-bound kernel, of ``values`` for each token and ``fixed`` ones; none where nothing moves."""
    moved = batch.tokens * values + fixed
    return [((replace(batch.memory(moved), speed=speed),),)] if moved else []


def _gemm(op: Operation, batch: Batch, *, rows: float, n: float, k: float, gradient: bool = False) -> Choice:
    """Output or gradient of the input: both read the one, write the other, and read the weights."""
    values = batch.tokens * (op.reads + op.writes) + op.weights
    whole = batch.gemm(batch.tokens * rows, n, k, values, batch=op.groups)
    if op.kind != CONVOLUTION:
        return ((whole,),)
    slowed = STRIDED_GRADIENT_SPEED if gradient and op.stride > 1 else 1.0
    whole = replace(whole, kind=DIRECT, speed=batch.convolution_speed * slowed)
    if not batch.fp32:
        return ((whole, *_transposes(op, batch, weights=False)),)
    return ((whole,), *_filtered(op, batch, whole, n, op.n if gradient else _channels(op)))


def _weight_gradient(op: Operation, batch: Batch) -> Choice:
    tokens = batch.tokens
    values = tokens * (op.reads + op.writes) + op.weights
    whole = batch.gemm(op.n, op.k, tokens * op.rows, values, batch=op.groups, weights=True)
    if op.kind != CONVOLUTION:
        return ((whole,),)
    whole = replace(whole, kind=DIRECT, speed=batch.convolution_speed)
    if not batch.fp32:
        return ((whole, *_transposes(op, batch, weights=True)),)
    return ((whole,), *_filtered(op, batch, whole, op.n, _channels(op)))


def _transposes(op: Operation, batch: Batch, *, weights: bool) -> tuple[Kernel, ...]:
    """Of what a GEMM reads and of what it writes, or reads too; those of weights are small."""
    if not batch.transposes:
        return ()
    return tuple(
        replace(batch.memory(2 * batch.tokens * values), weights=weights) for values in (op.reads, op.writes)
    )


def _channels(op: Operation) -> float:
    """Input channels of one group."""
    return op.k / (op.window[0] * op.window[1])


def _filtered(op: Operation, batch: Batch, whole: Kernel, n: float, k: float) -> list[tuple[Kernel, ...]]:
    """Minimal filtering instead of ``whole``, a GEMM over channels ``n`` and ``k``."""
    sides = set(op.window)
    fits = op.stride == op.groups == 1
    lines = 1 in sides
    if not fits or not sides <= LARGE_TILES.keys() or max(sides) == 1 or (lines and not batch.filters_lines):
        return []
    if sides == {1, 3}:
        return []
    ways = [_transformed(op, batch, n, k, weights=whole.weights)]
    if sides == {3}:
        multiplied = _tiles(op, (FUSED_TILE, FUSED_TILE)) * (FUSED_TILE + 2) ** 2
        saved = multiplied / (op.rows * 9)
        ways.append((replace(whole, flops=whole.flops * saved, speed=batch.convolution_speed * FUSED_SPEED),))
    return [way for way in ways if way]


def _tiles(op: Operation, tile: tuple[int, int]) -> int:
    """Tiles of one channel of the output."""
    return math.ceil(op.image[0] / tile[0]) * math.ceil(op.image[1] / tile[1])


def _transformed(op: Operation, batch: Batch, n: float, k: float, *, weights: bool) -> tuple[Kernel, ...]:
    """Inputs to tiles, a GEMM for every place of a tile, tiles to outputs; nothing where the tiles take
    more than the workspace."""
    tile = (LARGE_TILES[op.window[0]], LARGE_TILES[op.window[1]])
    places = (tile[0] + op.window[0] - 1) * (tile[1] + op.window[1] - 1)
    tiles = batch.tokens * _tiles(op, tile)
    read, written = places * tiles * k, places * tiles * n
    if (read + written) * batch.bytes_per_value > WORKSPACE_BYTES:
        return ()
    m, inner = (k, tiles) if weights else (tiles, k)
    gemm = batch.gemm(m, n, inner, read + written + places * n * k, batch=places, weights=weights)
    moved = (batch.tokens * op.reads + read, batch.tokens * op.writes + written)
    speed = batch.convolution_speed
    before, after = (
        replace(batch.memory(one), weights=weights, speed=speed * TRANSFORM_SPEED) for one in moved
    )
    return (before, replace(gemm, kind=FILTERED, speed=speed), after)


def _attention(op: Operation, batch: Batch, *, backward: bool) -> list[Kernel]:
    """Scores, softmax, their sum over values, nothing masked; or one flash kernel, whose backward has five
    GEMMs (Dao 2023, section 2.3.2)."""
    length, heads = batch.seq_len, batch.micro_batch * op.n
    if op.name == PAIRS:
        length, heads = op.n, batch.tokens
    width, tokens = op.n * op.k, batch.tokens
    if batch.flash and op.name != PAIRS:
        gemms = 5 if backward else 2
        return [
            Kernel(
                kind="attention",
                flops=gemms * 2.0 * heads * length**2 * op.k,
                bytes=float(tokens * width * (8 if backward else 4) * batch.bytes_per_value),
                m=length,
                n=length,
                k=op.k,
                batch=heads,
                attention=True,
            )
        ]
    scores = float(heads * length * length)
    one = replace(batch.gemm(length, length, op.k, 2 * tokens * width + scores, batch=heads), attention=True)
    if op.name == PAIRS:
        return [one] * (2 if backward else 1)
    dropped = op.name == "dropout"
    more = AUTOCAST_SOFTMAX[backward] if _casts(batch) else 1.0
    softmax = [replace(batch.memory(more * scores * (3 if backward else 2)), attention=True)]
    dropout = [replace(batch.memory(more * scores * 2.25), attention=True)] if dropped else []
    return [one] * (4 if backward else 2) + softmax + dropout
