"""Interleaved 1F1B: 1F1B over model chunks, earlier micro-batches first (Narayanan et al. 2021, section 2.2).

The order of torch's ScheduleInterleaved1F1B, which allows rounds of any equal length.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ...errors import Fault
from ..action import Action, Actions, Kind
from .descriptor import Orders, PipelineShape, Schedule
from .order_arrays import OrderArrays, whole_backwards


def interleaved(shape: PipelineShape) -> Orders:
    """By rank."""
    return tuple(_rank_actions(rank, shape) for rank in range(shape.ranks))


def _per_round(shape: PipelineShape) -> int:
    """Micro-batches that go through one stage of a rank before its next stage: about as many as there are
    ranks."""
    return shape.micro_batches // max(1, shape.micro_batches // shape.ranks)


def _rank_actions(rank: int, shape: PipelineShape) -> Actions:
    chunks = range(shape.virtual_stages)
    forwards = _in_rounds(Kind.FORWARD, chunks, rank, shape)
    backwards = _in_rounds(Kind.BACKWARD, reversed(chunks), rank, shape)
    # Two forwards ahead for every rank that lies behind, one there and one back.
    ahead = (shape.virtual_stages - 1) * _per_round(shape) + 2 * (shape.ranks - 1 - rank)
    warmup = min(ahead, len(forwards))
    steady = len(forwards) - warmup
    pairs = zip(forwards[warmup:], backwards[:steady], strict=True)
    return (*forwards[:warmup], *(action for pair in pairs for action in pair), *backwards[steady:])


def _in_rounds(kind: Kind, chunks: Iterable[int], rank: int, shape: PipelineShape) -> list[Action]:
    """Passes of one kind: a round's micro-batches through every chunk, then the next ones."""
    in_order, per_round = list(chunks), _per_round(shape)
    return [
        Action(chunk * shape.ranks + rank, kind, index)
        for first in range(0, shape.micro_batches, per_round)
        for chunk in in_order
        for index in range(first, first + per_round)
    ]


def interleaved_arrays(shape: PipelineShape) -> OrderArrays:
    """The same as arrays."""
    per_round, chunks = _per_round(shape), shape.virtual_stages
    total = chunks * shape.micro_batches
    number, rank = np.arange(total), np.arange(shape.ranks)[:, None]
    warmup = np.minimum(total, (chunks - 1) * per_round + 2 * (shape.ranks - 1 - rank))
    forward = np.where(number < warmup, number, 2 * number - warmup)
    backward = np.where(number < total - warmup, warmup + 2 * number + 1, total + number)
    micro_batch = number // (per_round * chunks) * per_round + number % per_round
    return whole_backwards(forward, backward, micro_batch, number // per_round % chunks, chunks)


def rules(shape: PipelineShape) -> list[Fault]:
    """Rounds of equal length, as torch's ScheduleInterleaved1F1B demands them."""
    rounds = max(1, shape.micro_batches // max(1, shape.ranks))
    if shape.micro_batches % rounds == 0:
        return []
    expected = f"a multiple of {rounds} (rounds of the {shape.ranks} ranks) with schedule interleaved"
    return [shape.micro_batch_fault(expected)]


SCHEDULE = Schedule(
    name="interleaved",
    place=30,
    generate=interleaved,
    order_arrays=interleaved_arrays,
    virtual_stages=None,
    rules=rules,
    # More virtual stages send more messages than the bubble they save is worth, but for deep pipelines.
    searched_with=(2, 3, 4),
)
