"""Builds a Network operation by operation, as a forward would run it.

A new layer begins wherever weights are multiplied or looked up. ReLU works in place.
"""

from __future__ import annotations

from .graph import Graph, Tensor
from .network import (
    ATTENTION,
    CONVOLUTION,
    LOOKUP,
    MEMORY,
    PAIRS,
    PRODUCT,
    RECURRENT,
    Operation,
)

INDEX_BYTES = 8
"""Bytes of one index (int64)."""


class Builder(Graph):
    """One network; the methods are its operations, in order, and return their outputs."""

    # Products

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
        """A product of all values of ``x``, or of each of ``rows`` rows, with a matrix, bias included."""
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

    def predict_some(self, x: Tensor, vocabulary: int, share: float, *, bias: bool = True) -> None:
        """BERT's head on the ``share`` of tokens that is masked: a product, GELU, a norm, then the logits by
        the table of the embedding, whose parameters count there, and the loss."""
        width = x.values
        self._layer("predict", x, width, 1, 1)
        parts = ((width, width * width, width), (vocabulary, 0, vocabulary if bias else 0))
        for out, weights, added in parts:
            self._weigh(
                Operation(kind=PRODUCT, rows=share, n=out, k=width, reads=share * width, writes=share * out,
                          weights=weights),
                bias=added,
            )  # fmt: skip
        self._parts[-1].parameters += 2 * width
        moved = 4 * width + 4 * vocabulary
        self._move("loss", forward=share * moved, backward=share * (8 * width + 3 * vocabulary))
        self._parts[-1].kept += share * (3 * width + vocabulary)

    def once(self, name: str, parameters: int) -> None:
        """Parameters that a sample meets once, as BERT's pooler: nothing beside its tokens."""
        self._parts[-1].parameters += parameters
        self._move(name, forward=0, backward=0)

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

    def lookup(self, rows: int, width: int, *, count: int = 1, sparse: bool = False) -> Tensor:
        """``count`` rows of a table; a ``sparse`` gradient touches only the rows that were looked up."""
        out = self._layer("lookup", None, width, count, 1)
        self._input_bytes += INDEX_BYTES * count
        self._weigh(
            Operation(
                kind=LOOKUP,
                name="sparse" if sparse else "dense",
                reads=out.values,
                writes=out.values,
                weights=rows * width,
            )
        )
        self._parts[-1].kept_bytes += INDEX_BYTES * count
        return out

    def shared_lookup(self, width: int) -> Tensor:
        """A row of a table whose parameters another layer has."""
        out = self._layer("lookup", None, width, 1, 1)
        self._input_bytes += INDEX_BYTES
        self._operate(Operation(kind=LOOKUP, name="sparse", reads=width, writes=width))
        self._parts[-1].kept_bytes += INDEX_BYTES
        return out

    def shared_linear(self, x: Tensor, width: int) -> Tensor:
        """A product with a matrix whose parameters another layer has."""
        out = self._layer("linear", x, width, 1, 1)
        self._operate(Operation(kind=PRODUCT, n=width, k=x.values, reads=x.values, writes=width))
        self._keep(x)
        return out

    def lstm(self, x: Tensor, hidden: int, *, directions: int = 1, biases: int = 2) -> Tensor:
        """One layer of an LSTM: the inputs' products of all tokens at once, the state's one after the other.

        Gates read and write their four values and the state; cuDNN keeps them for backward.
        """
        outs = []
        for _ in range(directions):
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
                Operation(
                    kind=RECURRENT, n=gates, k=hidden, reads=hidden, writes=gates, weights=gates * hidden
                )
            )
            self._move("gates", forward=2 * gates + 3 * hidden, backward=2 * gates + 5 * hidden)
            self._parts[-1].kept += gates + 2 * hidden
            self._keep(x)
            outs.append(out)
        return outs[0] if directions == 1 else self.concat(*outs, copies=False)

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

    # Bound by memory

    def batch_norm(self, x: Tensor) -> Tensor:
        """Mean and variance are a reading of their own forward; backward reads input and gradient twice."""
        return self._norm("norm", x, forward=3, backward=5)

    def layer_norm(self, x: Tensor) -> Tensor:
        """Over the channels of a token."""
        return self._norm("layer_norm", x, forward=2, backward=5)

    def _norm(self, name: str, x: Tensor, *, forward: int, backward: int) -> Tensor:
        out = self._shaped_like(x)
        self._read(x)
        self._move(name, forward=forward * x.values, backward=backward * x.values)
        self._parts[-1].parameters += 2 * x.channels
        self._keep(x)
        return out

    def relu(self, x: Tensor) -> Tensor:
        """In place; backward looks at the output."""
        out = self._replaced(x)
        self._move("relu", forward=2 * x.values, backward=3 * x.values)
        self._keep(out)
        return out

    def gelu(self, x: Tensor) -> Tensor:
        """And whatever else of one value: backward looks at the input."""
        self._keep(x)
        self._read(x)
        self._move("gelu", forward=2 * x.values, backward=3 * x.values)
        return self._shaped_like(x)

    def sigmoid(self, x: Tensor) -> Tensor:
        """Backward looks at the output."""
        out = self._replaced(x)
        self._move("sigmoid", forward=2 * x.values, backward=3 * x.values)
        self._keep(out)
        return out

    def dropout(self, x: Tensor) -> Tensor:
        """The mask of a byte a value is kept."""
        self._read(x)
        self._move("dropout", forward=2.25 * x.values, backward=2.25 * x.values)
        self._parts[-1].kept_bytes += x.values
        return self._shaped_like(x)

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """The gradient goes to both as it is."""
        self._read(x)
        self._read(y)
        self._move("add", forward=3 * x.values, backward=0)
        return self._shaped_like(x)

    def concat(self, *xs: Tensor, copies: bool = True) -> Tensor:
        """By channels."""
        for x in xs:
            self._read(x)
        out = self._tensor(sum(x.channels for x in xs), xs[0].height, xs[0].width)
        if copies:
            self._move("concat", forward=2 * out.values, backward=2 * out.values)
        return out

    def max_pool(
        self, x: Tensor, window: int, *, stride: int, padding: int = 0, ceil: bool = False
    ) -> Tensor:
        """Backward looks at the indices of the largest."""
        out = self._pooled(x, window, stride, padding, ceil)
        self._keep(x)
        self._parts[-1].kept_bytes += INDEX_BYTES * out.values
        self._move("pool", forward=x.values + out.values, backward=2 * (x.values + out.values))
        return out

    def average_pool(self, x: Tensor, window: int, *, stride: int, padding: int = 0) -> Tensor:
        """Of a window."""
        out = self._pooled(x, window, stride, padding, False)
        self._move("pool", forward=x.values + out.values, backward=x.values + out.values)
        return out

    def global_pool(self, x: Tensor, size: int = 1) -> Tensor:
        """The mean of every channel, or of each of ``size`` × ``size`` places."""
        self._read(x)
        out = self._tensor(x.channels, size, size)
        same = x.height == size == x.width
        self._move(
            "pool",
            forward=0 if same else x.values + out.values,
            backward=0 if same else x.values + out.values,
        )
        return out

    def loss(self, x: Tensor) -> None:
        """Softmax and cross-entropy, or whatever reads the output a few times."""
        self._read(x)
        self._move("loss", forward=4 * x.values, backward=3 * x.values)
        self._keep(x)

    def _pooled(self, x: Tensor, window: int, stride: int, padding: int, ceil: bool) -> Tensor:
        self._read(x)
        more = stride - 1 if ceil else 0
        height, width = ((side + 2 * padding - window + more) // stride + 1 for side in (x.height, x.width))
        return self._tensor(x.channels, height, width)


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size
