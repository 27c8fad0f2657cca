"""Forward and backward passes of a rank's stages, as its actions say."""

from __future__ import annotations

import torch
from torch import Tensor

from ...sim.errors import RunError
from ...sim.plan.action import Action, Kind
from ...sim.plan.blocks import reduced_backwards
from ...sim.plan.joined_backward import joins_halves
from ..measure.recorder import COMPUTE
from ..parallel.context import share_tokens
from ..parallel.rank_context import RankContext
from .handlers import Handlers
from .messages import Messages
from .stage import precision
from .stages import HeldStage, loss_scale


class Passes:
    """Computes the plan's passes."""

    def __init__(self, here: RankContext, stages: dict[int, HeldStage], messages: Messages | None):
        self.here, self.stages, self.messages = here, stages, messages
        self.plan, self.recorder = here.plan, here.recorder
        self.pp, self.dp, _, _ = here.plan.coordinates(here.rank)
        self.samples = here.workload.samples()
        self.last_stage = len(here.plan.stages) - 1
        self.loss_scale = loss_scale(here.plan)
        self.joins_halves = joins_halves(here.plan.strategy)
        actions = here.plan.actions[self.pp]
        self.completing = {part for place in reduced_backwards(actions) for part in actions[place].passes}
        """Passes after which gradients are reduced."""

    @property
    def handlers(self) -> Handlers:
        kinds = (Kind.FORWARD, Kind.BACKWARD, Kind.INPUT_GRADIENT, Kind.WEIGHT_GRADIENT, Kind.OVERLAP)
        return dict.fromkeys(kinds, self._pass)

    def begin_step(self, steps: range) -> None:
        """Take the samples of ``steps``, which the plan's list goes through."""
        strategy = self.plan.strategy
        self.batches = [
            (share_tokens(inputs, self.here), share_tokens(targets, self.here))
            for step in steps
            for inputs, targets in self.samples.micro_batches(
                step, self.dp, strategy.dp, strategy.micro_batch
            )
        ]
        self.losses: dict[int, Tensor] = {}

    def mean_losses(self) -> list[float]:
        """By step: the mean over this replica's samples, on the rank of the last stage; none elsewhere."""
        count = self.plan.micro_batches
        values = [float(self.losses[index]) / (self.loss_scale * count) for index in sorted(self.losses)]
        return [sum(values[first : first + count]) for first in range(0, len(values), count)]

    def check_losses(self) -> None:
        """Nothing is learned from a loss that is no number."""
        for index, value in self.losses.items():
            if not torch.isfinite(value):
                raise RunError(f"loss of micro-batch {index} is {float(value)} at step {self.recorder.step}")

    def _pass(self, action: Action) -> None:
        self.recorder.current = action
        issued = self.recorder.clock.stamp()
        for part in action.passes:
            if part.kind is Kind.FORWARD:
                self._forward(part)
            else:
                self._backward(part)
        self.recorder.add(action, COMPUTE, issued, self.recorder.clock.stamp())

    def _forward(self, part: Action) -> None:
        held, index = self.stages[part.stage], part.micro_batch
        inputs, targets = self.batches[index]
        held.layers.inputs = inputs = inputs.to(self.here.device)
        if part.stage:
            assert self.messages is not None
            x = self.messages.take(Kind.RECV_F, part.stage, index)
        else:
            x = inputs
        held.begin_pass(part)
        with precision(self.plan.job, self.here.device):
            out = held.stage.forward(index, x)
            if part.stage == self.last_stage:
                value = held.layers.loss(out, targets.to(self.here.device)) * self.loss_scale
                held.stage.ends_in(index, value)
                self.losses[index] = value.detach()
        held.end_pass(part)
        if part.stage < self.last_stage:
            assert self.messages is not None
            self.messages.give(Kind.SEND_F, part.stage, index, out)

    def _backward(self, part: Action) -> None:
        held, index = self.stages[part.stage], part.micro_batch
        gradient = None
        if part.kind is not Kind.WEIGHT_GRADIENT and part.stage < self.last_stage:
            assert self.messages is not None
            gradient = self.messages.take(Kind.RECV_B, part.stage, index)
        held.begin_pass(part, completes=part in self.completing)
        passed = None
        if part.kind is Kind.BACKWARD or (self.joins_halves and part.kind is Kind.INPUT_GRADIENT):
            passed = held.stage.backward(index, gradient)
        elif self.joins_halves:
            pass  # the first half has done it all
        elif part.kind is Kind.INPUT_GRADIENT:
            passed = held.stage.backward_input(index, gradient)
        else:
            held.backward_weight(part, completes=part in self.completing)
        held.end_pass(part)
        if passed is not None:
            assert self.messages is not None
            self.messages.give(Kind.SEND_B, part.stage, index, passed)
