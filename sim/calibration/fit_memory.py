"""Memory of a process that trains on the host's own processor, beyond what its layers and states need."""

from __future__ import annotations

import statistics

from ..hardware.cluster import Curve
from .samples import Samples

ONE, SEVERAL = 1.0, 2.0
"""Micro-batches of a step: without and with gradients of earlier ones that lie between the activations."""


def reserved_bytes(samples: Samples) -> float:
    """What a process holds before it has a model: after it has trained a small one where that was measured,
    else as it started."""
    found = [point.median_bytes for point in samples.of("reserved")]
    return statistics.median(found) if found else samples.machine.get("reserved_bytes", 0.0)


def allocator_loss(samples: Samples) -> Curve:
    """(micro-batches of a step, share): bytes of a process at its peak beyond its states and what its layers
    keep, over the latter; the median of what was measured, never less than 0."""
    found: dict[float, list[float]] = {}
    for point in samples.of("peak"):
        p = point.parameters
        lost = point.median_bytes - p["states_bytes"] - p["kept_bytes"]
        place = ONE if p["micro_batches"] == 1 else SEVERAL
        found.setdefault(place, []).append(max(0.0, lost) / p["kept_bytes"])
    return tuple((place, statistics.median(shares)) for place, shares in sorted(found.items()))
