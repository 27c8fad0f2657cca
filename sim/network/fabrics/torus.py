"""Rings and tori of any number of dimensions: hosts are joined to their neighbours, without switches.

Hosts count through the last dimension first. Routes go dimension by dimension, the first one first, each
the shorter way round and upward where both are as long (dimension-order routing: Dally & Seitz 1987).
"""

from __future__ import annotations

import math

import numpy as np

from .fabric import NO_LINK, TRUNK, Fabric, Level, link_arrays


def torus(dimensions: tuple[int, ...], *, bandwidth: float, latency: float) -> Fabric:
    """A torus of ``dimensions``; every link between neighbours has ``bandwidth`` (bytes/s) and ``latency``
    (s) in each direction. One dimension is a ring."""
    hosts = math.prod(dimensions)
    levels = [
        Level(name=f"axis{axis}", hosts=math.prod(dimensions[axis:]))
        for axis in reversed(range(len(dimensions)))
    ]
    return Fabric(
        kind="torus",
        hosts=hosts,
        **link_arrays((2 * len(dimensions) * hosts, TRUNK, bandwidth, latency)),
        router=lambda sources, targets: _route(dimensions, sources, targets),
        levels=tuple(levels),
    )


def _route(dimensions: tuple[int, ...], sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Steps along one dimension after the other; link (host, dimension, direction) leaves the host."""
    at, goal = (np.stack(np.unravel_index(ends, dimensions), axis=1) for ends in (sources, targets))
    steps = []
    for axis, extent in enumerate(dimensions):
        forward = (goal[:, axis] - at[:, axis]) % extent
        up = forward <= extent // 2
        remaining = np.where(up, forward, extent - forward)
        for step in range(int(remaining.max(initial=0))):
            moving = step < remaining
            host = np.ravel_multi_index(tuple(at.T), dimensions)
            steps.append(np.where(moving, (host * len(dimensions) + axis) * 2 + ~up, NO_LINK))
            at[:, axis] = (at[:, axis] + moving * np.where(up, 1, -1)) % extent
    return np.stack(steps, axis=1) if steps else np.full((len(sources), 1), NO_LINK)
