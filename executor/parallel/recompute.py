"""Recomputation under the other parallelisms: what of it cannot be run.

The policies themselves are built into the layers (`executor/model/recompute.py`).
"""

from __future__ import annotations

from ...sim.plan.joined_backward import has_halves
from ...sim.plan.plan import Plan
from ..model.decoder import COMPILED
from .surroundings import Surroundings


def refusals(plan: Plan, surroundings: Surroundings) -> list[str]:
    """What of the recomputation of ``plan`` cannot be run, with the reason."""
    strategy, decoder = plan.strategy, plan.job.model.decoder
    found = []
    if strategy.recompute == "selective_op":
        if decoder.experts or decoder.kv_rank:
            found.append(
                "recompute selective_op of experts or latents (which of their GEMMs it keeps is settled for "
                "dense blocks alone)"
            )
        if strategy.sequence_parallel or strategy.cp > 1:
            found.append(
                "recompute selective_op with sequence or context parallelism (what they exchange would have "
                "to be kept, but is no operation of torch's that a policy sees)"
            )
    if strategy.recompute == "selective" and strategy.stack == COMPILED and has_halves(plan.actions):
        found.append(
            f"recompute selective under {COMPILED} with schedule {strategy.schedule} (a compiled block is "
            "checkpointed by torch, whose checkpoint cannot be differentiated in halves)"
        )
    return found
