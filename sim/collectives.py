"""Seconds of a collective on a uniform path, in closed form: latency per step plus bytes per bandwidth.

Pure functions of size, ranks, bandwidth (what one rank sends per second each direction) and latency (one
hop). ``size_bytes`` is the whole buffer: what every rank has before an all-reduce, what every rank has
after an all-gather, and before a reduce-scatter. One rank costs nothing.
"""

from __future__ import annotations

import math

from .errors import InputError

RING, TREE, AUTO = "ring", "tree", "auto"

HOST_STAGED_LATENCY_HOPS = {"all_reduce": 14 / 6, "reduce_scatter": 14 / 6, "all_gather": 2.0}
"""Hops of latency in gloo over those of a ring, which has one a step: gloo's receiver first tells the
sender that it is ready. From 4 ranks of torch 2.13 gloo over an emulated link of 1-20 ms one way:
all_reduce took 14 one-way delays (a ring has 6), all_gather 6 (a ring has 3)."""


def ring_all_reduce_s(size_bytes: float, ranks: int, bandwidth: float, latency: float) -> float:
    """Reduce-scatter then all-gather: 2(n-1) steps of size/n each (Patarasuk & Yuan 2009, section 3).

    Raises:
        InputError: ``ranks`` < 1 or ``bandwidth`` <= 0.
    """
    return 2 * ring_all_gather_s(size_bytes, ranks, bandwidth, latency)


def ring_all_gather_s(size_bytes: float, ranks: int, bandwidth: float, latency: float) -> float:
    """n-1 steps of size/n each (Thakur, Rabenseifner & Gropp 2005, section 4.1)."""
    _check(ranks, bandwidth)
    return (ranks - 1) * (latency + size_bytes / ranks / bandwidth)


def ring_reduce_scatter_s(size_bytes: float, ranks: int, bandwidth: float, latency: float) -> float:
    """The all-gather backwards: as many steps of the same size."""
    return ring_all_gather_s(size_bytes, ranks, bandwidth, latency)


def ring_broadcast_s(size_bytes: float, ranks: int, bandwidth: float, latency: float) -> float:
    """A pipelined chain: n-1 hops of latency, then the whole buffer at full bandwidth (NCCL's ring)."""
    _check(ranks, bandwidth)
    return (ranks - 1) * latency + size_bytes / bandwidth if ranks > 1 else 0.0


def tree_all_reduce_s(size_bytes: float, ranks: int, bandwidth: float, latency: float) -> float:
    """Up and down a double binary tree, pipelined.

    Two trees carry half of the buffer each, so that every rank sends and receives it about once up and
    once down, over 2 log2(n) hops (Sanders, Speck & Träff 2009; NCCL 2.4).
    """
    _check(ranks, bandwidth)
    if ranks == 1:
        return 0.0
    return 2 * _depth(ranks) * latency + 2 * size_bytes / bandwidth


def tree_broadcast_s(size_bytes: float, ranks: int, bandwidth: float, latency: float) -> float:
    """Down a double binary tree, pipelined: log2(n) hops, then the whole buffer."""
    _check(ranks, bandwidth)
    return _depth(ranks) * latency + size_bytes / bandwidth if ranks > 1 else 0.0


def store_and_forward_broadcast_s(size_bytes: float, ranks: int, bandwidth: float, latency: float) -> float:
    """Down a binomial tree whose ranks receive all before they send: gloo's broadcast.

    A rank with c children sends to them at once over one link, c times the size; depth after depth there
    is one child less: D(D+1)/2 sizes for D = ceil(log2 n). 3 sizes for 4 ranks, as measured within 3 %
    (torch 2.13 gloo, 100 Mbit/s).
    """
    _check(ranks, bandwidth)
    depth = _depth(ranks)
    return depth * latency + depth * (depth + 1) / 2 * size_bytes / bandwidth


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
) -> float:
    """Seconds of ``operation`` by ``algorithm``; `auto` is the cheaper one, as NCCL's tuner chooses.

    ``latency`` is one hop of a ring, ``tree_latency`` one of a tree where it differs. ``host_staged``
    takes gloo's algorithms whatever ``algorithm`` says, since gloo offers no choice: a reduce-scatter
    costs an all-reduce there, and a broadcast stores and forwards. Only an all-reduce and a broadcast have
    trees; the others are rings under every name.

    Raises:
        InputError: an unknown operation or algorithm, ``ranks`` < 1 or ``bandwidth`` <= 0.
    """
    if host_staged:
        return _host_staged_s(operation, size_bytes, ranks, bandwidth, latency)
    rings = {
        "all_reduce": ring_all_reduce_s,
        "all_gather": ring_all_gather_s,
        "reduce_scatter": ring_reduce_scatter_s,
        "broadcast": ring_broadcast_s,
    }
    trees = {"all_reduce": tree_all_reduce_s, "broadcast": tree_broadcast_s}
    _check_names(operation, algorithm, rings)
    ring = rings[operation](size_bytes, ranks, bandwidth, latency)
    if algorithm == RING or operation not in trees:
        return ring
    hop = latency if tree_latency is None else tree_latency
    tree = trees[operation](size_bytes, ranks, bandwidth, hop)
    return tree if algorithm == TREE else min(ring, tree)


def _host_staged_s(operation: str, size_bytes: float, ranks: int, bandwidth: float, latency: float) -> float:
    if operation == "broadcast":
        return store_and_forward_broadcast_s(size_bytes, ranks, bandwidth, latency)
    _check_names(operation, AUTO, HOST_STAGED_LATENCY_HOPS)
    hop = latency * HOST_STAGED_LATENCY_HOPS[operation]
    if operation == "all_gather":
        return ring_all_gather_s(size_bytes, ranks, bandwidth, hop)
    return ring_all_reduce_s(size_bytes, ranks, bandwidth, hop)


def point_to_point_s(size_bytes: float, bandwidth: float, latency: float) -> float:
    """One message from one rank to another."""
    _check(2, bandwidth)
    return latency + size_bytes / bandwidth


def _depth(ranks: int) -> int:
    return math.ceil(math.log2(ranks))


def _check(ranks: int, bandwidth: float) -> None:
    if ranks < 1 or not bandwidth > 0:
        raise InputError(f"a collective of {ranks} ranks at {bandwidth} bytes/s: expected both above 0")


def _check_names(operation: str, algorithm: str, operations: dict) -> None:
    if operation not in operations:
        raise InputError(f"{operation!r} is not a collective; expected {' | '.join(operations)}")
    if algorithm not in (RING, TREE, AUTO):
        raise InputError(f"{algorithm!r} is not a collective algorithm; expected auto | ring | tree")
