"""Zones far apart: each a network of its own, every pair joined by one wide-area link each way."""

from __future__ import annotations

import numpy as np

from .fabric import NO_LINK, WAN, Fabric, Level, arrays_of, joined, link_arrays, where


def wan(zone: Fabric, zones: int, *, bandwidth: float, latency: float) -> Fabric:
    """``zones`` copies of ``zone``; links between zones have ``bandwidth`` (bytes/s) and ``latency`` (s).

    Links: those of the first zone, of the second and so on, then from zone to zone. A message leaves by its
    host's first link, crosses the wide-area link and arrives by the target's last; switches between
    the two are taken not to be the limit.
    """
    far = link_arrays((zones * zones, WAN, bandwidth, latency))

    def router(sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return _route(zone, zones, sources, targets)

    return Fabric(
        kind="wan",
        hosts=zone.hosts * zones,
        **joined(*[arrays_of(zone)] * zones, far),
        router=router,
        levels=(*zone.levels, Level(name="fabric", hosts=zone.hosts * zones)),
    )


def _route(zone: Fabric, zones: int, sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
    here, there = sources // zone.hosts, targets // zone.hosts
    start, end = sources % zone.hosts, targets % zone.hosts
    apart = here != there
    near = zone.steps(np.where(apart, 0, start), np.where(apart, 0, end))
    near = np.where(near == NO_LINK, NO_LINK, near + (here * zone.links)[:, None])
    # Ports count from 0 up and from `hosts` down in every network of switches.
    up = where(apart, here * zone.links + start)
    across = where(apart, zones * zone.links + here * zones + there)
    down = where(apart, there * zone.links + zone.hosts + end)
    return np.concatenate((up[:, None], near, across[:, None], down[:, None]), axis=1)
