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
from ..parallel import offload, sharded
from ..parallel.process_groups import Groups
from ..parallel.rank_context import RankContext
from .handlers import Handlers, walk
from .messages import Messages
from .passes import Passes
from .stage import use_products_of
from .stages import HeldStage, boundaries, share_table
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
        layers = {index: held.layers for index, held in self.stages.items()}
        share_table(layers, plan)
        sharding, activations = sharded.apply(layers, here), offload.apply(layers, here)
        for held in self.stages.values():
            held.share(sharding, activations)
        self.messages = Messages(here, boundaries(here)) if len(plan.stages) > 1 else None
        self.passes = Passes(here, self.stages, self.messages)
        self.updates = Updates(here, self.stages, self.passes, sharding, keeps_gradients)
        self.handlers: Handlers = {
            **(sharding.handlers if sharding else {}),
            **(activations.handlers if activations else {}),
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
        held = [stage.parameters() for stage in self.stages.values()]
        return {
            "parameters": {name: p.cpu().clone() for own in held for name, p in own.items()},
            "gradients": self.updates.gradients,
            "pieces": {
                name: piece
                for stage in self.stages.values()
                for name, piece in stage.layers.named_pieces().items()
            },
        }

    def expert_loads(self) -> dict[int, list[int]]:
        """By layer with experts: how many tokens of this rank were for each expert, in all steps."""
        return {i: one for held in self.stages.values() for i, one in held.layers.expert_loads().items()}
