"""The kernels of a network's layer on one rank, forward and backward, with the algorithms that a library
chooses among.

A convolution is an implicit product: every place of the output is a row, the window over all input channels
the inner size; its gradients are products of the same three sizes in other orders. In fp32 a window of 3 × 3
or 5 × 5 that moves by one place may be computed by Winograd's minimal filtering instead (Lavin & Gray 2015,
arXiv:1509.09308): fused into one kernel for tiles of 2 × 2, or as transforms and products for larger ones.
The weight gradient has both too (cuDNN 5.1). Frameworks time the algorithms and keep the fastest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from ..shape import Kernel
from .network import ATTENTION, CONVOLUTION, LOOKUP, MEMORY, PAIRS, RECURRENT, NetworkLayer, Operation

Choice = tuple[tuple[Kernel, ...], ...]
"""Ways to do the same; the first is the plain one."""

FUSED_TILE = 2
"""Outputs each way of a tile in fused Winograd of 3 × 3 windows."""
LARGE_TILES = {3: 4, 5: 2}
"""The same with transforms of their own, by the window's side: six inputs each way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one rank has at once."""

    micro_batch: int
    seq_len: int
    bytes_per_value: int
    flash: bool = True
    """Attention is one flash kernel."""

    @property
    def tokens(self) -> int:
        return self.micro_batch * self.seq_len

    def memory(self, values: float) -> Kernel:
        """A kernel that reads and writes so many values."""
        return Kernel(kind="memory", flops=0.0, bytes=float(values * self.bytes_per_value))

    def product(
        self, m: float, n: float, k: float, values: float, *, batch: int = 1, weights: bool = False
    ) -> Kernel:
        """``batch`` products [m, k] x [k, n] that read and write ``values`` values in all."""
        return Kernel(
            kind="gemm",
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
        return _moved(op.moved, batch)
    if op.kind == LOOKUP:
        return _moved(op.reads + op.writes, batch)
    if op.kind == ATTENTION:
        return [((kernel,),) for kernel in _attention(op, batch, backward=False)]
    if op.kind == RECURRENT:
        step = batch.product(batch.micro_batch, op.n, op.k, batch.micro_batch * (op.k + op.n) + op.weights)
        return [((step,),)] * batch.seq_len
    return [_product(op, batch, rows=op.rows, n=op.n, k=op.k)]


def _backward(op: Operation, batch: Batch) -> list[Choice]:
    if op.kind == MEMORY:
        return _moved(op.moved_back, batch)
    if op.kind == LOOKUP:
        return _moved(2 * op.writes, batch, fixed=0.0 if op.name == "sparse" else op.weights)
    if op.kind == ATTENTION:
        return [((kernel,),) for kernel in _attention(op, batch, backward=True)]
    weights = _weight_gradient(op, batch)
    if not op.has_input_gradient:
        return [weights]
    if op.kind == RECURRENT:
        step = batch.product(batch.micro_batch, op.k, op.n, batch.micro_batch * (op.k + op.n) + op.weights)
        return [*[((step,),)] * batch.seq_len, weights]
    taps = op.window[0] * op.window[1]
    channels = op.k / taps
    places = op.reads / (channels * op.groups) if op.kind == CONVOLUTION else op.rows
    inner = op.rows * op.n * op.k / (places * channels)
    return [_product(op, batch, rows=places, n=channels, k=inner), weights]


def _moved(values: float, batch: Batch, fixed: float = 0.0) -> list[Choice]:
    """A memory-bound kernel, of ``values`` for each token and ``fixed`` ones; none where nothing moves."""
    moved = batch.tokens * values + fixed
    return [((batch.memory(moved),),)] if moved else []


def _product(op: Operation, batch: Batch, *, rows: float, n: float, k: float) -> Choice:
    """Output or gradient of the input: both read the one, write the other, and read the weights."""
    tokens = batch.tokens
    values = tokens * (op.reads + op.writes) + op.weights
    whole = batch.product(tokens * rows, n, k, values, batch=op.groups)
    channels = op.k / (op.window[0] * op.window[1])
    return ((whole,), *_winograd(op, batch, whole, op.n, channels, weights=False))


def _weight_gradient(op: Operation, batch: Batch) -> Choice:
    tokens = batch.tokens
    values = tokens * (op.reads + op.writes) + op.weights
    whole = batch.product(op.n, op.k, tokens * op.rows, values, batch=op.groups, weights=True)
    channels = op.k / (op.window[0] * op.window[1])
    return ((whole,), *_winograd(op, batch, whole, op.n, channels, weights=True))


def _winograd(
    op: Operation, batch: Batch, whole: Kernel, n: float, k: float, *, weights: bool
) -> list[tuple[Kernel, ...]]:
    """Minimal filtering instead of ``whole``, a product over channels ``n`` and ``k``."""
    side = op.window[0]
    fits = op.kind == CONVOLUTION and op.window == (side, side) and op.stride == op.groups == 1
    if not fits or side not in LARGE_TILES or batch.bytes_per_value != 4:
        return []
    ways = [_transformed(op, batch, LARGE_TILES[side], n, k, weights=weights)]
    if side == 3:
        saved = _multiplied(op, FUSED_TILE) / (op.rows * side**2)
        ways.append((replace(whole, flops=whole.flops * saved),))
    return ways


def _multiplied(op: Operation, tile: int) -> float:
    """Multiplications for one channel of the output by one of the input, over all tiles of one token."""
    height, width = (math.ceil(side / tile) for side in op.image)
    return height * width * (tile + op.window[0] - 1) ** 2


def _transformed(
    op: Operation, batch: Batch, tile: int, n: float, k: float, *, weights: bool
) -> tuple[Kernel, ...]:
    """Inputs to tiles, a product for every place of a tile, tiles to outputs."""
    places = (tile + op.window[0] - 1) ** 2
    tiles = batch.tokens * _multiplied(op, tile) / places
    read, written = places * tiles * k, places * tiles * n
    before = batch.tokens * op.reads + read
    after = batch.tokens * op.writes + written
    values = read + written + places * n * k
    m, inner = (k, tiles) if weights else (tiles, k)
    product = batch.product(m, n, inner, values, batch=places, weights=weights)
    return (
        replace(batch.memory(before), weights=weights),
        product,
        replace(batch.memory(after), weights=weights),
    )


def _attention(op: Operation, batch: Batch, *, backward: bool) -> list[Kernel]:
    """Scores, softmax, their sum over values, nothing masked; or one flash kernel, whose backward has five
    products (Dao 2023, section 2.3.2)."""
    length, heads = batch.seq_len, batch.micro_batch * op.n
    if op.name == PAIRS:
        length, heads = op.n, batch.tokens
    width, tokens = op.n * op.k, batch.tokens
    if batch.flash and op.name != PAIRS:
        products = 5 if backward else 2
        return [
            Kernel(
                kind="attention",
                flops=products * 2.0 * heads * length**2 * op.k,
                bytes=float(tokens * width * (8 if backward else 4) * batch.bytes_per_value),
                m=length,
                n=length,
                k=op.k,
                batch=heads,
                attention=True,
            )
        ]
    scores = float(heads * length * length)
    one = replace(
        batch.product(length, length, op.k, 2 * tokens * width + scores, batch=heads), attention=True
    )
    if op.name == PAIRS:
        return [one] * (2 if backward else 1)
    dropped = op.name == "dropout"
    softmax = [replace(batch.memory(scores * (3 if backward else 2)), attention=True)]
    dropout = [replace(batch.memory(scores * 2.25), attention=True)] if dropped else []
    return [one] * (4 if backward else 2) + softmax + dropout
