"""A folded Program as arrays, and its lanes written out: `fold.py` for tens of millions of operations.

No Python object is made for an operation, so 16,384 ranks with a thousand operations each take seconds and
some hundred bytes an operation. What the lanes share, as links of a network, is given by a function from
operations to resources, called with arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from .arrays import FlatProgram, flat_arrays, flatten, offsets
from .fold import lane_groups
from .program import Program
from .ring_steps import PATTERNS, step_shares, step_sources

Links = Callable[["FlatLanes"], tuple[np.ndarray, np.ndarray]]
"""Of all unfolded operations: how many resources each needs, int64[n], and which, int32[sum]."""


@dataclass(frozen=True, kw_only=True)
class Folded:
    """n operations that each stand for one on every lane, as arrays."""

    flat: FlatProgram
    axes: Mapping[str, int]
    """Sizes, slowest first, as those of the Program."""
    sync: np.ndarray
    """int64[n]: bit a is set where lanes meet over axis a"""
    pattern: np.ndarray
    """int64[n], places in `stepwise.PATTERNS`"""
    rank: np.ndarray
    """int64[n], whose compute it is on lane 0; -1 is communication"""

    @property
    def lanes(self) -> int:
        return math.prod(self.axes.values())

    def names(self, sync: int) -> tuple[str, ...]:
        """The axes whose bits are set."""
        return tuple(axis for place, axis in enumerate(self.axes) if sync >> place & 1)


@dataclass(frozen=True, kw_only=True)
class FlatLanes:
    """Where n unfolded operations come from."""

    folded: Folded
    base: np.ndarray
    """int32[n], the folded operation"""
    lane: np.ndarray
    """int32[n], its lane; where lanes meet, the first of them"""
    step: np.ndarray
    """int32[n], of a pattern, from 1 on; 0 is a lane's arrival, and all that has no pattern"""


@dataclass(frozen=True, kw_only=True)
class UnfoldedFlat:
    """Arrays of all lanes' operations, ready to be run, and where they come from."""

    flat: FlatProgram
    lanes: FlatLanes


def fold(program: Program) -> Folded:
    """The arrays of a folded Program.

    Raises:
        InputError: as `flatten`; or an operation meets over an unknown axis, or has an unknown pattern.
    """
    bits = {axis: 1 << place for place, axis in enumerate(program.axes)}
    for operation in program.operations:
        lane_groups(dict.fromkeys(program.axes, 1), operation.sync)
        if operation.pattern:
            step_shares(operation.pattern, 1)
    return Folded(
        flat=flatten(program),
        axes=dict(program.axes),
        sync=np.array([sum(bits[axis] for axis in op.sync) for op in program.operations], dtype=np.int64),
        pattern=np.array([PATTERNS.index(op.pattern) for op in program.operations], dtype=np.int64),
        rank=np.array([op.rank for op in program.operations], dtype=np.int64),
    )


def unfold_flat(folded: Folded, links: Links | None = None) -> UnfoldedFlat:
    """The arrays of `unfold`'s Program, operation for operation.

    With ``links`` operations need the resources that it gives, instead of every lane's own.
    """
    return _Lanes(folded).unfolded(links)


