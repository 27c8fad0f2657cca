"""A worker without parameter servers: walks its rank's actions, step by step.

What does each kind of action stands in a table (`handlers.py`), by subject: passes, messages, updates.
"""

from __future__ import annotations

from typing import Any

import torch

from ...sim.plan.plan import Plan
from ...sim.plan.step_counts import steps_played
from ..measure.recorder import Recorder
from ..model.workload import Workload
from ..parallel.process_groups import Groups
from ..parallel.rank_context import RankContext
from .handlers import Handlers, walk
from .messages import Messages
from .passes import Passes
from .stage import use_products_of
from .stages import HeldStage, boundaries
from .updates import Updates


class Trainer:
    """One worker's stages, data and optimizer."""

    def __init__(
        self,
        plan: Plan,
        rank: int,
        device: torch.device,
        groups: Groups,
        recorder: Recorder,
        *,
        workload: Workload,
        keeps_gradients: bool = False,
    ):
        """With ``keeps_gradients`` the gradients of the last step are there when training is over."""
        here = RankContext(
            plan=plan, rank=rank, device=device, groups=groups, recorder=recorder, workload=workload
        )
        pp = plan.coordinates(rank)[0]
        use_products_of(plan.job)
        self.actions = plan.actions[pp]
        self.steps = steps_played(plan.strategy, plan.job)
        """Optimizer steps of one walk through the actions."""
        self.stages = {stage.index: HeldStage(stage, here) for stage in plan.rank_stages(pp)}
        self.messages = Messages(here, boundaries(here)) if len(plan.stages) > 1 else None
        self.passes = Passes(here, self.stages, self.messages)
        self.updates = Updates(here, self.stages, self.passes, keeps_gradients)
        self.handlers: Handlers = {
            **self.passes.handlers,
            **self.updates.handlers,
            **(self.messages.handlers if self.messages else {}),
        }

    def walk(self, number: int) -> list[float]:
        """One walk through the plan's actions, the ``number``-th. Returns the replica's mean loss of each of
        its steps on the rank of the last stage, nothing elsewhere."""
        self.passes.begin_step(range(number * self.steps, (number + 1) * self.steps))
        if self.messages:
            self.messages.begin_step()
        walk(self.actions, self.handlers)
        if self.messages:
            self.messages.end_step()
        return self.passes.mean_losses()

    def kept_state(self) -> dict[str, dict[str, Any]]:
        """Copies of the parameters that it holds and of their last gradients, by name (`Layers.named`), and
        which pieces of whole parameters they are."""
        layers = [held.layers for held in self.stages.values()]
        named = {name: p for own in layers for name, p in own.named().items()}
        return {
            "parameters": {name: p.detach().cpu().clone() for name, p in named.items()},
            "gradients": self.updates.gradients,
            "pieces": {name: piece for own in layers for name, piece in own.named_pieces().items()},
        }

    def expert_loads(self) -> dict[int, list[int]]:
        """By layer with experts: how many tokens of this rank were for each expert, in all steps."""
        return {i: one for held in self.stages.values() for i, one in held.layers.expert_loads().items()}
