"""Breadth-first pipeline: all micro-batches through each stage in turn, backwards last in first out.

Lamy-Poirier 2023, section 4, in the order of torch's ScheduleLoopedBFS.
"""

from __future__ import annotations

from ..action import Action, Kind
from .descriptor import Orders, PipelineShape, Schedule


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


SCHEDULE = Schedule(name="loopedbfs", place=40, generate=looped_bfs, virtual_stages=None)
