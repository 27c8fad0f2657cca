"""How often a run goes through its plan's actions: one walk is one step, or as many as the plan plays."""

from __future__ import annotations

from ...sim.plan.plan import Plan
from ...sim.plan.step_counts import steps_played


def walks(plan: Plan, steps: int) -> int:
    """Walks through the actions of ``plan`` that make at least ``steps`` optimizer steps."""
    return -(-steps // steps_of_walk(plan))


def steps_of_walk(plan: Plan) -> int:
    """Optimizer steps of one walk."""
    return steps_played(plan.strategy, plan.job)
