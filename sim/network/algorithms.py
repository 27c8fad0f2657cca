"""Seconds of a collective by algorithm, on a path that is uniform or has tiers.

``size_bytes`` is the whole buffer: what every rank has before an all-reduce or a reduce-scatter, has after
an all-gather, and sends in an all-to-all. One rank costs nothing. The formulae are in `formulas.py`;
here is which of them an operation has under which name, and how tiers nest them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import InputError
from .formulas import (
    binary_tree_all_reduce_s,
    binary_tree_broadcast_s,
    binomial_all_reduce_s,
    binomial_broadcast_s,
    bruck_all_to_all_s,
    direct_all_gather_s,
    direct_all_reduce_s,
    direct_broadcast_s,
    doubling_all_gather_s,
    halving_doubling_all_reduce_s,
    halving_reduce_scatter_s,
    in_network_all_reduce_s,
    in_network_broadcast_s,
    in_network_half_s,
    pairwise_all_to_all_s,
    point_to_point_s,
    ring_all_gather_s,
    ring_all_reduce_s,
    ring_broadcast_s,
    ring_reduce_scatter_s,
    scatter_all_gather_broadcast_s,
    store_and_forward_broadcast_s,
    tree_all_reduce_s,
    tree_broadcast_s,
)

__all__ = [
    "ALGORITHMS",
    "AUTO",
    "COLLECTIVE_ALGORITHMS",
    "HIERARCHICAL",
    "HOST_STAGED",
    "HOST_STAGED_LATENCY_HOPS",
    "IN_NETWORK",
    "OPERATIONS",
    "RING",
    "TREE",
    "Tier",
    "cheapest",
    "check_names",
    "collective_s",
    "hierarchical_s",
    "point_to_point_s",
    "ring_all_gather_s",
    "ring_all_reduce_s",
    "ring_reduce_scatter_s",
    "tree_all_reduce_s",
    "tree_broadcast_s",
]

AUTO, RING, TREE, HIERARCHICAL, IN_NETWORK = "auto", "ring", "tree", "hierarchical", "in_network"
HOST_STAGED = "gloo"

Formula = Callable[[float, int, float, float], float]

ALGORITHMS: Mapping[str, Mapping[str, Formula]] = {
    RING: {
        "all_reduce": ring_all_reduce_s,
        "all_gather": ring_all_gather_s,
        "reduce_scatter": ring_reduce_scatter_s,
        "broadcast": ring_broadcast_s,
        "all_to_all": pairwise_all_to_all_s,
    },
    TREE: {"all_reduce": tree_all_reduce_s, "broadcast": tree_broadcast_s},
    "binary_tree": {"all_reduce": binary_tree_all_reduce_s, "broadcast": binary_tree_broadcast_s},
    "binomial_tree": {"all_reduce": binomial_all_reduce_s, "broadcast": binomial_broadcast_s},
    "halving_doubling": {
        "all_reduce": halving_doubling_all_reduce_s,
        "all_gather": doubling_all_gather_s,
        "reduce_scatter": halving_reduce_scatter_s,
        "broadcast": scatter_all_gather_broadcast_s,
        "all_to_all": bruck_all_to_all_s,
    },
    "direct": {
        "all_reduce": direct_all_reduce_s,
        "all_gather": direct_all_gather_s,
        "reduce_scatter": direct_all_gather_s,
        "broadcast": direct_broadcast_s,
        "all_to_all": direct_all_gather_s,
    },
    IN_NETWORK: {
        "all_reduce": in_network_all_reduce_s,
        "all_gather": in_network_half_s,
        "reduce_scatter": in_network_half_s,
        "broadcast": in_network_broadcast_s,
    },
}
"""By algorithm the operations it has a form of; `tree` is NCCL's, a double binary tree."""

COLLECTIVE_ALGORITHMS = (AUTO, *ALGORITHMS, HIERARCHICAL)
"""Every name that `collective_s` and `network.transport` take."""

OPERATIONS = tuple(ALGORITHMS[RING])

_CHOICES = {
    "all_reduce": (RING, TREE),
    "broadcast": (RING, TREE),
    "all_to_all": ("direct",),
}
"""What `auto` chooses among, where not only rings: NCCL has rings and trees, and posts all messages of an
all-to-all at once (docs.nvidia.com/deeplearning/nccl, "Point-to-point communication")."""

_LONG_HOPS = (TREE, "binary_tree", "binomial_tree", "halving_doubling", "direct", IN_NETWORK)
"""Algorithms whose steps are as slow as the longest hop, since partners are not neighbours."""

HOST_STAGED_LATENCY_HOPS = {"all_reduce": 14 / 6, "reduce_scatter": 14 / 6, "all_gather": 2.0}
"""Hops of latency in gloo over those of a ring, which has one a step: gloo's receiver first tells the
sender that it is ready. From 4 ranks of torch 2.13 gloo over an emulated link of 1-20 ms one way:
all_reduce took 14 one-way delays (a ring has 6), all_gather 6 (a ring has 3)."""

