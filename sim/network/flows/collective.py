"""Seconds of collectives at flow level: their steps laid on the links of a fabric, alone or with others.

Every message has its max-min fair share of each link it crosses, as long as it lasts; groups, or jobs, that
run at the same time slow each other where and while they meet. Closed forms share links evenly among all
that can use them; where traffic is symmetric the two agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...errors import InputError
from ...hardware.cluster import Cluster, FabricSpec, Link
from ...hardware.curves import interpolate
from ..algorithms import AUTO
from ..fabrics.build import fabric_of
from ..fabrics.fabric import Fabric
from ..fabrics.switch import switch
from ..paths import is_torus, link_of_kind
from .flows import Rounds, finish_times, flows_on, round_ends
from .steps import Step, Steps, collective_flows

DEFAULT_ALGORITHMS = {"all_to_all": "direct", "broadcast": "direct", "send_recv": "direct"}
"""What `auto` takes; a ring for everything else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A collective of one group of hosts."""

    steps: Steps
    begin: float = 0.0
    """seconds"""


def flow_collective_s(fabric: Fabric, groups: Sequence[Group], *, compiled: bool | None = None) -> np.ndarray:
    """When each group's collective is over, seconds, float64[groups].

    Steps of one group follow each other; groups share links as they meet.

    Raises:
        InputError: a step from or to no host of ``fabric``.
    """
    busy = [number for number, group in enumerate(groups) if group.steps]
    ends = np.array([group.begin for group in groups], float)
    if len(busy) == 1:
        ends[busy[0]] += sum(_alone_s(fabric, step, compiled) for step in groups[busy[0]].steps)
    elif busy:
        ends[busy] = _together(fabric, [groups[number] for number in busy], compiled)
    return ends


def _alone_s(fabric: Fabric, step: Step, compiled: bool | None) -> float:
    """Without others a step takes the same time each time it is repeated."""
    flows, network = flows_on(fabric, step.sources, step.targets, step.sizes)
    return step.repeats * float(finish_times(flows, network, compiled=compiled).max())


def _together(fabric: Fabric, groups: Sequence[Group], compiled: bool | None) -> np.ndarray:
    """A round for every step; the first of a group begins by itself, the others one after the other."""
    steps = [step for group in groups for step in group.steps]
    lengths = np.array([len(group.steps) for group in groups])
    last = np.cumsum(lengths) - 1
    begin, after = np.full(len(steps), -1.0), np.arange(1, len(steps) + 1)
    begin[last - lengths + 1] = [group.begin for group in groups]
    after[last] = -1
    rounds = Rounds(
        first=np.cumsum([0, *(len(step.sizes) for step in steps)]),
        begin=begin,
        after=after,
        repeats=np.array([step.repeats for step in steps]),
    )
    sources, targets, sizes = (
        np.concatenate([getattr(step, name) for step in steps]) for name in ("sources", "targets", "sizes")
    )
    flows, network = flows_on(fabric, sources, targets, sizes)
    return round_ends(flows, network, rounds, compiled=compiled)[last]


def transport_by_flows(
    cluster: Cluster,
    operation: str,
    groups: Sequence[Sequence[int]],
    size_bytes: float,
    *,
    algorithm: str = AUTO,
) -> tuple[np.ndarray, str]:
    """(seconds of ``operation`` on each of ``groups`` of ranks that begin together, the algorithm).

    Links carry what their efficiency for ``size_bytes`` leaves, as in `network.transport`; measured curves
    and a library's own latencies are not used.

    Raises:
        InputError: the cluster's network is no fabric, or there are no steps of this operation.
    """
    name = DEFAULT_ALGORITHMS.get(operation, "ring") if algorithm == AUTO else algorithm
    per_node = 1 if is_torus(cluster) else cluster.accelerators_per_node
    busy = [
        Group(steps=collective_flows(operation, name, ranks, size_bytes, per_node=per_node))
        for ranks in groups
    ]
    return flow_collective_s(fabric_for_flows(cluster, size_bytes, operation), busy), name


def fabric_for_flows(cluster: Cluster, size_bytes: float, operation: str = "") -> Fabric:
    """The fabric of ``cluster``, a switch if it names none, at its links' efficiency for ``size_bytes``.

    Where a link has one for ``operation`` it is that one.

    Raises:
        InputError: its network is wires, messages pass through the host, or a link lacks.
    """
    if cluster.wires:
        raise InputError(f"cluster {cluster.name} has wires; flow level wants a fabric")
    if cluster.host is not None and cluster.host.host_staged:
        raise InputError(f"cluster {cluster.name} sends through its hosts, which flow level does not know")
    inside = cluster.link("accelerators")
    if cluster.link("nodes") is None and inside is not None:
        share = _share(inside, operation, size_bytes)
        return switch(cluster.accelerators, bandwidth=inside.bandwidth * share, latency=inside.latency / 2)
    spec = cluster.fabric or FabricSpec(kind="switch")
    built = fabric_of(replace(cluster, fabric=spec))
    shares = np.ones(int(built.link_kind.max()) + 1)
    for kind in np.unique(built.link_kind).tolist():
        link = link_of_kind(replace(cluster, fabric=spec), kind)
        shares[kind] = _share(link, operation, size_bytes)
    return replace(built, link_bandwidth=built.link_bandwidth * shares[built.link_kind])


def _share(link: Link, operation: str, size_bytes: float) -> float:
    """Fraction of the bandwidth of ``link`` that ``operation`` reaches at this size."""
    curve = link.efficiency_of(operation)
    return interpolate(curve, size_bytes) if curve else 1.0
