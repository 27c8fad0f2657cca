"""A worker without parameter servers: walks its stage's actions, step by step.

What does each kind of action stands in a table (`handlers.py`), by subject: passes, messages, updates.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...sim.plan.plan import Plan
from ..measure.recorder import Recorder
from ..model.decoder import COMPILED, Layers, build_layers
from ..parallel.data import Reduction
from ..parallel.process_groups import Groups
from .handlers import Handlers, walk
from .messages import Messages
from .passes import Passes
from .stage import DTYPES, PipelinedStage, WholeModel, use_products_of
from .updates import Updates


class Trainer:
    """One worker's model, data and optimizer."""

    def __init__(
        self, plan: Plan, rank: int, device: torch.device, groups: Groups, recorder: Recorder, seed: int
    ):
        pp = plan.coordinates(rank)[0]
        use_products_of(plan.job)
        self.actions = plan.actions[pp]
        self.layers: Layers = build_layers(
            plan.job.model.decoder,
            plan.stages[pp].layer_indices,
            seed=seed,
            recompute=plan.strategy.recompute,
            recompute_blocks=plan.strategy.recompute_blocks,
            device=device,
        )
        if plan.strategy.stack == COMPILED:
            self.layers.compile_blocks()
        reduction = (
            Reduction(groups.replicas, recorder, pp, f"stage{pp}") if groups.replicas is not None else None
        )
        wrapped = reduction.wrap(self.layers, plan.stages[pp].buckets) if reduction else self.layers
        stage = _stage(plan, pp, self.layers, wrapped, groups, device)
        self.passes = Passes(plan, rank, stage, reduction, recorder, device, seed)
        self.updates = Updates(plan, rank, self.layers, groups, self.passes, recorder)
        self.messages = Messages(plan, rank, stage, recorder) if isinstance(stage, PipelinedStage) else None
        self.handlers: Handlers = {
            **self.passes.handlers,
            **self.updates.handlers,
            **(self.messages.handlers if self.messages else {}),
        }

    def train_step(self, step: int) -> float | None:
        """One step of the plan. Returns the replica's mean loss on the last stage, None elsewhere."""
        self.passes.begin_step(step)
        if self.messages:
            self.messages.begin_step(self.actions)
        walk(self.actions, self.handlers)
        if self.messages:
            self.messages.end_step()
        return self.passes.mean_loss()

    def parameters_by_layer(self) -> dict[int, list[Tensor]]:
        """A copy of what it holds, for comparison with a single process."""
        held = self.layers.layer_parameters()
        return {index: [p.detach().cpu().clone() for p in own] for index, own in held.items()}


def _stage(
    plan: Plan, pp: int, layers: Layers, wrapped: nn.Module, groups: Groups, device: torch.device
) -> PipelinedStage | WholeModel:
    """What runs ``layers``, which are ``wrapped`` where replicas reduce their gradients."""
    if plan.strategy.pp == 1:
        return WholeModel(wrapped)
    shape = (plan.strategy.micro_batch, plan.job.seq_len, plan.job.model.decoder.hidden)
    layers.boundary_dtype = DTYPES[plan.job.precision]
    boundary = torch.zeros(shape, dtype=layers.boundary_dtype, device=device)
    return PipelinedStage(
        wrapped,
        pp,
        plan.strategy.pp,
        micro_batches=plan.micro_batches,
        boundary=boundary,
        groups=groups,
    )
