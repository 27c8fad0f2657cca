"""Nodes whose accelerators share a crossbar (NVSwitch), put before any network that joins their NICs.

The hosts are the accelerators. Those of one node talk over the crossbar, others over the outer network,
where every accelerator has a port of its own or every node one. On a network built for rails an
accelerator first passes its message over the crossbar to the one in its node that is on the target's
rail (NCCL's PXN: "Doubling all2all Performance with NCCL 2.12", NVIDIA 2022), so rails never meet.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .fabric import CROSSBAR, NO_LINK, Fabric, Level, arrays_of, joined, link_arrays, where


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossbar:
    """What joins the accelerators of one node."""

    accelerators: int
    bandwidth: float
    """bytes/s of one accelerator, each direction"""
    latency: float
    """seconds up or down"""


def nodes(crossbar: Crossbar, outer: Fabric, *, port_per_node: bool = False, rails: bool = False) -> Fabric:
    """``outer`` with the accelerators of a node behind every one (or every ``crossbar.accelerators``) of
    its hosts. Links: accelerators up, accelerators down, then those of ``outer`` in their order."""
    each = crossbar.accelerators
    hosts = outer.hosts * each if port_per_node else outer.hosts
    inside = link_arrays((2 * hosts, CROSSBAR, crossbar.bandwidth, crossbar.latency))

    def router(sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return _route(outer, each, hosts, sources, targets, port_per_node, rails)

    scale = each if port_per_node else 1
    wider = (Level(name=level.name, hosts=level.hosts * scale) for level in outer.levels)
    return Fabric(
        kind=outer.kind,
        hosts=hosts,
        **joined(inside, arrays_of(outer)),
        router=router,
        levels=(Level(name="node", hosts=each), *(level for level in wider if level.hosts > each)),
    )


def _route(
    outer: Fabric,
    each: int,
    hosts: int,
    sources: np.ndarray,
    targets: np.ndarray,
    port_per_node: bool,
    rails: bool,
) -> np.ndarray:
    node, other = sources // each, targets // each
    inside = node == other
    leaving = node * each + targets % each if rails else sources
    over = inside | (leaving != sources)
    ports = (node, other) if port_per_node else (leaving, targets)
    outward = outer.steps(*(np.where(inside, 0, port) for port in ports))
    outward = np.where(outward == NO_LINK, NO_LINK, outward + 2 * hosts)
    crossing = np.where(inside, targets, leaving)
    first = np.stack((where(over, sources), where(over, hosts + crossing)), axis=1)
    return np.concatenate((first, outward), axis=1)
