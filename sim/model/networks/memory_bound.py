"""Operations of a network that move data and multiply nothing: norms, activations, pools, the loss.

ReLU works in place.
"""

from __future__ import annotations

from .graph import Graph, Tensor

INDEX_BYTES = 8
"""Bytes of one index (int64)."""


class MemoryBound(Graph):
    """A network that is built of them, in order; each returns its output."""

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
