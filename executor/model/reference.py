"""Training on a single process without any plan: what every strategy must agree with."""

from __future__ import annotations

import torch
from torch import Tensor

from ...sim.plan.job import Job
from .data import Text
from .decoder import build_layers, loss
from .optimizer import make_optimizer


def single_process(job: Job, steps: int, seed: int = 0) -> tuple[list[float], dict[int, list[Tensor]]]:
    """Losses of ``steps`` steps on the global batch, and the parameters after them by layer index."""
    model = build_layers(job.model.decoder, range(len(job.model.layers)), seed=seed)
    optimizer = make_optimizer(job, model.parameters())
    text, losses = Text(job, seed), []
    for step in range(steps):
        batch = text.batch(step)
        value = loss(model(batch[:, :-1]), batch[:, 1:])
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    held = model.layer_parameters()
    return losses, {index: [p.detach().clone() for p in own] for index, own in held.items()}


def relative_difference(one: list[Tensor], other: list[Tensor]) -> float:
    """The largest difference of any value, over the largest value of its tensor."""
    worst = 0.0
    for a, b in zip(one, other, strict=True):
        scale = max(float(torch.max(torch.abs(b))), 1e-12)
        worst = max(worst, float(torch.max(torch.abs(a - b))) / scale)
    return worst
