"""Fits of communication: seconds and processor seconds by message size, and the link they amount to."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from ..hardware.cluster import Curve, Link, TransportCurve
from ..hardware.curves import interpolate_time
from .samples import Samples

OPERATIONS = ("all_reduce", "broadcast", "all_gather", "reduce_scatter", "all_to_all", "send_recv", "shift")


def fit_transports(samples: Samples) -> tuple[tuple[TransportCurve, ...], dict[str, float]]:
    """A curve for each operation and number of ranks; residuals by operation.

    A residual is the median error of reading a size's time off the other sizes' curve.
    """
    curves, residuals = [], {}
    for operation in OPERATIONS:
        by_ranks: dict[int, list[tuple[float, float, float]]] = {}
        for point in samples.of(operation):
            p = point.parameters
            by_ranks.setdefault(p["ranks"], []).append((float(p["bytes"]), point.median_s, point.cpu_s))
        errors = []
        for ranks, found in sorted(by_ranks.items()):
            curves.append(_curve(operation, ranks, sorted(found)))
            errors += left_out_errors([(size, seconds) for size, seconds, _ in sorted(found)])
        if errors:
            residuals[operation] = statistics.median(errors)
    return tuple(curves), residuals


def _curve(operation: str, ranks: int, points: Sequence[tuple[float, float, float]]) -> TransportCurve:
    cpu = rising([(size, cpu) for size, _, cpu in points]) if all(cpu > 0.0 for *_, cpu in points) else ()
    times = rising([(size, seconds) for size, seconds, _ in points])
    return TransportCurve(operation=operation, ranks=ranks, times_s=times, cpu_times_s=cpu)


def rising(points: Sequence[tuple[float, float]]) -> Curve:
    """The nearest curve that never falls: neighbours that do are pooled at their mean.

    A larger message is never quicker; where it was measured so, it is noise. Pool adjacent violators
    (Barlow et al. 1972).
    """
    pools: list[list[float]] = []
    for _, y in points:
        pools.append([y])
        while len(pools) > 1 and statistics.fmean(pools[-2]) > statistics.fmean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    values = [statistics.fmean(pool) for pool in pools for _ in pool]
    return tuple((x, value) for (x, _), value in zip(points, values, strict=True))


def left_out_errors(points: Sequence[tuple[float, float]]) -> list[float]:
    """Relative errors of each inner point read off the curve of the others."""
    errors = []
    for out in range(1, len(points) - 1):
        size, seconds = points[out]
        others = rising([*points[:out], *points[out + 1 :]])
        errors.append(abs(interpolate_time(others, size) / seconds - 1.0))
    return errors


def loopback(transports: Sequence[TransportCurve]) -> dict[str, Link]:
    """The link between the machine's ranks, for what no curve covers: latency of the smallest message,
    bandwidth of the largest."""
    curve = next((c.times_s for c in transports if c.operation == "send_recv"), ())
    if len(curve) < 2:
        return {}
    latency = curve[0][1]
    size, seconds = curve[-1]
    bandwidth = size / max(seconds - latency, 0.5 * seconds)
    source = "half a round trip between two ranks"
    link = Link(name="local", joins="accelerators", bandwidth=bandwidth, latency=latency, source=source)
    return {link.name: link}
