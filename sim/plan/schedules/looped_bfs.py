"""Breadth-first pipeline: all micro-batches through each stage in turn, backwards last in first out.

Lamy-Poirier 2023, section 4, in the order of torch's ScheduleLoopedBFS.
"""

from __future__ import annotations

import numpy as np

from ..action import Action, Kind
from .descriptor import Orders, PipelineShape, Schedule
from .order_arrays import OrderArrays, whole_backwards


def looped_bfs(shape: PipelineShape) -> Orders:
    """By rank."""
    indices = range(shape.micro_batches)
    return tuple(
        (
            *(Action(stage, Kind.FORWARD, i) for stage in held for i in indices),
            *(Action(stage, Kind.BACKWARD, i) for stage in held[::-1] for i in indices[::-1]),
        )
        for held in (range(rank, shape.stages, shape.ranks) for rank in range(shape.ranks))
    )


def looped_bfs_arrays(shape: PipelineShape) -> OrderArrays:
    """The same as arrays."""
    number = np.arange(shape.virtual_stages * shape.micro_batches)
    chunk, micro_batch = np.divmod(number, shape.micro_batches)
    mirrored = number - micro_batch + shape.micro_batches - 1 - micro_batch
    forward, backward = (
        np.broadcast_to(places, (shape.ranks, len(number))) for places in (number, len(number) + mirrored)
    )
    return whole_backwards(forward, backward, micro_batch, chunk, shape.virtual_stages)


SCHEDULE = Schedule(
    name="loopedbfs",
    place=40,
    generate=looped_bfs,
    order_arrays=looped_bfs_arrays,
    virtual_stages=None,
)
