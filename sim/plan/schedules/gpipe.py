"""GPipe: all forwards, then all backwards (Huang et al. 2019, section 2.3).

Backwards run in order of micro-batch, as `torch.distributed.pipelining.ScheduleGPipe` does.
"""

from __future__ import annotations

import numpy as np

from ..action import Action, Kind
from .descriptor import Orders, PipelineShape, Schedule
from .order_arrays import OrderArrays, whole_backwards


def gpipe(shape: PipelineShape) -> Orders:
    """By rank."""
    indices = range(shape.micro_batches)
    return tuple(
        tuple(Action(stage, kind, i) for kind in (Kind.FORWARD, Kind.BACKWARD) for i in indices)
        for stage in range(shape.ranks)
    )


def gpipe_arrays(shape: PipelineShape) -> OrderArrays:
    """The same as arrays."""
    number = np.arange(shape.micro_batches)
    forward = np.broadcast_to(number, (shape.ranks, shape.micro_batches))
    return whole_backwards(forward, forward + shape.micro_batches, number, np.zeros_like(number), 1)


SCHEDULE = Schedule(name="gpipe", place=10, generate=gpipe, order_arrays=gpipe_arrays, searched_with=(1,))
