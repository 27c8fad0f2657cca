"""The kernels of one layer on one rank for one micro-batch, as a job and a strategy shape them."""

from __future__ import annotations

from . import kernels
from .job import Job
from .kernels import Kernel
from .strategy import Strategy

PARTS = {
    "forward": kernels.forward_kernels,
    "backward": kernels.backward_kernels,
    "input_gradient": kernels.input_gradient_kernels,
    "weight_gradient": kernels.weight_gradient_kernels,
}
"""Parts of a pass; the two gradients together are the backward."""


def layer_kernels(job: Job, strategy: Strategy, kind: str, part: str) -> tuple[Kernel, ...]:
    """The kernels of ``part`` of a layer of ``kind``; nothing is recomputed."""
    return PARTS[part](
        job.model.decoder,
        kind,
        micro_batch=strategy.micro_batch,
        seq_len=job.seq_len,
        tp=strategy.tp,
        bytes_per_value=job.bytes_per_value,
        cp=strategy.cp,
        ep=strategy.ep,
        sequence_parallel=strategy.sequence_parallel,
        expert_imbalance=job.expert_imbalance,
    )
