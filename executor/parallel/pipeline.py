"""Pipeline stages: which schedules run. Stages walk the plan's own actions (`executor/train`)."""

from __future__ import annotations

from ...sim.plan.plan import Plan
from ...sim.plan.schedules import is_registered
from .surroundings import Surroundings


def refusals(plan: Plan, surroundings: Surroundings) -> list[str]:
    """What of the plan's pipeline cannot be run here, with the reason."""
    strategy = plan.strategy
    if strategy.pp > 1 and is_registered(strategy.schedule):
        return [f"schedule {strategy.schedule}, which the ranks' own processes do not know"]
    return []