HOST_STAGED_ALL_TO_ALL = 1.5
"""Seconds of gloo's all-to-all over bytes per bandwidth: 1.4 to 1.6 measured (torch 2.13, 4 ranks)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """One level of a hierarchy of ranks, innermost first: a node, a leaf, a pod."""

    ranks: int
    """How many members of the tier below (at first: ranks) one group of this tier joins."""
    bandwidth: float
    """bytes/s that one rank sends within this tier while all others do"""
    latency: float
    """seconds of one hop"""


def collective_s(
    operation: str,
    size_bytes: float,
    ranks: int,
    bandwidth: float,
    latency: float,
    *,
    algorithm: str = AUTO,
    tree_latency: float | None = None,
    host_staged: bool = False,
    tiers: Sequence[Tier] = (),
    in_network: bool = False,
) -> float:
    """Seconds of ``operation`` by ``algorithm``; `auto` is the cheapest that NCCL has.

    ``latency`` is one hop of a ring, ``tree_latency`` one between ranks that are no neighbours, where it
    differs. ``host_staged`` takes gloo's algorithms whatever ``algorithm`` says, since gloo offers no
    choice: a reduce-scatter costs an all-reduce there, a broadcast stores and forwards, and an all-to-all
    sends to all at once. ``tiers`` are what `hierarchical` nests, by default one tier. ``in_network`` lets
    `auto` choose switches that add. An algorithm without a form of the operation leaves it to a ring, since
    one name serves all collectives of a strategy.

    Raises:
        InputError: an unknown operation or algorithm, ``ranks`` < 1 or ``bandwidth`` <= 0.
    """
    check_names(operation, algorithm)
    if host_staged:
        return _host_staged_s(operation, size_bytes, ranks, bandwidth, latency)
    if algorithm == HIERARCHICAL:
        levels = tiers or (Tier(ranks=ranks, bandwidth=bandwidth, latency=latency),)
        return hierarchical_s(operation, size_bytes, levels)
    hops = (latency, latency if tree_latency is None else tree_latency)
    if algorithm != AUTO:
        return _plain_s(algorithm, operation, size_bytes, ranks, bandwidth, hops)
    return cheapest(operation, size_bytes, ranks, bandwidth, hops, in_network=in_network)[0]


def cheapest(
    operation: str,
    size_bytes: float,
    ranks: int,
    bandwidth: float,
    hops: tuple[float, float],
    *,
    in_network: bool = False,
) -> tuple[float, str]:
    """(seconds, algorithm) of what `auto` takes; ``hops`` are the latencies of a ring's and of a far hop."""
    return min(
        (_plain_s(name, operation, size_bytes, ranks, bandwidth, hops), name)
        for name in _choices(operation, in_network=in_network)
    )


def _choices(operation: str, *, in_network: bool) -> tuple[str, ...]:
    """The algorithms among which `auto` takes the cheapest."""
    added = (IN_NETWORK,) if in_network and operation in ALGORITHMS[IN_NETWORK] else ()
    return _CHOICES.get(operation, (RING,)) + added


def _plain_s(
    name: str, operation: str, size: float, ranks: int, bandwidth: float, hops: tuple[float, float]
) -> float:
    chosen = name if operation in ALGORITHMS[name] else RING
    return ALGORITHMS[chosen][operation](size, ranks, bandwidth, hops[chosen in _LONG_HOPS])


def hierarchical_s(operation: str, size_bytes: float, tiers: Sequence[Tier]) -> float:
    """Seconds of a collective tier by tier, a ring in each.

    An all-reduce is a reduce-scatter in every tier from the innermost outward, each on the part the tier
    below left, and the all-gathers back (Cho et al. 2019, BlueConnect). A broadcast goes down from the
    outermost tier; an all-to-all exchanges along one tier after the other, in each all but the own part.

    Raises:
        InputError: a tier without ranks or bandwidth.
    """
    if operation == "all_reduce":
        return 2 * hierarchical_s("reduce_scatter", size_bytes, tiers)
    shrinking = operation in ("reduce_scatter", "all_gather")
    seconds, part = 0.0, size_bytes
    for tier in tiers:
        seconds += ALGORITHMS[RING][operation](part, tier.ranks, tier.bandwidth, tier.latency)
        if shrinking:
            part /= tier.ranks
    return seconds


def _host_staged_s(operation: str, size_bytes: float, ranks: int, bandwidth: float, latency: float) -> float:
    if operation == "broadcast":
        return store_and_forward_broadcast_s(size_bytes, ranks, bandwidth, latency)
    if operation == "all_to_all":
        return HOST_STAGED_ALL_TO_ALL * direct_all_gather_s(size_bytes, ranks, bandwidth, latency)
    hop = latency * HOST_STAGED_LATENCY_HOPS[operation]
    if operation == "all_gather":
        return ring_all_gather_s(size_bytes, ranks, bandwidth, hop)
    return ring_all_reduce_s(size_bytes, ranks, bandwidth, hop)


def check_names(operation: str, algorithm: str) -> None:
    """Raises InputError for an unknown operation or algorithm."""
    if operation not in OPERATIONS:
        raise InputError(f"{operation!r} is not a collective; expected {' | '.join(OPERATIONS)}")
    if algorithm not in COLLECTIVE_ALGORITHMS:
        expected = " | ".join(COLLECTIVE_ALGORITHMS)
        raise InputError(f"{algorithm!r} is not a collective algorithm; expected {expected}")
