"""Optimizer steps of a worker, after the tied gradients have met."""

from __future__ import annotations

import torch
import torch.distributed as dist

from ...sim.plan.action import Action, Kind
from ...sim.plan.plan import Plan
from ..measure.recorder import COMPUTE, Recorder
from ..model.decoder import Layers
from ..model.optimizer import make_optimizer
from ..parallel.process_groups import Groups
from .handlers import Handlers
from .passes import Passes


class Updates:
    """Steps the parameters that a worker holds."""

    def __init__(
        self, plan: Plan, rank: int, layers: Layers, groups: Groups, passes: Passes, recorder: Recorder
    ):
        self.layers, self.groups, self.passes, self.recorder = layers, groups, passes, recorder
        self.optimizer = make_optimizer(plan.job, layers.parameters())
        self.pp, self.dp, _, self.tp = plan.coordinates(rank)

    @property
    def handlers(self) -> Handlers:
        return {Kind.REDUCE_TIED: self._reduce_tied, Kind.STEP: self._step}

    def _reduce_tied(self, action: Action) -> None:
        """The embedding's matrix lives on the first and the last stage; each has part of its gradient."""
        gradient = self._tied_parameter().grad
        assert gradient is not None
        issued = self.recorder.clock.stamp()
        with self.recorder.heartbeat.waiting():
            dist.all_reduce(gradient, group=self.groups.tied)
        size = gradient.numel() * gradient.element_size()
        key = f"tied:{self.dp}:{self.tp}"
        self.recorder.add(action, "dp", issued, self.recorder.clock.stamp(), size_bytes=size, key=key)

    def _tied_parameter(self) -> torch.nn.Parameter:
        """The matrix that embedding and head share."""
        layer = self.layers.layers[0] if self.pp == 0 else self.layers.layers[-1]
        return layer.tokens.weight if self.pp == 0 else layer.output.weight  # type: ignore[union-attr, return-value]

    def _step(self, action: Action) -> None:
        self.passes.check_losses()
        issued = self.recorder.clock.stamp()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.recorder.add(action, COMPUTE, issued, self.recorder.clock.stamp())
