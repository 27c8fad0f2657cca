"""Schedules with several stages a rank, which the micro-batches visit round and round."""

from __future__ import annotations

from collections.abc import Iterable

from ..action import Action, Actions, Kind
from .rules import micro_batches_per_round


def interleaved(ranks: int, virtual_stages: int, micro_batches: int) -> tuple[Actions, ...]:
    """1F1B over model chunks, earlier micro-batches first (Narayanan et al. 2021, PTD-P, section 2.2).

    The order of torch's ScheduleInterleaved1F1B, which allows rounds of any equal length.
    """
    return tuple(_interleaved_rank(rank, ranks, virtual_stages, micro_batches) for rank in range(ranks))


def _interleaved_rank(rank: int, ranks: int, virtual_stages: int, micro_batches: int) -> Actions:
    per_round = micro_batches_per_round(ranks, micro_batches)
    forwards = _in_rounds(Kind.FORWARD, range(virtual_stages), rank, ranks, per_round, micro_batches)
    backwards = _in_rounds(
        Kind.BACKWARD, reversed(range(virtual_stages)), rank, ranks, per_round, micro_batches
    )
    # Two forwards ahead for every rank that lies behind, one there and one back.
    warmup = min((virtual_stages - 1) * per_round + 2 * (ranks - 1 - rank), len(forwards))
    steady = len(forwards) - warmup
    pairs = zip(forwards[warmup:], backwards[:steady], strict=True)
    return (*forwards[:warmup], *(action for pair in pairs for action in pair), *backwards[steady:])


def _in_rounds(
    kind: Kind, chunks: Iterable[int], rank: int, ranks: int, per_round: int, micro_batches: int
) -> list[Action]:
    """Passes of one kind: ``per_round`` micro-batches through every chunk, then the next ones."""
    in_order = list(chunks)
    return [
        Action(chunk * ranks + rank, kind, index)
        for first in range(0, micro_batches, per_round)
        for chunk in in_order
        for index in range(first, first + per_round)
    ]


def looped_bfs(ranks: int, virtual_stages: int, micro_batches: int) -> tuple[Actions, ...]:
    """All micro-batches through each stage in turn, backwards last in first out.

    Breadth-first pipeline parallelism (Lamy-Poirier 2023, section 4), in the order of torch's
    ScheduleLoopedBFS.
    """
    forward, backward = range(micro_batches), range(micro_batches - 1, -1, -1)
    rounds = range(virtual_stages)
    return tuple(
        (
            *(Action(chunk * ranks + rank, Kind.FORWARD, i) for chunk in rounds for i in forward),
            *(Action(chunk * ranks + rank, Kind.BACKWARD, i) for chunk in rounds[::-1] for i in backward),
        )
        for rank in range(ranks)
    )
