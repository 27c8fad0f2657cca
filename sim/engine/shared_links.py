"""Operations of a program whose messages share links: each as fast as its max-min fair part of them lets it.

An operation that communicates takes its own seconds while nobody else uses its links. Its flows are laid on
the routes of a fabric; when operations are under way together, every flow has its max-min fair rate
(`network/flows`), and an operation goes on as much more slowly as its slowest flow does. Rates change
whenever an operation or one of its flows begins or ends. Whoever never shares a link ends when the contract
of `program.py` says, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from heapq import heappop, heappush

import numpy as np

from ..network.fabrics.fabric import Fabric
from ..network.flows.flows import Flows, Network, max_min_rates
from ..program.arrays import flatten
from ..program.checks import deadlock
from ..program.program import Program

BEGINS, ENDS = -2, -1
"""Versions of events that nothing changes; those of operations that share links count from 0."""

ALIKE = 1e-9
"""Relative difference of rates below which a flow is as fast as alone."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Traffic:
    """The flows of one operation; arrays have a value a flow."""

    fabric: Fabric
    sources: np.ndarray
    """hosts, int64[n]"""
    targets: np.ndarray
    shares: np.ndarray
    """Of the bytes of the operation: any unit, since only their ratios count."""

    @cached_property
    def routes(self) -> tuple[np.ndarray, ...]:
        """By flow: its links."""
        offsets, links = self.fabric.routes(self.sources, self.targets)
        return tuple(np.split(links, offsets[1:-1]))

    @cached_property
    def links(self) -> tuple[int, ...]:
        """All of them, each once."""
        return tuple(np.unique(np.concatenate([np.zeros(0, np.int32), *self.routes])).tolist())

    @cached_property
    def alone(self) -> np.ndarray:
        """bytes/s of each flow while no other operation is under way, float64[n]"""
        return rates(self.fabric, self.routes)

    @cached_property
    def parts(self) -> np.ndarray:
        """Of the operation's seconds alone: when each flow is over; the last at 1."""
        took = self.shares / self.alone
        return took / took.max()


def rates(fabric: Fabric, routes: Sequence[np.ndarray]) -> np.ndarray:
    """Max-min fair bytes/s of flows over ``routes`` (links of each), float64[n]."""
    used = np.unique(np.concatenate(routes))
    flows = Flows(
        offsets=np.cumsum([0, *map(len, routes)]),
        links=np.searchsorted(used, np.concatenate(routes)).astype(np.int32),
        sizes=np.ones(len(routes)),
        starts=np.zeros(len(routes)),
    )
    network = Network(bandwidth=fabric.link_bandwidth[used], latency=np.zeros(len(used)))
    return max_min_rates(flows, network)


@dataclass(slots=True)
class _UnderWay:
    """An operation that communicates."""

    traffic: Traffic
    left: np.ndarray
    """Seconds that each flow would still take alone."""
    speed: np.ndarray
    """Of alone, since ``since``."""
    since: float
    due: float
    """When it would end if nothing changed."""
    disturbed: bool = False
    version: int = 0
    open: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Flows that are not over."""


def run_on_links(
    program: Program, traffic: Mapping[int, Traffic], durations: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Start and end of every operation of ``program`` (unfolded, without resources), float64[n] each.

    ``traffic`` is that of the operations that communicate, by id; ``durations`` replaces the seconds that
    operations take alone.

    Raises:
        InputError: operations that can never start, or seconds that are negative or not finite.
    """
    return _Run(program, traffic, durations).times()


