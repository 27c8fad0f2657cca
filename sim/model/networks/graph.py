"""A network while it is built: its tensors, and what they make of its layers.

Tensors are followed: what backward wants again is kept, once, by the layer that made it, and what later
layers read crosses the cuts between. Where a tensor has several readers, backward adds up their gradients.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .network import MEMORY, Network, NetworkLayer, Operation

FLOAT_BYTES = 4


@dataclass(eq=False, slots=True)
class Tensor:
    """Values of one token while the network is built."""

    channels: int
    height: int = 1
    width: int = 1
    part: int = -1
    """The layer that made it; -1 is an input."""
    readers: list[int] = field(default_factory=list)
    """The layers that read it."""
    kept: bool = False

    @property
    def values(self) -> int:
        return self.channels * self.height * self.width


@dataclass(eq=False, slots=True)
class _Part:
    """A layer while it is built."""

    name: str
    parameters: int = 0
    operations: list[Operation] = field(default_factory=list)
    kept: float = 0.0
    kept_bytes: float = 0.0


class Graph:
    """The books of one network; `Builder` has its operations."""

    def __init__(self) -> None:
        self._parts: list[_Part] = []
        self._tensors: list[Tensor] = []
        self._input_bytes = 0.0

    # Inputs and the end

    def image(self, channels: int, height: int, width: int) -> Tensor:
        """An image, which comes from the host in fp32."""
        self._input_bytes += FLOAT_BYTES * channels * height * width
        return self._tensor(channels, height, width, part=-1)

    def features(self, count: int) -> Tensor:
        """A row of numbers."""
        return self.image(count, 1, 1)

    def network(self, *, max_tokens: int = 1, classes: int = 0) -> Network:
        """What was built."""
        for tensor in self._tensors:
            self._add_up_gradients(tensor)
        parts = tuple(
            NetworkLayer(
                name=part.name,
                parameters=part.parameters,
                operations=tuple(part.operations),
                kept=part.kept,
                kept_bytes=part.kept_bytes,
                passed=float(sum(t.values for t in self._tensors if self._crosses(t, index))),
            )
            for index, part in enumerate(self._parts)
        )
        return Network(parts=parts, max_tokens=max_tokens, classes=classes, input_bytes=self._input_bytes)

    def _crosses(self, tensor: Tensor, index: int) -> bool:
        """Whether ``tensor`` is made up to layer ``index`` and read behind it; inputs are loaded anywhere."""
        return 0 <= tensor.part <= index < max(tensor.readers, default=-1)

    def _add_up_gradients(self, tensor: Tensor) -> None:
        extra = len(tensor.readers) - 1
        if tensor.part >= 0 and extra > 0:
            moved = 3.0 * extra * tensor.values
            self._parts[tensor.part].operations.append(
                Operation(kind=MEMORY, name="accumulate", moved_back=moved)
            )

    def _tensor(self, channels: int, height: int = 1, width: int = 1, *, part: int | None = None) -> Tensor:
        made_in = len(self._parts) - 1 if part is None else part
        tensor = Tensor(channels, height, width, part=made_in)
        self._tensors.append(tensor)
        return tensor

    def _shaped_like(self, x: Tensor) -> Tensor:
        return self._tensor(x.channels, x.height, x.width)

    def _replaced(self, x: Tensor) -> Tensor:
        """Where an operation works in place its input is no more; others that read it read the output."""
        self._tensors.remove(x)
        out = self._shaped_like(x)
        out.readers = list(x.readers)
        out.kept = x.kept
        return out

    def _layer(self, name: str, x: Tensor | None, channels: int, height: int, width: int) -> Tensor:
        """A new layer that reads ``x``, and its output."""
        self._parts.append(_Part(f"{name}{len(self._parts)}"))
        if x is not None:
            self._read(x)
        return self._tensor(channels, height, width)

    def _read(self, x: Tensor) -> None:
        x.readers.append(len(self._parts) - 1)

    def _weigh(self, operation: Operation, bias: int = 0) -> None:
        self._parts[-1].parameters += operation.weights + bias
        self._operate(operation)

    def _move(self, name: str, *, forward: float, backward: float) -> None:
        self._operate(Operation(kind=MEMORY, name=name, moved=float(forward), moved_back=float(backward)))

    def _operate(self, operation: Operation) -> None:
        self._parts[-1].operations.append(operation)

    def _keep(self, x: Tensor) -> None:
        """For backward, by the layer that made it; inputs by the one that reads them."""
        if not x.kept:
            x.kept = True
            self._parts[max(0, x.part)].kept += x.values
