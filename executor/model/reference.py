"""Training on a single process without any plan: what every strategy must agree with."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ...sim.plan.job import Job
from .optimizer import make_optimizer
from .workload import Workload


class Outcome(NamedTuple):
    """What some steps of training led to."""

    losses: list[float]
    """Of the global batch, by step."""
    parameters: dict[str, Tensor]
    """After the last step, by name (`Layers.named`)."""
    gradients: dict[str, Tensor]
    """Of the last step."""


def single_process(
    job: Job, steps: int, seed: int = 0, *, micro_batch: int | None = None, ep: int = 1
) -> Outcome:
    """Train ``steps`` steps on the global batch.

    The batch is computed as one, or ``micro_batch`` samples at a time, whose gradients add up: the same
    but for rounding, except where samples are normalised over those that they are computed with. ``ep`` is
    the strategy's: imposed routing is as even between so many ranks as the job says.
    """
    workload = Workload(job=job, seed=seed, ep=ep)
    model = workload.layers(range(len(job.model.layers)))
    optimizer = make_optimizer(job, (p for p in model.parameters() if p.requires_grad))
    samples, losses = workload.samples(), []
    gradients: dict[str, Tensor] = {}
    for step in range(steps):
        parts = samples.micro_batches(step, 0, 1, micro_batch or job.global_batch)
        model.set_loss_scale(1.0 / len(parts))
        total = 0.0
        for inputs, targets in parts:
            value = workload.loss(model(inputs), targets) / len(parts)
            value.backward()
            total += value.item()
        gradients = {name: p.grad.clone() for name, p in model.named().items() if p.grad is not None}
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(total)
    return Outcome(losses, {name: p.detach().clone() for name, p in model.named().items()}, gradients)


def relative_difference(one: Tensor, other: Tensor, *, of: Tensor | None = None) -> float:
    """The largest difference of any value, over the largest of ``other``, or of what it is a part ``of``."""
    scale = max(float((other if of is None else of).abs().max()), 1e-12)
    return float((one - other).abs().max()) / scale
