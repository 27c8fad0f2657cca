"""1F1B: warm-up forwards, then one backward for every forward.

Narayanan et al. 2019, PipeDream; 2021, PTD-P. The order of `torch.distributed.pipelining.Schedule1F1B`.
Stage s keeps at most ``ranks - s`` micro-batches in flight.
"""

from __future__ import annotations

import numpy as np

from ..action import Action, Actions, Kind
from .descriptor import Orders, PipelineShape, Schedule
from .order_arrays import OrderArrays, whole_backwards


def one_f_one_b(shape: PipelineShape) -> Orders:
    """By rank."""
    return tuple(_rank_actions(rank, shape.ranks, shape.micro_batches) for rank in range(shape.ranks))


def _rank_actions(stage: int, ranks: int, micro_batches: int) -> Actions:
    warmup = min(micro_batches, ranks - stage)
    actions = [Action(stage, Kind.FORWARD, i) for i in range(warmup)]
    for i in range(micro_batches):
        actions.append(Action(stage, Kind.BACKWARD, i))
        if warmup + i < micro_batches:
            actions.append(Action(stage, Kind.FORWARD, warmup + i))
    return tuple(actions)


def one_f_one_b_arrays(shape: PipelineShape) -> OrderArrays:
    """The same as arrays."""
    number, rank = np.arange(shape.micro_batches), np.arange(shape.ranks)[:, None]
    warmup = np.minimum(shape.micro_batches, shape.ranks - rank)
    forward = np.where(number < warmup, number, 2 * number - warmup + 1)
    backward = number + np.minimum(warmup + number, shape.micro_batches)
    return whole_backwards(forward, backward, number, np.zeros_like(number), 1)


SCHEDULE = Schedule(
    name="1f1b", place=20, generate=one_f_one_b, order_arrays=one_f_one_b_arrays, searched_with=(1,)
)
