"""What a job trains: its layers as torch modules, its samples, and its loss.

One place that says it for every process of a run, for the servers, for calibration and for the single process
that they agree with: of decoders, of named networks, and of a user's own module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...sim.errors import RunError
from ...sim.plan.job import Job
from . import decoder
from .data.choice import samples_of
from .data.samples import Samples
from .decoder import Layers
from .networks.losses import loss_of
from .networks.network_layers import build_network, program_of_model
from .networks.program import Program
from .references import read_factory
from .routing import Routing
from .user_module import build_module_layers

PROBED = 2
"""Samples that the shapes of a user's module are found with: norms refuse to train on one."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The layers, samples and loss of ``job``, the same in every process that is given the same ``seed``.

    Of a user's own module, data and loss it imports the code, which is the caller's to have asked for.
    """

    job: Job
    seed: int = 0
    ep: int = 1
    """Expert-parallel ranks of the strategy, between which imposed routing is as even as the job says."""

    def layers(
        self,
        indices: Iterable[int],
        *,
        recompute: str = "none",
        recompute_blocks: int = 0,
        device: torch.device | None = None,
    ) -> Layers:
        """The layers with these indices as one module, with the parameters that a single process has there.

        ``recompute`` and ``recompute_blocks`` are those of the Strategy; ``device`` None is the CPU.

        Raises:
            InputError: the model is no named network, or a user's module is not the one that was planned.
        """
        model = self.job.model
        again: dict[str, Any] = {
            "recompute": recompute,
            "recompute_blocks": recompute_blocks,
            "device": device,
        }
        if model.module:
            made: Layers = build_module_layers(model, indices, self.probe, seed=self.seed, **again)
        elif model.network is not None:
            made = build_network(model, indices, seed=self.seed, **again)
        else:
            routing = Routing.of(self.job, self.ep)
            made = decoder.build_layers(model.decoder, indices, seed=self.seed, routing=routing, **again)
        made.loss = self.loss
        return made

    @cached_property
    def program(self) -> Program | None:
        """Of a named network: what it computes."""
        model = self.job.model
        return None if model.network is None or model.module else program_of_model(model)

    def samples(self) -> Samples:
        """What the layers are trained on."""
        return samples_of(self.job, self.seed, self.program)

    @cached_property
    def probe(self) -> Tensor:
        """A few inputs, to see shapes by."""
        return self.samples().batch(0)[0][:PROBED]

    def loss(self, outputs: Any, targets: Tensor) -> Tensor:
        """The mean loss of a micro-batch, in fp32: a scalar.

        Raises:
            RunError: a user's loss is no scalar.
        """
        value = self._loss(outputs, targets)
        if value.dim():
            raise RunError(f"{self.job.loss} gives a tensor of shape {tuple(value.shape)}: expected a scalar")
        return value

    @cached_property
    def _loss(self) -> Callable[[Any, Tensor], Tensor]:
        if self.job.loss:
            return read_factory(self.job.loss, what="loss")
        if self.job.model.module:
            return _cross_entropy
        return decoder.loss if self.program is None else loss_of(self.program)

    def boundary_shape(self, layer: int, micro_batch: int) -> tuple[int, ...]:
        """Shape of the one tensor that ``layer`` passes on to a stage behind it, whole over tp and cp."""
        network = self.job.model.network
        width = self.job.model.decoder.hidden if network is None else round(network.parts[layer].passed)
        return (micro_batch, self.job.seq_len, width)


def _cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Of classes."""
    return F.cross_entropy(outputs.float(), targets)
