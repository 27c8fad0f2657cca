"""Forwards and backwards of a worker's stage, with the loss where the stage is the last."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ...sim.errors import RunError
from ...sim.plan.action import Action, Kind
from ...sim.plan.blocks import reduced_backwards
from ...sim.plan.plan import Plan
from ..measure.recorder import COMPUTE, Recorder
from ..model.data.text import Text
from ..parallel.data import Reduction
from .handlers import Handlers
from .stage import PipelinedStage, WholeModel, mean_loss, precision


class Passes:
    """Computes the plan's passes; DDP reduces gradients inside the backwards that a REDUCE_GRAD follows."""

    def __init__(
        self,
        plan: Plan,
        rank: int,
        stage: PipelinedStage | WholeModel,
        reduction: Reduction | None,
        recorder: Recorder,
        device: torch.device,
        seed: int,
    ):
        self.plan, self.stage, self.reduction = plan, stage, reduction
        self.recorder, self.device, self.text = recorder, device, Text(plan.job, seed)
        pp, self.dp, _, _ = plan.coordinates(rank)
        self.has_loss = pp == plan.strategy.pp - 1
        actions = plan.actions[pp]
        self.reducing = {actions[place].micro_batch for place in reduced_backwards(actions)}
        """Micro-batches whose backward reduces gradients."""

    @property
    def handlers(self) -> Handlers:
        return {
            Kind.FORWARD: self._forward,
            Kind.BACKWARD: self._backward,
            Kind.REDUCE_GRAD: self._reduced,
        }

    def begin_step(self, step: int) -> None:
        """Take the samples of ``step``."""
        strategy = self.plan.strategy
        self.batches = self.text.micro_batches(step, self.dp, strategy.dp, strategy.micro_batch)
        self.losses: dict[int, Tensor] = {}
        self.stage.begin_step()

    def mean_loss(self) -> float | None:
        """Of the replica's samples in this step, on the last stage; None elsewhere."""
        return sum(float(part) for part in self.losses.values()) if self.losses else None

    def check_losses(self) -> None:
        """Nothing is learned from a loss that is no number."""
        for index, loss in self.losses.items():
            if not torch.isfinite(loss):
                raise RunError(f"loss of micro-batch {index} is {float(loss)} at step {self.recorder.step}")

    def _forward(self, action: Action) -> None:
        inputs, targets = self.batches[action.micro_batch]
        issued = self.recorder.clock.stamp()
        with precision(self.plan.job, self.device), self._no_sync(action):
            out = self.stage.forward(action.micro_batch, inputs.to(self.device))
            if self.has_loss:
                self.losses[action.micro_batch] = mean_loss(
                    out, targets.to(self.device), self.plan.micro_batches
                )
        self.recorder.add(action, COMPUTE, issued, self.recorder.clock.stamp())

    def _no_sync(self, action: Action) -> AbstractContextManager[object]:
        """Gradients of other micro-batches only add up. A pipeline's stage sees to it itself."""
        module = self.stage.module if isinstance(self.stage, WholeModel) else None
        if isinstance(module, DistributedDataParallel) and action.micro_batch not in self.reducing:
            return module.no_sync()
        return nullcontext()

    def _backward(self, action: Action) -> None:
        issued = self.recorder.clock.stamp()
        if self.reduction:
            self.reduction.begin_backward()
        loss = self.losses.get(action.micro_batch)
        with self._no_sync(action):
            self.stage.backward(action.micro_batch, loss, action.micro_batch in self.reducing)
        if self.reduction:
            self.reduction.end_backward()
        if loss is not None:
            self.losses[action.micro_batch] = loss.detach()
        # DDP waits for its reductions inside backward; compute is over once the last one is issued.
        reduced = self.reduction.issued_last if self.reduction else None
        self.recorder.add(action, COMPUTE, issued, reduced or self.recorder.clock.stamp())

    def _reduced(self, action: Action) -> None:
        """DDP has reduced its buckets inside the backward before it, and noted them itself."""
