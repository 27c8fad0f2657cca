"""Pipeline stages: which schedules run. Stages walk the plan's own actions (`executor/train`)."""

from __future__ import annotations

from ...sim.plan.action import BACKWARDS
from ...sim.plan.plan import Plan
from ...sim.plan.schedules import is_registered
from .surroundings import Surroundings


def refusals(plan: Plan, surroundings: Surroundings) -> list[str]:
    """What of the plan's pipeline cannot be run here, with the reason."""
    strategy, found = plan.strategy, []
    if strategy.pp > 1 and is_registered(strategy.schedule):
        found.append(f"schedule {strategy.schedule}, which the ranks' own processes do not know")
    if strategy.replicas > 1 and _reduces_early(plan):
        found.append(
            f"schedule {strategy.schedule} of tied embeddings (its last stage adds to the gradient of the "
            "one matrix after its first stage has reduced it over the replicas)"
        )
    return found


def _reduces_early(plan: Plan) -> bool:
    """Whether a rank that has both ends of a pipeline is done with its first stage before its last, whose
    head shares the embedding's matrix."""
    rank, last = plan.stage_ranks[0], len(plan.stages) - 1
    if not plan.job.model.decoder.tied_embeddings or last == 0 or plan.stage_ranks[last] != rank:
        return False
    made = [part.stage for action in plan.actions[rank] for part in action.passes if part.kind in BACKWARDS]
    ends = [stage for stage in made if stage in (0, last)]
    return bool(ends) and ends[-1] == last