class _Run:
    def __init__(self, program: Program, traffic: Mapping[int, Traffic], durations: np.ndarray | None):
        flat = flatten(program)
        self.program, self.traffic = program, traffic
        self.durations = (flat.durations if durations is None else durations).tolist()
        self.waits = flat.waits.tolist()
        self.edge_from, self.edge_to, self.edge_delay = flat.as_lists[:3]
        self.starts, self.ends = np.zeros(flat.operations), np.zeros(flat.operations)
        self.events: list[tuple[float, int, int]] = []
        """(moment, operation, version): `BEGINS`, `ENDS`, or which of the plans for its next event it is."""
        self.under_way: dict[int, _UnderWay] = {}
        self.users: dict[int, set[int]] = {}
        """By link: the operations under way that use it."""

    def times(self) -> tuple[np.ndarray, np.ndarray]:
        done = 0
        for op, waits in enumerate(self.waits):
            if waits == 0:
                heappush(self.events, (0.0, op, BEGINS))
        while self.events:
            now, op, version = heappop(self.events)
            if version == BEGINS:
                self._begin(op, now)
            elif version == ENDS:
                done += self._end(op, now)
            elif op in self.under_way and self.under_way[op].version == version:
                done += self._event(op, now)
        if done < len(self.waits):
            raise deadlock(self.program, np.flatnonzero(np.array(self.waits)).tolist())
        return self.starts, self.ends

    def _begin(self, op: int, now: float) -> None:
        self.starts[op] = now
        traffic = self.traffic.get(op)
        if traffic is None or not traffic.links or self.durations[op] == 0.0:
            heappush(self.events, (now + self.durations[op], op, ENDS))
            return
        flows = np.arange(len(traffic.parts))
        self.under_way[op] = _UnderWay(
            traffic=traffic,
            left=self.durations[op] * traffic.parts,
            speed=np.ones(len(flows)),
            since=now,
            due=now + self.durations[op],
            open=flows,
        )
        for link in traffic.links:
            self.users.setdefault(link, set()).add(op)
        self._share(self._together(op), now)

    def _event(self, op: int, now: float) -> int:
        """An operation ends, or one of its flows does and leaves its links to others."""
        found = self.under_way[op]
        if now < found.due:
            self._share(self._together(op), now)
            return 0
        del self.under_way[op]
        others = self._leave(op, found)
        done = self._end(op, now)
        while others:
            together = self._together(others.pop())
            others -= together
            self._share(together, now)
        return done

    def _leave(self, op: int, found: _UnderWay) -> set[int]:
        others: set[int] = set()
        for link in found.traffic.links:
            self.users[link].discard(op)
            others |= self.users[link]
        return others

    def _end(self, op: int, now: float) -> int:
        self.ends[op] = now
        for edge in range(self.edge_from[op], self.edge_from[op + 1]):
            after, ready = self.edge_to[edge], now + self.edge_delay[edge]
            self.starts[after] = max(self.starts[after], ready)
            self.waits[after] -= 1
            if self.waits[after] == 0:
                heappush(self.events, (float(self.starts[after]), after, BEGINS))
        return 1

    def _together(self, op: int) -> set[int]:
        """Operations that share links with ``op``, with those, and so on."""
        found, new = {op}, [op]
        while new:
            for link in self.under_way[new.pop()].traffic.links:
                more = self.users[link] - found
                found |= more
                new += more
        return found

    def _share(self, together: set[int], now: float) -> None:
        """New rates of all flows of operations that meet, and when each will end."""
        ordered = sorted(together)
        if len(ordered) == 1 and not self.under_way[ordered[0]].disturbed:
            return self._plan(ordered[0])
        for op in ordered:
            self._advance(self.under_way[op], now)
        own = [self.under_way[op] for op in ordered]
        found = rates(
            own[0].traffic.fabric, [one.traffic.routes[flow] for one in own for flow in one.open.tolist()]
        )
        cuts = np.cumsum([len(one.open) for one in own])[:-1]
        for op, one, rate in zip(ordered, own, np.split(found, cuts), strict=True):
            speed = rate / one.traffic.alone[one.open]
            speed = np.where(speed > 1 - ALIKE, 1.0, speed)
            changed = not np.array_equal(speed, one.speed[one.open])
            one.speed[one.open] = speed
            if changed or one.disturbed:
                one.disturbed = True
                one.due = now + float((one.left[one.open] / speed).max())
            self._plan(op)
        return None

    def _advance(self, one: _UnderWay, now: float) -> None:
        """What each flow has done since its rate was last set."""
        one.left[one.open] -= (now - one.since) * one.speed[one.open]
        one.since = now
        over = one.left <= 1e-12 * max(one.due - now, 0.0) + 1e-18
        still = one.open[~over[one.open]]
        one.open = still if len(still) else one.open[-1:]
        one.left = np.maximum(one.left, 0.0)

    def _plan(self, op: int) -> None:
        """The next event: the first of its flows is over, or all are."""
        one = self.under_way[op]
        one.version += 1
        moment = one.due
        if one.disturbed and len(one.open) > 1:
            first = one.since + float((one.left[one.open] / one.speed[one.open]).min())
            if first < one.due * (1 - ALIKE) and not math.isclose(first, one.since, rel_tol=1e-15):
                moment = first
        heappush(self.events, (moment, op, one.version))
