"""Training on a single process without any plan: what every strategy must agree with."""

from __future__ import annotations

import torch
from torch import Tensor

from ...sim.plan.job import Job
from .optimizer import make_optimizer
from .workload import Workload


def single_process(
    job: Job, steps: int, seed: int = 0, *, micro_batch: int | None = None, ep: int = 1
) -> tuple[list[float], dict[int, list[Tensor]]]:
    """Losses of ``steps`` steps on the global batch, and the parameters after them by layer index.

    The batch is computed as one, or ``micro_batch`` samples at a time, whose gradients add up: the same
    but for rounding, except where samples are normalised over those that they are computed with. ``ep`` is
    the strategy's: imposed routing is as even between so many ranks as the job says.
    """
    workload = Workload(job=job, seed=seed, ep=ep)
    model = workload.layers(range(len(job.model.layers)))
    optimizer = make_optimizer(job, (p for p in model.parameters() if p.requires_grad))
    samples, losses = workload.samples(), []
    for step in range(steps):
        optimizer.zero_grad(set_to_none=True)
        parts = samples.micro_batches(step, 0, 1, micro_batch or job.global_batch)
        model.set_loss_scale(1.0 / len(parts))
        total = 0.0
        for inputs, targets in parts:
            value = workload.loss(model(inputs), targets) / len(parts)
            value.backward()
            total += value.item()
        optimizer.step()
        losses.append(total)
    held = model.layer_parameters()
    return losses, {index: [p.detach().clone() for p in own] for index, own in held.items()}


def relative_difference(one: list[Tensor], other: list[Tensor]) -> float:
    """The largest difference of any value, over the largest value of its tensor."""
    worst = 0.0
    for a, b in zip(one, other, strict=True):
        scale = max(float(torch.max(torch.abs(b))), 1e-12)
        worst = max(worst, float(torch.max(torch.abs(a - b))) / scale)
    return worst
