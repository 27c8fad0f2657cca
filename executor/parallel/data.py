"""Sums of gradients over the replicas, in the plan's buckets, while backward goes on.

As `torch.nn.parallel.DistributedDataParallel` does it, with two differences: a bucket holds the very layers
that the plan says, and the halves of a split backward, which set gradients without autograd's accumulators,
reduce too. Losses are scaled beforehand, so gradients are summed, not averaged.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...sim.plan.action import Action, Kind
from ...sim.plan.plan import Stage
from ..model.decoder import Layers
from .rank_context import RankContext
from .wire import Pending, Wire


class _Bucket:
    """Gradients that travel together."""

    def __init__(self, parameters: list[nn.Parameter], wire: Wire, action: Action):
        self.parameters, self.wire, self.action = parameters, wire, action
        self.missing = 0
        """Gradients that backward has not made yet."""
        self.pending: Pending | None = None
        self.is_started = False

    def start(self) -> None:
        """All gradients are there."""
        self.is_started = True
        gradients = [_gradient(p) for p in self.parameters]
        flat = torch.cat([g.reshape(-1) for g in gradients])
        self.pending = self.wire.all_reduce(flat, action=self.action, watched=True)
        for parameter, part in zip(self.parameters, flat.split([g.numel() for g in gradients]), strict=True):
            parameter.grad = part.view_as(parameter)

    def finish(self) -> None:
        if self.pending is not None:
            self.pending.wait()
        self.pending, self.is_started = None, False


class Buckets:
    """The gradients of one stage of a rank."""

    def __init__(self, layers: Layers, stage: Stage, here: RankContext):
        """``layers`` are those of ``stage``."""
        self.buckets: list[list[_Bucket]] = [[] for _ in stage.buckets]
        held, experts = layers.layer_parameters(), layers.expert_parameters()
        for number, indices in enumerate(stage.buckets):
            action = Action(stage.index, Kind.REDUCE_GRAD, bucket=number)
            own = [p for index in indices for p in held[index] if p.requires_grad]
            for parameters, group in (
                ([p for p in own if p not in experts], "replicas"),
                ([p for p in own if p in experts], "expert_replicas"),
            ):
                wire = here.wire(group)
                if parameters and wire.size > 1:
                    self.buckets[number].append(_Bucket(parameters, wire, action))
        self.is_armed = False
        for bucket in (b for several in self.buckets for b in several):
            for parameter in bucket.parameters:
                parameter.register_post_accumulate_grad_hook(lambda _, bucket=bucket: self._made(bucket))

    def arm(self) -> None:
        """The backward that follows completes the gradients, each bucket of which starts when it is there."""
        self.is_armed = True
        for several in self.buckets:
            for bucket in several:
                bucket.missing = len(bucket.parameters)

    def reduce(self, number: int) -> None:
        """Start bucket ``number`` unless backward has done so."""
        self.is_armed = False
        self.made(number)

    def made(self, number: int) -> None:
        """The gradients of bucket ``number`` are there: start it unless that was done."""
        for bucket in self.buckets[number]:
            if not bucket.is_started:
                bucket.start()

    def finish(self) -> None:
        """Wait until all gradients are summed."""
        for several in self.buckets:
            for bucket in several:
                bucket.finish()

    def _made(self, bucket: _Bucket) -> None:
        if not self.is_armed:
            return
        bucket.missing -= 1
        if bucket.missing == 0:
            bucket.start()


def average(layers: Layers, action: Action, here: RankContext) -> None:
    """Average the parameters of a stage over the replicas (local SGD)."""
    experts = layers.expert_parameters()
    own = [p for held in layers.layer_parameters().values() for p in held]
    for parameters, group in (
        ([p for p in own if p not in experts], "replicas"),
        ([p for p in own if p in experts], "expert_replicas"),
    ):
        wire = here.wire(group)
        if not parameters or wire.size == 1:
            continue
        flat = torch.cat([p.detach().reshape(-1) for p in parameters])
        mean = wire.all_reduce(flat, action=action).wait().div_(wire.size)
        with torch.no_grad():
            for parameter, part in zip(parameters, mean.split([p.numel() for p in parameters]), strict=True):
                parameter.copy_(part.view_as(parameter))


def _gradient(parameter: nn.Parameter) -> Tensor:
    return parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
