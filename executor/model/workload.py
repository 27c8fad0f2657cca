"""What a job trains: its layers as torch modules, its samples, and its loss.

One place that says it for every process of a run, for the servers, for calibration and for the single process
that they agree with.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...sim.plan.job import Job
from . import decoder
from .data.samples import Samples
from .data.text import Text
from .decoder import Layers
from .routing import Routing


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The layers, samples and loss of ``job``, the same in every process that is given the same ``seed``."""

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
        """
        return decoder.build_layers(
            self.job.model.decoder,
            indices,
            seed=self.seed,
            recompute=recompute,
            recompute_blocks=recompute_blocks,
            routing=Routing.of(self.job, self.ep),
            device=device,
        )

    def samples(self) -> Samples:
        """What the layers are trained on."""
        return Text(self.job, self.seed)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of a micro-batch, in fp32: a scalar."""
        return decoder.loss(outputs, targets)

    def boundary_shape(self, layer: int, micro_batch: int) -> tuple[int, ...]:
        """Shape of the one tensor that ``layer`` passes on to a stage behind it, whole over tp and cp."""
        return (micro_batch, self.job.seq_len, self.job.model.decoder.hidden)
