"""What a named network computes, call by call: recorded while the very builder runs that its costs come from.

The simulator builds a network by calling a `Builder` operation by operation, which keeps the books of
layers, parameters and traffic. Here the same calls are noted as they are made, with the tensors that they
read and give, so that torch can make them again: the module and its description cannot drift apart.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, wraps
from typing import Any

from ....sim.model.networks.builder import Builder
from ....sim.model.networks.graph import Tensor
from ....sim.model.networks.network import Network
from ....sim.model.networks.presets import NETWORKS

INPUTS = ("image", "features")
LOOKUPS = ("lookup", "shared_lookup")
OPERATIONS = (
    *INPUTS, *LOOKUPS, "conv", "linear", "shared_linear", "lstm", "attention", "scored_attention",
    "interactions", "batch_norm", "layer_norm", "relu", "gelu", "sigmoid", "dropout", "add", "concat",
    "max_pool", "average_pool", "global_pool", "next_sentence", "predict_some", "loss",
)  # fmt: skip
"""Methods of a Builder that compute something."""
LOSSES = ("loss", "predict_some", "next_sentence")
KEEPS_PLACES = (
    "image", "conv", "batch_norm", "relu", "sigmoid", "gelu", "dropout", "add", "concat", "max_pool",
    "average_pool", "global_pool",
)  # fmt: skip
"""Operations whose output is an image where their input is one."""


@dataclass(eq=False, slots=True)
class Call:
    """One operation of a network."""

    name: str
    layer: int
    """The layer of the plan that it belongs to; -1 are inputs."""
    reads: tuple[Tensor, ...]
    writes: Tensor | None
    """None for losses."""
    arguments: dict[str, Any]
    """The others, by name, defaults included."""
    columns: slice = field(default_factory=lambda: slice(0, 0))
    """Of an input or look-up: its columns among the inputs of a sample or token."""
    whole: bool = False
    """Of an image: all of the inputs."""


Value = Tensor | Call
"""What may be passed from layer to layer: a tensor, or the output of a loss's own layers."""


class RecordingBuilder(Builder):
    """A Builder that notes its calls; those that it makes of itself are part of the one that it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.is_inside = False

    def note(self, name: str, arguments: dict[str, Any], out: Tensor | None) -> None:
        """One call, made."""
        reads, others = [], {}
        for key, value in arguments.items():
            given = value if isinstance(value, tuple) else (value,)
            if given and all(isinstance(one, Tensor) for one in given):
                reads += given
            else:
                others[key] = value
        layer = -1 if name in INPUTS else len(self._parts) - 1
        self.calls.append(Call(name, layer, tuple(reads), out, others))

    def crossing(self, layer: int) -> list[Tensor]:
        """Tensors that are made up to ``layer`` and read behind it, in the order in which they were made."""
        return [tensor for tensor in self._tensors if self._crosses(tensor, layer)]


def _recording(name: str) -> Callable[..., Any]:
    method = getattr(Builder, name)
    signature = inspect.signature(method)

    @wraps(method)
    def record(self: RecordingBuilder, *args: Any, **kwargs: Any) -> Any:
        if self.is_inside:
            return method(self, *args, **kwargs)
        self.is_inside = True
        try:
            out = method(self, *args, **kwargs)
        finally:
            self.is_inside = False
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        self.note(name, {key: value for key, value in bound.arguments.items() if key != "self"}, out)
        return out

    return record


for _name in OPERATIONS:
    setattr(RecordingBuilder, _name, _recording(_name))


@dataclass(frozen=True, kw_only=True, eq=False)
class Program:
    """A network and the calls that it was built by."""

    network: Network
    calls: tuple[Call, ...]
    crossing: tuple[tuple[Tensor, ...], ...]
    """By layer: what crosses the cut behind it."""

    def of_layer(self, index: int) -> list[Call]:
        """The calls of one layer, in order."""
        return [call for call in self.calls if call.layer == index]

    @cached_property
    def inputs(self) -> dict[Tensor, Call]:
        """The calls that give inputs, by their tensors."""
        return {call.writes: call for call in self.calls if call.name in INPUTS and call.writes is not None}

    @cached_property
    def images(self) -> set[Tensor]:
        """Tensors that have height and width."""
        found: set[Tensor] = set()
        for call in self.calls:
            is_image = call.name == "image" or any(tensor in found for tensor in call.reads)
            if call.writes is not None and call.name in KEEPS_PLACES and is_image:
                found.add(call.writes)
        return found

    @cached_property
    def losses(self) -> tuple[Call, ...]:
        """The calls whose outputs the loss is of; the last is the network's own, others are beside it."""
        return tuple(call for call in self.calls if call.name in LOSSES)

    def carried(self, layer: int) -> tuple[Value, ...]:
        """What goes on from ``layer`` to the next: what crosses the cut, then outputs that wait for the
        loss. Behind the last it is the outputs alone."""
        waiting = tuple(call for call in self.losses if call.layer <= layer)
        return (*self.crossing[layer], *waiting)

    @cached_property
    def width(self) -> int:
        """Columns of the inputs of a sample, or of each of its tokens; 0 for an image."""
        return max((call.columns.stop for call in self.calls), default=0)

    @cached_property
    def table(self) -> Call | None:
        """The look-up whose table other layers share: the first one."""
        return next((call for call in self.calls if call.name == "lookup"), None)

    @cached_property
    def sharing(self) -> tuple[Call, ...]:
        """The calls that use that table too."""
        names = ("shared_lookup", "shared_linear", "predict_some")
        return tuple(call for call in self.calls if call.name in names)


@lru_cache(maxsize=16)
def program_of(name: str) -> Program | None:
    """The program of the preset ``name``; None where there is no such preset."""
    if name not in NETWORKS:
        return None
    builder = RecordingBuilder()
    network = NETWORKS[name][0](builder)
    _number_columns(builder.calls)
    crossing = tuple(tuple(builder.crossing(layer)) for layer in range(len(network.parts)))
    return Program(network=network, calls=tuple(builder.calls), crossing=crossing)


def _number_columns(calls: list[Call]) -> None:
    """Inputs lie next to each other in the order in which the network asks for them."""
    place = 0
    for call in calls:
        is_image = call.name == "image"
        if is_image:
            call.whole = True
        elif call.name == "features" or call.name in LOOKUPS:
            count = call.arguments.get("count", 1)  # of numbers, or of rows looked up
            call.columns = slice(place, place + count)
            place += count
