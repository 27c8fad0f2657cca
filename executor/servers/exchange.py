"""What workers and parameter servers share: one flat message a shard each way, as CPU tensors on gloo."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

PULL, PUSH = 1, 2
"""Message tags."""


def flat(parameters: Sequence[Tensor]) -> Tensor:
    """All values of ``parameters`` in one CPU tensor."""
    return torch.cat([p.detach().reshape(-1).cpu() for p in parameters])


def unflatten(values: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """The parts of ``values`` in the shapes of ``like``."""
    parts = values.split([p.numel() for p in like])
    return [part.view_as(p) for part, p in zip(parts, like, strict=True)]


def started(work: dist.Work | None) -> dist.Work:
    """What a send or a receive gave, on a rank of the default group."""
    assert work is not None, "every rank is in the default group"
    return work
