"""How many optimizer steps one plan plays: one, those between two averages, or enough to fill a pipeline."""

from __future__ import annotations

from .job import Job
from .schedules import find_schedule
from .strategy import Strategy

STEADY_STEPS = 4
"""Steps with a full pipeline that a plan of a schedule without flush plays."""


def steps_played(strategy: Strategy, job: Job) -> int:
    """Optimizer steps' worth of micro-batches that one plan plays: those between two averages; or, in a
    pipeline that is never drained, enough to see it full."""
    name, count = strategy.protocol
    if name == "local":
        return max(1, count)
    return STEADY_STEPS + 2 * filling_steps(strategy, job) if is_unflushed(strategy) else 1


def is_unflushed(strategy: Strategy) -> bool:
    """Whether the pipeline is never drained."""
    return find_schedule(strategy.schedule).unflushed is not None and strategy.pp > 1


def filling_steps(strategy: Strategy, job: Job) -> int:
    """Steps in which a pipeline that is never drained fills, and in which it would empty."""
    return -(-2 * strategy.pp // strategy.micro_batches(job))
