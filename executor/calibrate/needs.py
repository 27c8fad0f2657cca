"""What a calibration is asked to measure: layers as they are divided, transports by size, optimizer steps.

Plain values. `lab/needs.py` derives them from plans.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ...sim.model.decoder import NO_DECODER, Decoder

MOST_SIZES = 6
"""Sizes of one communication that are measured; what lies between is read off the curve."""
APART = 1.5
"""Sizes that differ by less than this factor are measured as one, the larger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerNeed:
    """The layers of one model, divided one way, at one micro-batch."""

    decoder: Decoder = NO_DECODER
    trained: str = ""
    """Another model with what it is trained on, as `trained.py` writes it."""
    seq_len: int
    micro_batch: int
    tp: int = 1
    sequence_parallel: bool = False
    cp: int = 1
    cp_exchange: str = ""
    ep: int = 1
    splits_backward: bool = False
    """Whether the halves of a backward are measured by themselves too."""

    @property
    def sharing(self) -> int:
        """Ranks that share each layer; 1 where they do so along several dimensions at once."""
        degrees = [degree for degree in (self.tp, self.cp, self.ep) if degree > 1]
        return degrees[0] if len(degrees) == 1 else 1

    @property
    def title(self) -> str:
        """A few words for who waits."""
        degrees = (("tp", self.tp), ("cp", self.cp), ("ep", self.ep))
        divided = "".join(f" {name} {degree}" for name, degree in degrees if degree > 1)
        which = f"layers of width {self.decoder.hidden}" if self.decoder.layers else "layers"
        return f"{which}, micro-batch {self.micro_batch}{divided}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportNeed:
    """One communication of one number of ranks."""

    operation: str
    ranks: int
    sizes: tuple[int, ...] = ()
    """Bytes; empty for the usual ones, from some to tens of millions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerNeed:
    """Steps of an optimizer over the layers of a model."""

    decoder: Decoder = NO_DECODER
    trained: str = ""
    optimizer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryNeed:
    """How much a process holds that trains a model by itself."""

    decoder: Decoder = NO_DECODER
    trained: str = ""
    seq_len: int
    micro_batch: int
    micro_batches: int
    """Of a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """All that is to be measured."""

    layers: tuple[LayerNeed, ...]
    transports: tuple[TransportNeed, ...] = ()
    optimizers: tuple[OptimizerNeed, ...] = ()
    memories: tuple[MemoryNeed, ...] = ()
    ranks: tuple[int, ...] = ()
    """Numbers of ranks that compute at once, above 1."""

    @property
    def world_size(self) -> int:
        """Processes that it takes."""
        of_layers = (one.sharing for one in self.layers)
        return max([1, *self.ranks, *(one.ranks for one in self.transports), *of_layers])


def thinned(sizes: Iterable[float]) -> tuple[int, ...]:
    """At most `MOST_SIZES` of ``sizes``, `APART` or more apart, with the smallest and the largest."""
    kept: list[int] = []
    for size in sorted({max(4, round(size)) for size in sizes}, reverse=True):
        if not kept or size * APART <= kept[-1]:
            kept.append(size)
    kept.reverse()
    if len(kept) <= MOST_SIZES:
        return tuple(kept)
    last = len(kept) - 1
    places = {round(number * last / (MOST_SIZES - 1)) for number in range(MOST_SIZES)}
    return tuple(kept[place] for place in sorted(places))
