"""What the machine at hand has, as far as it decides which plans can be run."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from ...sim.plan.plan import Plan
from .process_groups import device_kind, devices


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """The machine, for one plan."""

    kind: str
    """`cpu` or `gpu`: where the plan's ranks would compute."""
    devices: tuple[str, ...] = ()
    """Names of the GPUs at hand."""
    capability: tuple[int, int] = (0, 0)
    """Compute capability of the first GPU."""
    cores: int = 1
    """Cores that this process may use."""

    @classmethod
    def of(cls, plan: Plan) -> Surroundings:
        """The machine at hand, as ``plan`` would use it."""
        return cls(
            kind=device_kind(plan),
            devices=tuple(devices()),
            capability=torch.cuda.get_device_capability() if torch.cuda.is_available() else (0, 0),
            cores=len(os.sched_getaffinity(0)),
        )
