"""ZB-V: two stages a rank, laid out as a V, with backward in two halves (Qi et al. 2024, section 6).

No bubble where F = B = W, with the memory of 1F1B. The order is that of torch's ScheduleZBVZeroBubble.
"""

from __future__ import annotations

from collections import Counter

from ..action import Action, Actions, Kind
from ..stage_placement import there_and_back
from .descriptor import Orders, PipelineShape, Schedule


def zbv(shape: PipelineShape) -> Orders:
    """By rank; with fewer micro-batches than 2 × ``ranks`` - 1, those that it has not are left out."""
    return tuple(_rank_actions(rank, shape.ranks, shape.micro_batches) for rank in range(shape.ranks))


class _Writer:
    """Appends passes of the rank's two stages, each kind in order of micro-batch."""

    def __init__(self, rank: int, ranks: int) -> None:
        self.stages = (rank, 2 * ranks - 1 - rank)
        self.actions: list[Action] = []
        self.counts: Counter[tuple[int, Kind]] = Counter()

    def add(self, chunk: int, *kinds: Kind) -> None:
        for kind in kinds:
            self.actions.append(Action(self.stages[chunk], kind, self.counts[chunk, kind]))
            self.counts[chunk, kind] += 1

    def missing(self, chunk: int) -> int:
        """Weight gradients that are due."""
        return self.counts[chunk, Kind.INPUT_GRADIENT] - self.counts[chunk, Kind.WEIGHT_GRADIENT]


def _rank_actions(rank: int, ranks: int, micro_batches: int) -> Actions:
    writer = _Writer(rank, ranks)
    _warm_up(writer, rank, ranks)
    _steady(writer, max(2 * ranks - 1, micro_batches))
    _cool_down(writer, rank, ranks)
    return tuple(action for action in writer.actions if action.micro_batch < micro_batches)


def _warm_up(writer: _Writer, rank: int, ranks: int) -> None:
    forward, both = Kind.FORWARD, (Kind.INPUT_GRADIENT, Kind.WEIGHT_GRADIENT)
    for _ in range(2 * (ranks - rank) - 1):
        writer.add(0, forward)
    for _ in range(rank):
        writer.add(1, forward)
        writer.add(0, forward)
    for _ in range(ranks - rank):
        writer.add(1, forward, *both)


def _steady(writer: _Writer, micro_batches: int) -> None:
    forward, both = Kind.FORWARD, (Kind.INPUT_GRADIENT, Kind.WEIGHT_GRADIENT)
    counts = writer.counts
    while counts[1, forward] < counts[0, forward] or counts[0, forward] < micro_batches:
        if counts[0, forward] < micro_batches:
            writer.add(0, forward)
        writer.add(0, *both)
        writer.add(1, forward, *both)


def _cool_down(writer: _Writer, rank: int, ranks: int) -> None:
    for _ in range(rank):
        writer.add(0, Kind.INPUT_GRADIENT)
        writer.add(1, Kind.INPUT_GRADIENT)
    for _ in range(ranks - rank):
        writer.add(0, Kind.INPUT_GRADIENT, Kind.WEIGHT_GRADIENT)
    for chunk in (1, 0):
        for _ in range(writer.missing(chunk)):
            writer.add(chunk, Kind.WEIGHT_GRADIENT)


SCHEDULE = Schedule(
    name="zbv",
    place=90,
    generate=zbv,
    virtual_stages=2,
    stage_rank=there_and_back,
    splits_backward=True,
    searched_with=(2,),
)
