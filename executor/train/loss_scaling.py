"""The scaled loss of fp16 jobs: small gradients would vanish in half precision, so all are multiplied.

As torch.amp.GradScaler does it: gradients are looked through for infinities, a step that found any is left
out, and the scale is halved after it or doubled after many that found none (Micikevicius et al. 2018,
arXiv:1710.03740, section 3.2). Written out, since ranks that hold different parameters must decide alike:
what one has found counts for all. The loss itself stays as it is: its gradient is multiplied where backward
begins, and the fused optimizer divides by the scale.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ...sim.plan.plan import Plan
from ...sim.plan.step_counts import is_unflushed
from ..model.decoder import Layers
from ..parallel.surroundings import Surroundings

FIRST_SCALE, GROWTH, BACKOFF, INTERVAL = 2.0**16, 2.0, 0.5, 2000
"""Defaults of torch.amp.GradScaler."""
look = torch._amp_foreach_non_finite_check_and_unscale_  # pyright: ignore[reportPrivateImportUsage]
update_scale = torch._amp_update_scale_  # pyright: ignore[reportPrivateImportUsage]
"""What GradScaler calls."""


def refusals(plan: Plan, surroundings: Surroundings) -> list[str]:
    """What of an fp16 job cannot be run, and why."""
    if plan.job.precision != "fp16":
        return []
    found = []
    if plan.strategy.servers:
        found.append("fp16 with parameter servers: servers know no scale of a worker's loss; run bf16")
    if plan.strategy.sharding != "ddp":
        found.append("fp16 with sharded states: run bf16, or ddp")
    if plan.strategy.offload in ("optimizer", "both"):
        found.append("fp16 with an optimizer in host memory: run bf16")
    if plan.job.model.decoder.experts:
        found.append("fp16 with experts, whose balance loss is added where no scale is: run bf16")
    if is_unflushed(plan.strategy):
        found.append(
            f"fp16 with schedule {plan.strategy.schedule}, which steps between a loss and its gradients, so "
            "that the scale may be another: run bf16"
        )
    return found


def apply(plan: Plan, layers: Iterable[Layers], optimizer: torch.optim.Optimizer) -> LossScaling | None:
    """Scale the loss of those of ``layers`` that end in one, and look after ``optimizer``'s steps, in an fp16
    job."""
    if plan.job.precision != "fp16":
        return None
    scaling = LossScaling(optimizer, alone=plan.strategy.workers == 1)
    for one in layers:
        scaling.scale_loss(one)
    return scaling


class _Scaled(torch.autograd.Function):
    """The loss unchanged, its gradient multiplied."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(scale.clone())
        return loss.view_as(loss)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (scale,) = ctx.saved_tensors
        return gradients[0] * scale, None


class LossScaling:
    """The scale of one worker's loss, as its optimizer's steps change it."""

    def __init__(self, optimizer: torch.optim.Optimizer, *, alone: bool):
        device = optimizer.param_groups[0]["params"][0].device
        self.alone = alone
        """Nobody else holds parameters of this model."""
        self.scale = torch.full((), FIRST_SCALE, device=device)
        self._growth = torch.zeros((), dtype=torch.int32, device=device)
        self._found = torch.zeros((), device=device)
        optimizer.register_step_pre_hook(self._before)
        optimizer.register_step_post_hook(self._after)

    def scale_loss(self, layers: Layers) -> None:
        """Have backward through ``layers`` begin with the scale."""
        plain = layers.loss
        layers.loss = lambda outputs, targets: _Scaled.apply(plain(outputs, targets), self.scale)  # type: ignore[assignment, return-value]

    def _before(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        """Look for what is no number in any worker's gradients, which stay as they are. A fused optimizer
        takes both from its attributes (torch/amp/grad_scaler.py, `step`)."""
        self._found.zero_()
        groups = optimizer.param_groups
        held = [p.grad for group in groups for p in group["params"] if p.grad is not None]
        if held:
            one = torch.ones_like(self._found)
            look(held, self._found, one)
        if not self.alone:
            dist.all_reduce(self._found, dist.ReduceOp.MAX)
        optimizer.grad_scale, optimizer.found_inf = self.scale, self._found  # type: ignore[attr-defined]

    def _after(self, *_: object) -> None:
        update_scale(self.scale, self._growth, self._found, GROWTH, BACKOFF, INTERVAL)
