"""What a server holds of one portion: its parameters with their optimizer, and the ledger of its versions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...sim.plan.job import Job
from ...sim.plan.plan import Plan
from ...sim.plan.strategy import Strategy
from ..model.decoder import Layers
from ..model.optimizer import make_optimizer
from .exchange import packed, unpacked
from .ledger import puts_together


class Holding:
    """Parameters that are updated together.

    A gradient that is applied by itself moves them at 1/workers of the learning rate, so that as many updates
    as there are workers move them as far as one synchronous step would (Dean et al. 2012, section 4.1). Where
    workers make local steps, an update is the average of their parameters (Stich 2019).
    """

    def __init__(self, job: Job, strategy: Strategy, parameters: Sequence[nn.Parameter]):
        self.parameters = list(parameters)
        self.averages = strategy.protocol[0] == "local"
        factor = 1.0 if puts_together(strategy) else 1.0 / strategy.dp
        self.optimizer = make_optimizer(job, self.parameters, rate_factor=factor) if self.parameters else None
        self._message: tuple[int, Tensor] | None = None

    def message(self, version: int) -> Tensor:
        """The parameters as a message, which nobody changes; ``version`` is its last word."""
        if self._message is None or self._message[0] != version:
            self._message = version, packed(self.parameters, version)
        return self._message[1]

    def apply(self, update: Tensor) -> None:
        """Step with the gradients of a message, or take its averages over."""
        values = unpacked(update, self.parameters)
        if self.averages:
            with torch.no_grad():
                for parameter, average in zip(self.parameters, values, strict=True):
                    parameter.copy_(average)
        elif self.optimizer is not None:
            for parameter, gradient in zip(self.parameters, values, strict=True):
                parameter.grad = gradient
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        self._message = None

    @property
    def values(self) -> int:
        """Numbers that a message of it has, without its last word."""
        return sum(parameter.numel() for parameter in self.parameters)

    @property
    def dtype(self) -> torch.dtype:
        """What messages are in."""
        return self.parameters[0].dtype if self.parameters else torch.get_default_dtype()


def exchanged(plan: Plan, layers: Layers) -> list[list[nn.Parameter]]:
    """By portion: the parameters of ``layers``, all of the model, that pass between workers and servers."""
    held = layers.layer_parameters()
    return [[p for i in own.layers for p in held[i] if p.requires_grad] for own in plan.portions]


def together(messages: Sequence[Tensor]) -> Tensor:
    """The mean of several gradients, or parameters, as one update; one alone as it is."""
    return messages[0] if len(messages) == 1 else torch.stack(list(messages)).mean(dim=0)
