"""Memory of a process that trains on the host's own processor, beyond what its layers and states need."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from ..hardware.cluster import Curve
from .samples import Point, Samples

ONE, SEVERAL = 1.0, 2.0
"""Micro-batches of a step: without and with gradients of earlier ones that lie between the activations."""


def process_memory(samples: Samples) -> tuple[float, Curve]:
    """What a process holds whatever it trains, in bytes, and (micro-batches of a step, share): what it holds
    beyond its states at its peak, over what its layers keep.

    The former after a small model was trained, with what larger ones have in common beyond that; where no
    training was looked at, as a process starts.
    """
    found = [point.median_bytes for point in samples.of("reserved")]
    start = statistics.median(found) if found else samples.machine.get("reserved_bytes", 0.0)
    common, shares = _lost(samples.of("peak"))
    return start + common, shares


def _lost(peaks: Sequence[Point]) -> tuple[float, Curve]:
    """Bytes that all of ``peaks`` have beyond states and what layers keep, and shares of the latter, none of
    them negative: least squares. As many peaks as shares say nothing of what is common."""
    if not peaks:
        return 0.0, ()
    import numpy as np
    from scipy.optimize import nnls

    places = sorted({_place(point) for point in peaks})
    kept = np.array([point.parameters["kept_bytes"] for point in peaks], dtype=float)
    states = np.array([point.parameters["states_bytes"] for point in peaks], dtype=float)
    lost = np.array([point.median_bytes for point in peaks]) - states - kept
    columns = [np.where([_place(point) == place for point in peaks], kept, 0.0) for place in places]
    several = len({(_place(point), float(size)) for point, size in zip(peaks, kept, strict=True)}) > len(
        places
    )
    matrix = np.column_stack([np.full(len(kept), kept.max() if several else 0.0), *columns])
    (common, *shares), _ = nnls(matrix, np.maximum(lost, 0.0))
    curve = tuple(zip(places, map(float, shares), strict=True))
    return float(common) * float(kept.max()) if several else 0.0, curve


def _place(point: Point) -> float:
    return ONE if point.parameters["micro_batches"] == 1 else SEVERAL
