"""Which plans with parameter servers cannot be run here, and why."""

from __future__ import annotations

from ...sim.plan.plan import Plan
from ..model.float8 import FP8
from ..parallel.surroundings import Surroundings
from .server_worker import HANDLED


def refusals(plan: Plan, surroundings: Surroundings) -> list[str]:
    """One sentence for each reason; none for a plan without servers, nor for what those refuse who run the
    layers. Servers use the CPU of whatever machine, so ``surroundings`` refuses nothing."""
    if not plan.strategy.servers:
        return []
    found = []
    strange = sorted({str(a.kind) for own in plan.actions for a in own} - {str(kind) for kind in HANDLED})
    if strange:
        found.append(
            f"a worker of parameter servers computes whole passes only; the plan has {', '.join(strange)}"
        )
    if plan.strategy.offload != "none":
        found.append(
            f"offload {plan.strategy.offload}: parameter servers keep optimizer states, and their workers "
            "keep activations where they compute"
        )
    if plan.job.dropout:
        found.append("dropout with parameter servers, whose workers drop nothing; run plans without")
    if plan.job.precision == FP8:
        found.append(
            "precision fp8 with parameter servers, whose workers' layers are not made for it; run bf16"
        )
    return found
