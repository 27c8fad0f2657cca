"""The words that fields and arguments may have."""

from __future__ import annotations

from collections.abc import Mapping

from ..network.algorithms import OPERATIONS
from ..plan import choices
from ..plan.job import OPTIMIZER_STATES
from ..plan.mixed_precision import PRECISION_BYTES
from ..plan.software_stacks import STACKS

CHOICES: Mapping[str, tuple[str, ...]] = {
    "recompute": choices.RECOMPUTES,
    "attention": choices.ATTENTIONS,
    "stack": tuple(STACKS),
    "sharding": choices.SHARDINGS,
    "cp_exchange": choices.CP_EXCHANGES,
    "offload": choices.OFFLOADS,
    "gradient_exchange": choices.GRADIENT_EXCHANGES,
    "collective_algorithm": choices.COLLECTIVE_ALGORITHMS,
    "expert_dispatch": choices.EXPERT_DISPATCHES,
    "routing": choices.ROUTINGS,
    "optimizer": tuple(OPTIMIZER_STATES),
    "precision": tuple(PRECISION_BYTES),
    "operation": (*OPERATIONS, "send_recv"),
    "engine": ("compiled", "simpy"),
    "detail": ("formula", "flow"),
    "network": ("closed-form", "flow"),
}
"""By field of Strategy or Job, or by argument: every word there is."""
