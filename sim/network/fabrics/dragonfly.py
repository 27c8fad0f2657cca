"""Dragonflies: groups of routers, each router joined to all of its group, each group to all groups.

After Kim, Dally, Scott & Abts 2008, with minimal routes: to the router of one's group that has the link to
the target's group, over it, and on to the target's router. Where a pair of groups has several global links,
the target decides among them, and among the routers they start from (D-mod-k); nothing is adaptive.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .fabric import PORT, TRUNK, Fabric, Level, columns, link_arrays, starts, where


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The numbers of a dragonfly: g groups of a routers with p hosts each, in the paper's letters."""

    groups: int
    routers: int
    """of one group"""
    hosts_per_router: int
    parallel: int = 1
    """global links between every two groups, each way"""
    rails: int = 1
    """neighbouring hosts (adapters of a node) that hang on as many neighbouring routers; divides routers"""

    @property
    def group_hosts(self) -> int:
        return self.routers * self.hosts_per_router

    @property
    def hosts(self) -> int:
        return self.groups * self.group_hosts

    def router_of(self, hosts: np.ndarray) -> np.ndarray:
        """The router each of ``hosts`` hangs on, counted through all groups."""
        return hosts // self.rails // self.hosts_per_router * self.rails + hosts % self.rails

    @property
    def global_ports(self) -> int:
        """Global links of a router, so that its group reaches every other."""
        return max(1, -(-(self.groups - 1) * self.parallel // self.routers))


def dragonfly(
    shape: Shape, *, bandwidth: float, latency: float, trunk_bandwidth: float, trunk_latency: float
) -> Fabric:
    """The dragonfly of ``shape``; hosts' and local links have ``bandwidth`` (bytes/s) and ``latency`` (s),
    global links ``trunk_bandwidth`` and ``trunk_latency``."""
    arrays = link_arrays(
        (2 * shape.hosts, PORT, bandwidth, latency),
        (shape.groups * shape.routers**2, TRUNK, bandwidth, latency),
        (shape.groups**2 * shape.parallel, TRUNK, trunk_bandwidth, trunk_latency),
    )
    chassis = shape.hosts_per_router * shape.rails
    levels = (("chassis", chassis), ("group", shape.group_hosts), ("fabric", shape.hosts))
    return Fabric(
        kind="dragonfly",
        hosts=shape.hosts,
        **arrays,
        router=lambda sources, targets: _route(shape, sources, targets),
        levels=tuple(Level(name=name, hosts=hosts) for name, hosts in levels),
    )


def _route(shape: Shape, sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Host up, local, global, local, host down; steps that lead nowhere are left out."""
    counts = (shape.hosts, shape.hosts, shape.groups * shape.routers**2, 0)
    _, down, local, far = starts(counts)
    start, end = shape.router_of(sources), shape.router_of(targets)
    group, other = start // shape.routers, end // shape.routers
    apart, lane = group != other, targets % shape.parallel
    leaves = np.where(apart, group * shape.routers + _gateway(shape, group, other, lane), end)
    enters = np.where(apart, other * shape.routers + _gateway(shape, other, group, lane), end)
    return columns(
        sources,
        where(start != leaves, local + start * shape.routers + leaves % shape.routers),
        where(apart, far + (group * shape.groups + other) * shape.parallel + lane),
        where(apart & (enters != end), local + enters * shape.routers + end % shape.routers),
        down + targets,
    )


def _gateway(shape: Shape, group: np.ndarray, other: np.ndarray, lane: np.ndarray) -> np.ndarray:
    """Which router of ``group`` has link ``lane`` to ``other``: consecutive links on consecutive ports."""
    return ((other - group - 1) % shape.groups * shape.parallel + lane) // shape.global_ports
