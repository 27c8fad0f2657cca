"""Builds a Network operation by operation, as a forward would run it.

Here is what looks rows of a table up or shares its parameters with another layer; `gemms.py` and
`memory_bound.py` have the rest.
"""

from __future__ import annotations

from .gemms import Gemms
from .graph import Tensor
from .memory_bound import INDEX_BYTES
from .network import LOOKUP, PRODUCT, Operation


class Builder(Gemms):
    """One network; the methods are its operations, in order, and return their outputs."""

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
        """A GEMM with a matrix whose parameters another layer has."""
        out = self._layer("linear", x, width, 1, 1)
        self._operate(Operation(kind=PRODUCT, n=width, k=x.values, reads=x.values, writes=width))
        self._keep(x)
        return out

    def predict_some(self, x: Tensor, vocabulary: int, share: float, *, bias: bool = True) -> None:
        """BERT's head on the ``share`` of tokens that is masked: a GEMM, GELU, a norm, then the logits by
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

    def next_sentence(self, x: Tensor) -> None:
        """BERT's other head: the pooler of a sample's first token, and whether its halves belong together."""
        width = x.values
        self.once("pooler", width * width + width)
        self.once("next sentence", 2 * width + 2)
