"""Where one worker stands in a plan: its rank, device and process groups, and who takes its notes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ...sim.plan.plan import Plan
from ..measure.recorder import Recorder
from ..model.workload import Workload
from .process_groups import Groups
from .wire import Wire


@dataclass(frozen=True, kw_only=True)
class RankContext:
    """What every parallelism's `apply` is given."""

    plan: Plan
    rank: int
    device: torch.device
    groups: Groups
    recorder: Recorder
    workload: Workload

    def wire(self, name: str) -> Wire:
        """Collectives of this rank's group ``name`` (a field of `Groups`), noted on the stream ``name``, or
        `dp` where it is a group of replicas."""
        group = getattr(self.groups, name)
        stream = name if name in ("tp", "cp", "ep", "pp") else "dp"
        return Wire(name, stream, group, self.recorder)
