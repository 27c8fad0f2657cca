"""Optimizer steps of a worker, and what its gradients and parameters go through at the end of a step."""

from __future__ import annotations

import torch

from ...sim.plan.action import Action, Kind
from ..measure.recorder import COMPUTE
from ..model.optimizer import make_optimizer
from ..parallel.data import average
from ..parallel.offload import on_host
from ..parallel.rank_context import RankContext
from ..parallel.sharded import Sharding
from ..parallel.tensor import sum_whole_gradients
from . import loss_scaling
from .handlers import Handlers
from .passes import Passes
from .stages import HeldStage


class Updates:
    """Reduces the gradients and steps the parameters that a worker holds."""

    def __init__(
        self,
        here: RankContext,
        stages: dict[int, HeldStage],
        passes: Passes,
        sharding: Sharding | None,
        keeps_gradients: bool,
    ):
        self.here, self.stages, self.passes, self.recorder = here, stages, passes, here.recorder
        trained = (p for held in stages.values() for p in held.layers.parameters() if p.requires_grad)
        parameters = list(dict.fromkeys(trained))
        if sharding is not None:
            parameters = sharding.parameters()
        self.optimizer = on_host(here.plan, make_optimizer(here.plan.job, parameters))
        loss_scaling.apply(here.plan, [held.layers for held in stages.values()], self.optimizer)
        self.keeps_gradients = keeps_gradients
        self.gradients: dict[str, torch.Tensor] = {}
        """Those of the last step, by name, for who asked to keep them."""

    @property
    def handlers(self) -> Handlers:
        return {
            Kind.REDUCE_GRAD: self._reduce,
            Kind.REDUCE_TIED: self._reduce_tied,
            Kind.STEP: self._step,
            Kind.AVERAGE: self._average,
        }

    def _reduce(self, action: Action) -> None:
        """Backward has started most of them; what it could not is started here."""
        buckets = self.stages[action.stage].buckets
        buckets.reduce(action.bucket)
        if not self.here.plan.strategy.overlap_gradients:
            buckets.finish()

    def _reduce_tied(self, action: Action) -> None:
        """The embedding's matrix lives on the first and the last stage; each has part of its gradient."""
        self._finish()
        self.recorder.current = action
        self.here.wire("tied").all_reduce(self.stages[action.stage].tied_gradient()).wait()

    def _step(self, action: Action) -> None:
        self.passes.check_losses()
        self._finish()
        self.recorder.current = action
        for held in self.stages.values():
            sum_whole_gradients(held.summands(), self.here)
        issued = self.recorder.clock.stamp()
        for held in self.stages.values():
            held.stage.before_update()
            if self.keeps_gradients:
                self.gradients |= {name: g.detach().cpu().clone() for name, g in held.gradients().items()}
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.recorder.add(action, COMPUTE, issued, self.recorder.clock.stamp())

    def _average(self, action: Action) -> None:
        for held in self.stages.values():
            average(held.layers, action, self.here)

    def _finish(self) -> None:
        """Wait for the reductions under way."""
        for held in self.stages.values():
            held.buckets.finish()