class _Lanes:
    """Ids of the unfolded operations: ``first[i] + place`` by operation i and lane."""

    def __init__(self, folded: Folded) -> None:
        self.folded, self.lanes = folded, folded.lanes
        self.kinds = folded.sync * len(PATTERNS) + folded.pattern
        """By operation: which lanes meet and how, one number."""
        self.groups = {kind: self._groups(kind) for kind in np.unique(self.kinds).tolist()}
        self.steps = {kind: self._shares(kind) for kind in self.groups}
        sizes = {kind: len(self.steps[kind]) * self.lanes or len(g) for kind, g in self.groups.items()}
        counts = np.zeros(len(self.kinds), dtype=np.int64)
        for kind, size in sizes.items():
            counts[self.kinds == kind] = size
        self.first = offsets(counts)

    def _groups(self, kind: int) -> np.ndarray:
        return lane_groups(self.folded.axes, self.folded.names(kind // len(PATTERNS)))

    def _shares(self, kind: int) -> np.ndarray:
        """Of an operation's seconds in its arrival, 0, and in each step; empty if lanes start together."""
        pattern = PATTERNS[kind % len(PATTERNS)]
        shares = step_shares(pattern, self.groups[kind].shape[1]) if pattern else np.zeros(0)
        return np.concatenate([[0.0], shares]) if len(shares) else shares

    def _place(self, kind: int) -> np.ndarray:
        """By lane: its part among those of one operation, int64[lanes]."""
        if len(self.steps[kind]):
            return np.arange(self.lanes)
        place = np.empty(self.lanes, dtype=np.int64)
        place[self.groups[kind]] = np.arange(len(self.groups[kind]))[:, None]
        return place

    def unfolded(self, links: Links | None) -> UnfoldedFlat:
        lanes, durations = self._origin()
        counts, resources = (links or self._own_resources)(lanes)
        sources, targets, delays = zip(*self._edges(), strict=True)
        edges = (np.concatenate(sources), np.concatenate(targets), np.concatenate(delays))
        del sources, targets, delays
        flat = flat_arrays(
            None,
            durations,
            edges,
            offsets(counts),
            resources.astype(np.int32, copy=False),
            resources=int(resources.max()) + 1 if len(resources) else 0,
        )
        return UnfoldedFlat(flat=flat, lanes=lanes)

    def _origin(self) -> tuple[FlatLanes, np.ndarray]:
        """Operation, lane and step of every unfolded one, and its seconds."""
        count = int(self.first[-1])
        lane, step = np.empty(count, dtype=np.int32), np.zeros(count, dtype=np.int32)
        base = np.repeat(np.arange(len(self.kinds), dtype=np.int32), np.diff(self.first))
        durations = self.folded.flat.durations[base]
        for kind, groups in self.groups.items():
            steps = len(self.steps[kind])
            own = self.first[:-1][self.kinds == kind, None]
            if not steps:
                lane[own + np.arange(len(groups))] = groups[:, 0]
                continue
            parts = own + np.arange(steps * self.lanes)
            lane[parts] = np.tile(np.arange(self.lanes), steps)
            step[parts] = np.repeat(np.arange(steps), self.lanes)
            durations[parts] *= np.repeat(self.steps[kind], self.lanes)
        return FlatLanes(folded=self.folded, base=base, lane=lane, step=step), durations

    def _edges(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(from, to, delay) of every edge, for each pair of kinds that edges lead between, then within steps.

        Axes in which both ends meet add nothing, so of these only the first lane counts.
        """
        flat = self.folded.flat
        yield np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0)
        sources = np.repeat(np.arange(len(self.kinds), dtype=np.int32), np.diff(flat.edge_from))
        pairs = self.kinds[sources] * (self.kinds.max(initial=0) + 1) + self.kinds[flat.edge_to]
        for pair in np.unique(pairs).tolist():
            chosen = np.flatnonzero(pairs == pair)
            ends = (sources[chosen], flat.edge_to[chosen])
            kinds = [int(self.kinds[end[0]]) for end in ends]
            lanes = self._representatives(*kinds)
            last = max(0, len(self.steps[kinds[0]]) - 1) * self.lanes
            leaves = self.first[ends[0]][:, None] + (self._place(kinds[0])[lanes] + last)
            arrives = self.first[ends[1]][:, None] + self._place(kinds[1])[lanes]
            delays = np.repeat(flat.edge_delay[chosen], len(lanes))
            yield leaves.astype(np.int32).reshape(-1), arrives.astype(np.int32).reshape(-1), delays
        for kind in self.groups:
            if len(self.steps[kind]) > 1:
                yield from self._step_edges(kind)

    def _representatives(self, one: int, other: int) -> np.ndarray:
        """Lanes that lead to different pairs of unfolded operations."""
        if len(self.steps[one]) or len(self.steps[other]):
            return np.arange(self.lanes)
        both = (one // len(PATTERNS)) & (other // len(PATTERNS))
        return lane_groups(self.folded.axes, self.folded.names(both))[:, 0]

    def _step_edges(self, kind: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """From a member's and its source's step to the member's next."""
        pattern, groups = PATTERNS[kind % len(PATTERNS)], self.groups[kind]
        operations = self.first[:-1][self.kinds == kind]
        for step in range(1, len(self.steps[kind])):
            heard = np.empty(self.lanes, dtype=np.int64)
            heard[groups] = groups[:, step_sources(pattern, groups.shape[1], step - 1)]
            own = operations[:, None] + (step * self.lanes + np.arange(self.lanes))
            for source in (np.arange(self.lanes), heard):
                leaves = operations[:, None] + ((step - 1) * self.lanes + source)
                zeros = np.zeros(own.size)
                yield leaves.astype(np.int32).reshape(-1), own.astype(np.int32).reshape(-1), zeros

    def _own_resources(self, lanes: FlatLanes) -> tuple[np.ndarray, np.ndarray]:
        """Those of each lane that meets in an operation."""
        flat = self.folded.flat
        if not flat.resources:
            return np.zeros(len(lanes.base), dtype=np.int64), np.zeros(0, dtype=np.int32)
        members = self._members(lanes)
        per_lane = np.diff(flat.slot_from)[lanes.base]
        counts = per_lane * np.array([len(row) for row in members])
        slots = [
            resource * self.lanes + lane
            for base, row in zip(lanes.base.tolist(), members, strict=True)
            for resource in flat.slot_resource[flat.slot_from[base] : flat.slot_from[base + 1]].tolist()
            for lane in row
        ]
        return counts, np.array(slots, dtype=np.int32)

    def _members(self, lanes: FlatLanes) -> list[list[int]]:
        """The lanes that meet in each unfolded operation."""
        by_first: dict[int, dict[int, list[int]]] = {}
        for kind, groups in self.groups.items():
            alone = np.arange(self.lanes)[:, None] if len(self.steps[kind]) else groups
            by_first[kind] = {int(row[0]): row.tolist() for row in alone}
        kinds = self.kinds[lanes.base].tolist()
        return [by_first[kind][lane] for kind, lane in zip(kinds, lanes.lane.tolist(), strict=True)]
