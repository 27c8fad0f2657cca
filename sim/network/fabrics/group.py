"""A group of ranks on a Fabric: what its ring reaches when it and others like it cross the same links.

Static contention: all flows of the ring at once, and of the other groups; a link's bandwidth is shared
by the flows that cross it. Groups that span nodes run one ring a member in a node, each with its part of
the bytes, as NCCL's channels do; what they do inside a node is up to the caller.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .fabric import NO_LINK, Fabric


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What the flows of a group get."""

    bandwidth: float
    """bytes/s that one rank of a ring through the group sends"""
    longest_s: float
    """seconds of the longest hop, one way"""
    average_s: float
    """seconds of the average hop between nodes"""
    kind: int
    """Kind of the link that limits, as in `fabric.py`."""


def members(ranks: np.ndarray, per_node: int) -> np.ndarray:
    """int64[nodes, members]: the ranks of each node, as many of every node as the emptiest has."""
    ordered = np.sort(np.asarray(ranks, np.int64))
    _, first, counts = np.unique(ordered // per_node, return_index=True, return_counts=True)
    return ordered[first[:, None] + np.arange(counts.min())]


def ring_reach(fabric: Fabric, ranks: np.ndarray, per_node: int, sharing: int = 1) -> Reach:
    """The reach of rings over the nodes of ``ranks`` in order, while ``sharing`` such groups run.

    The other groups are this one moved within its nodes.
    """
    grid = members(ranks, per_node)
    return flows_reach(fabric, grid, np.roll(grid, -1, axis=0), per_node, sharing, grid.shape[1])


def flows_reach(
    fabric: Fabric, sources: np.ndarray, targets: np.ndarray, per_node: int, sharing: int, parts: int
) -> Reach:
    """The reach of flows from ``sources`` to ``targets`` that carry one of ``parts`` of the bytes each."""
    steps = fabric.steps(sources.ravel(), targets.ravel())
    used = np.unique(steps[steps != NO_LINK])
    flows = [steps]
    for shift in _shifts(sources, per_node, sharing)[1:]:
        flows.append(fabric.steps(*(_moved(ends, shift, per_node) for ends in (sources, targets))))
    crossed = np.concatenate([links[links != NO_LINK] for links in flows])
    load = np.bincount(crossed, minlength=fabric.links)[used] / parts
    shares = fabric.link_bandwidth[used] / load
    narrow = int(np.argmin(shares))
    latencies = fabric.latencies(steps)
    return Reach(
        bandwidth=float(shares[narrow]),
        longest_s=float(latencies.max()),
        average_s=float(latencies.mean()),
        kind=int(fabric.link_kind[used[narrow]]),
    )


MOST_ROUNDS, LEAST_ROUNDS = 64, 4
"""Rounds of an all-to-all that are laid on the links; of more, so many spread evenly over all."""

MOST_CROSSINGS = 2**22
"""Links crossed by all rounds that are laid, about; long routes of many ranks are judged by fewer rounds."""


def all_pairs_reach(fabric: Fabric, ranks: np.ndarray, per_node: int, sharing: int = 1) -> Reach:
    """The reach of an all-to-all of ``ranks``: in round r each sends to the r-th after it, all at once.

    Large groups are judged by some rounds that stand for all.
    """
    ordered = np.sort(np.asarray(ranks, np.int64))
    count = len(ordered)
    places = np.arange(count)
    longest = fabric.steps(ordered, ordered[(places + count // 2) % count]).shape[1]
    limit = max(LEAST_ROUNDS, min(MOST_ROUNDS, MOST_CROSSINGS // (count * longest)))
    rounds = np.unique(np.linspace(1, count - 1, min(limit, count - 1)).astype(np.int64))
    targets = ordered[(places + rounds[:, None]) % count]
    sources = np.broadcast_to(ordered, targets.shape)
    return flows_reach(fabric, sources, targets, per_node, sharing, len(rounds))


def _shifts(sources: np.ndarray, per_node: int, sharing: int) -> list[int]:
    """How far each of the other groups is moved; neighbours in a node stay a block."""
    flat = np.unique(sources)
    row = flat[flat // per_node == flat[0] // per_node] % per_node
    width = len(row)
    block = width if width > 1 and row[-1] - row[0] == width - 1 else 1
    return [shift * block for shift in range(min(sharing, max(1, per_node // width)))]


def _moved(ends: np.ndarray, shift: int, per_node: int) -> np.ndarray:
    flat = ends.ravel()
    return flat // per_node * per_node + (flat % per_node + shift) % per_node
