"""Operations of a network that multiply matrices: convolutions, linear layers, attention, recurrent layers.

A new layer begins wherever weights are multiplied.
"""

from __future__ import annotations

from .graph import Tensor
from .memory_bound import MemoryBound
from .network import ATTENTION, CONVOLUTION, MEMORY, PAIRS, PRODUCT, RECURRENT, Operation


class Gemms(MemoryBound):
    """A network that is built of them too."""

    def conv(
        self,
        x: Tensor,
        channels: int,
        window: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
        groups: int = 1,
        bias: bool = False,
    ) -> Tensor:
        """A convolution."""
        window, padding = _pair(window), _pair(padding)
        height = (x.height + 2 * padding[0] - window[0]) // stride + 1
        width = (x.width + 2 * padding[1] - window[1]) // stride + 1
        inner = x.channels // groups * window[0] * window[1]
        out = self._layer("conv", x, channels, height, width)
        self._weigh(
            Operation(
                kind=CONVOLUTION,
                rows=height * width,
                n=channels // groups,
                k=inner,
                groups=groups,
                window=window,
                stride=stride,
                image=(height, width),
                reads=x.values,
                writes=out.values,
                weights=channels * inner,
                has_input_gradient=x.part >= 0,
            ),
            bias=channels if bias else 0,
        )
        self._keep(x)
        if bias:
            self._move("bias", forward=2 * out.values, backward=out.values)
        return out

    def linear(self, x: Tensor, width: int, *, bias: bool = True, rows: int = 1) -> Tensor:
        """A GEMM of all values of ``x``, or of each of ``rows`` rows, with a matrix, bias included."""
        inner = x.values // rows
        out = self._layer("linear", x, width, rows, 1)
        self._weigh(
            Operation(
                kind=PRODUCT,
                rows=rows,
                n=width,
                k=inner,
                reads=x.values,
                writes=out.values,
                weights=width * inner,
                has_input_gradient=x.part >= 0,
            ),
            bias=width if bias else 0,
        )
        self._keep(x)
        if bias:
            self._move("bias", forward=0, backward=out.values)
        return out

    def interactions(self, x: Tensor, rows: int) -> Tensor:
        """Products of ``rows`` vectors with each other; the half below the diagonal goes on (DLRM)."""
        size = x.values // rows
        out = self._tensor(rows * (rows - 1) // 2)
        self._read(x)
        self._operate(Operation(kind=MEMORY, name="interaction", moved=2.0 * x.values + rows * rows,
                                moved_back=3.0 * x.values + 2 * rows * rows))  # fmt: skip
        self._operate(Operation(kind=ATTENTION, name=PAIRS, n=rows, k=size))
        self._keep(x)
        return out

    def lstm(self, x: Tensor, hidden: int, *, backwards: bool = False, biases: int = 2) -> Tensor:
        """One layer of an LSTM, from the first token to the last or ``backwards``: the inputs' GEMMs of all
        tokens at once, the state's one after the other.

        Gates read and write their four values and the state; cuDNN keeps them for backward.
        """
        gates = 4 * hidden
        out = self._layer("lstm", x, hidden, 1, 1)
        self._weigh(
            Operation(
                kind=PRODUCT,
                n=gates,
                k=x.values,
                reads=x.values,
                writes=gates,
                weights=gates * x.values,
                has_input_gradient=x.part >= 0,
            ),
            bias=biases * gates,
        )
        self._weigh(
            Operation(kind=RECURRENT, n=gates, k=hidden, reads=hidden, writes=gates, weights=gates * hidden)
        )
        self._move("gates", forward=2 * gates + 3 * hidden, backward=2 * gates + 5 * hidden)
        self._parts[-1].kept += gates + 2 * hidden
        self._keep(x)
        return out

    def attention(self, q: Tensor, k: Tensor, v: Tensor, heads: int, *, dropout: bool = True) -> Tensor:
        """Every token on all of its sample, by ``heads``."""
        size = q.values // heads
        out = self._tensor(q.values)
        for tensor in (q, k, v):
            self._read(tensor)
            self._keep(tensor)
        name = "dropout" if dropout else ""
        self._operate(Operation(kind=ATTENTION, name=name, n=heads, k=size))
        return out

    def scored_attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of one head by the normalised score of Bahdanau et al. 2014.

        Its parameters are a vector with its length, and biases of the sum of query and key."""
        out = self.attention(q, k, v, 1, dropout=False)
        self.once("normalised score", 2 * q.values + 1)
        return out

    def once(self, name: str, parameters: int) -> None:
        """Parameters that a sample meets once, as BERT's pooler: nothing beside its tokens."""
        self._parts[-1].parameters += parameters
        self._move(name, forward=0, backward=0)


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size
