"""The job's optimizer, as torch has it.

On the CPU the fused kernels pass over each parameter once; on GPUs they also start fewer kernels. Weight
decay is off, so that results do not depend on which parameters are grouped.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from ...sim.plan.job import Job

MOMENTUM = 0.9


def make_optimizer(
    job: Job, parameters: Iterable[nn.Parameter], *, rate_factor: float = 1.0
) -> torch.optim.Optimizer:
    """``job``'s optimizer over ``parameters``, at ``rate_factor`` times its learning rate."""
    rate = job.learning_rate * rate_factor
    if job.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0, fused=True)
    momentum = MOMENTUM if job.optimizer == "momentum" else 0.0
    return torch.optim.SGD(parameters, lr=rate, momentum=momentum, fused=True)
