"""How fast a processor is right now: the seconds of a fixed piece of training, the speed probe.

What other machines on the same hardware do changes the speed of a core by a third within seconds, and no
counter says so. Calibration and runs probe the core that they are on between what they time, so that what one
of them measured can be told for the speed that the other one met.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

TOKENS, HIDDEN, HEADS, SAMPLES = 128, 256, 8, 4
"""A block of a small decoder: GEMMs, attention and elementwise kernels in about the proportions of any."""
STREAMED, STREAMS = 2 * 2**20, 4
"""Values in each of two arrays that no cache of a core holds, and how often one is added to the other. Memory
varies less than a core does; with so much of it the probe varies as whole training steps do."""
EVERY_S = 0.3
"""A run probes about so often."""


class SpeedProbe:
    """Forward and backward of one block with fixed sizes, and a stream of memory: about 40 ms on a core of
    today."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)

        def values(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator) / HIDDEN**0.5

        self._x = values(SAMPLES, TOKENS, HIDDEN)
        self._weights = [
            values(width, depth).requires_grad_()
            for width, depth in ((3 * HIDDEN, HIDDEN), (4 * HIDDEN, HIDDEN), (HIDDEN, 4 * HIDDEN))
        ]
        self._streams = [values(STREAMED) for _ in range(2)]
        self._work()  # memory and libraries are as they stay

    def __call__(self, clock: Callable[[], float] = time.thread_time) -> float:
        """Processor seconds that it takes now."""
        start = clock()
        self._work()
        return clock() - start

    def _work(self) -> None:
        heads, widen, narrow = self._weights
        split = F.linear(self._x, heads).view(SAMPLES, TOKENS, 3, HEADS, HIDDEN // HEADS)
        q, k, v = split.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)
        normed = F.layer_norm(attended.reshape(SAMPLES, TOKENS, HIDDEN), (HIDDEN,))
        F.linear(F.gelu(F.linear(normed, widen)), narrow).square().mean().backward()
        for weight in self._weights:
            weight.grad = None
        onto, other = self._streams
        for _ in range(STREAMS):
            onto.mul_(0.5).add_(other, alpha=0.5)


class SpeedWatch:
    """The probes of one rank of a run, between its walks, not oftener than is worth it. All ranks probe
    between the same walks, so that none of them is kept waiting by another's."""

    def __init__(self) -> None:
        self._probe = SpeedProbe()
        self.seconds: list[float] = []
        """Of each probe."""
        self._every = 1

    def agree(self, walk_s: float) -> None:
        """Probe about once in `EVERY_S`, where a walk takes ``walk_s`` on the first rank. The probes of the
        warm-up are forgotten."""
        walk = torch.tensor([walk_s], dtype=torch.float64)
        dist.broadcast(walk, 0)
        self.seconds.clear()
        self._every = max(1, round(EVERY_S / max(float(walk), 1e-6)))

    def look(self, walk: int = 0, times: int = 1) -> None:
        """Probe before ``walk``, if it is one of those."""
        if walk % self._every == 0:
            self.seconds += [self._probe() for _ in range(times)]
