"""A Fabric: network endpoints, directed links as arrays, and the route between any two endpoints.

Nothing is one Python object a host or link: 100,000 hosts are a few arrays, and routes are computed for
whole arrays of pairs by arithmetic on their numbers. Routes are deterministic and shortest; where a
network offers several, the target's number decides (D-mod-k: Zahavi et al. 2010), so that flows to
different hosts spread over the links. Each link goes one way; its latency counts once for each crossing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ...errors import InputError

NO_LINK = -1

PORT, TRUNK, CROSSBAR, WAN = range(4)
"""Kinds of links: a host's own, one between switches, an accelerator's inside its node, one between zones."""


class Router(Protocol):
    """Says by which links messages go."""

    def __call__(self, sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Links (int64[n, steps]) of the pairs in the order of travel, `NO_LINK` where there is no step."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """How many hosts a group of this level holds, innermost level first: leaf, pod, whole."""

    name: str
    hosts: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fabric:
    """Hosts 0 .. hosts-1, links 0 .. len(link_bandwidth)-1, and the routes between hosts."""

    kind: str
    hosts: int
    link_bandwidth: np.ndarray
    """bytes/s of every directed link, float64"""
    link_latency: np.ndarray
    """seconds to cross every directed link, float64"""
    link_kind: np.ndarray
    """`PORT`, `TRUNK`, `CROSSBAR` or `WAN` of every link, int8"""
    router: Router
    levels: tuple[Level, ...] = ()
    """What a hierarchical collective nests, innermost first; each level's hosts are whole runs of numbers."""

    @property
    def links(self) -> int:
        return len(self.link_bandwidth)

    def routes(self, sources: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(offsets int64[n+1], links int32[...]): the links of pair i are links[offsets[i]:offsets[i+1]].

        A host reaches itself by no link.

        Raises:
            InputError: a number that is no host.
        """
        steps = self.steps(sources, targets)
        crossed = steps != NO_LINK
        offsets = np.zeros(len(steps) + 1, np.int64)
        np.cumsum(crossed.sum(axis=1), out=offsets[1:])
        return offsets, steps[crossed].astype(np.int32)

    def steps(self, sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """The same as a matrix int64[n, longest route], `NO_LINK` where a route has no step."""
        sources, targets = np.asarray(sources, np.int64), np.asarray(targets, np.int64)
        for ends in (sources, targets):
            if ends.size and (ends.min() < 0 or ends.max() >= self.hosts):
                raise InputError(f"a route from or to host {ends.min()} .. {ends.max()} of {self.hosts}")
        steps = self.router(sources, targets)
        steps[sources == targets] = NO_LINK
        return steps

    def latencies(self, steps: np.ndarray) -> np.ndarray:
        """Seconds one way of each route of ``steps``."""
        return np.where(steps == NO_LINK, 0.0, self.link_latency[steps]).sum(axis=1)


def link_arrays(*parts: tuple[int, int, float, float]) -> dict[str, np.ndarray]:
    """The three arrays of a Fabric, by field, of links in order: (how many, kind, bytes/s, seconds)."""
    counts, kinds, bandwidths, latencies = zip(*parts, strict=True)
    return {
        "link_bandwidth": np.repeat(np.array(bandwidths, float), counts),
        "link_latency": np.repeat(np.array(latencies, float), counts),
        "link_kind": np.repeat(np.array(kinds, np.int8), counts),
    }


def joined(*parts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Such arrays, one after the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def arrays_of(fabric: Fabric) -> dict[str, np.ndarray]:
    """The arrays of a Fabric by field."""
    return {name: getattr(fabric, name) for name in ("link_bandwidth", "link_latency", "link_kind")}


def columns(*steps: np.ndarray) -> np.ndarray:
    """Steps of routes, one array a step, as the matrix a router returns."""
    return np.stack(steps, axis=1)


def where(condition: np.ndarray, link: np.ndarray) -> np.ndarray:
    """``link`` where ``condition`` holds, else no step."""
    return np.where(condition, link, NO_LINK)


def starts(counts: Sequence[int]) -> list[int]:
    """Where each of several runs of links begins."""
    return [int(start) for start in np.cumsum([0, *counts[:-1]])]
