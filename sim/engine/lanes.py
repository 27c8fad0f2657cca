"""Many lanes of one folded Program in one pass: every rank with its own jitter, every sample at once.

Operations are taken in an order in which each comes after what it waits for, and each for all lanes: its end
times are one row, lanes × samples. A row lives until its last reader has read it, so memory holds what is
under way at one time and does not grow with the number of operations. Results are those of the unfolded
Program with the durations that `program.py` states, bit for bit.

In a row the folded axes lie in reverse, fastest last-named, with the samples fastest of all: lanes that meet
over the last axis, tensor-parallel ranks, are then whole slices that numpy and numba compare side by side.
The kernel exists twice: on rows for numpy, and as loops for numba, which runs them four times as fast.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..errors import InputError
from ..jit import compiled as compile_kernel
from ..jit import worthwhile
from ..program.flat import Folded
from ..program.ring_steps import PATTERNS, pattern_ends, step_shares
from ..variability.jitter import (
    GAMMA,
    QUANTILE_SHIFT,
    LaneFactors,
    lognormal_quantiles,
    operation_keys,
    sample_key,
    splitmix64,
)
from .lane_order import LaneOrder, lane_order
from .lanes_kernel import lanes_kernel

COMPILE_FROM, LOADED_FROM = 100_000_000, 50_000
"""Operations × lanes × samples from which numba pays: numpy makes 50 to 100 million of them a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneTimes:
    """What is kept of a run over n operations."""

    makespans: np.ndarray
    """float64[samples], seconds"""
    starts: np.ndarray
    """float64[kept, n], seconds, of the lanes that were to be kept"""
    ends: np.ndarray
    """float64[kept, n]"""


ALIKE = LaneFactors()


def run_lanes(
    folded: Folded,
    factors: LaneFactors = ALIKE,
    *,
    keep: Sequence[tuple[int, int]] = (),
    order: LaneOrder | None = None,
    compiled: bool | None = None,
) -> LaneTimes:
    """Run every lane and sample of ``folded``.

    ``keep`` names the lanes whose times are wanted, as (place of the sample, lane). ``order`` spares the work
    of `lane_order` when one Program is run often. ``compiled`` says whether numba runs it; without it the
    amount of work decides.

    Raises:
        InputError: operations that can never start or that share resources (unfold these), or bad factors.
    """
    if folded.flat.resources:
        raise InputError("lanes of a program with shared resources cannot be run in one pass; unfold it")
    run = _Run(folded, factors, order or lane_order(folded.flat), keep)
    if compiled is None:
        work = folded.flat.operations * run.width
        compiled = worthwhile(lanes_kernel, work, COMPILE_FROM, LOADED_FROM)
    return run.times(compiled)


@dataclass(frozen=True, kw_only=True)
class Meeting:
    """How the lanes of one kind of operation lie in a row."""

    views: tuple[tuple[int, int, int], ...]
    """For each axis over which lanes meet: (slices, members, places), a row's shape seen from that axis."""
    leaders: np.ndarray
    """int64[width]: by place, that of the first lane it meets"""
    span: int
    """Places up to the last leader: only they need seconds."""


def meeting_of(sizes: Sequence[int], samples: int, sync: int) -> Meeting:
    """How lanes on axes of ``sizes``, slowest first, meet over those whose bits are set in ``sync``."""
    views = []
    grid = np.arange(math.prod(sizes) * samples).reshape([*sizes[::-1], samples])
    for axis, size in enumerate(sizes):
        if sync >> axis & 1 and size > 1:
            views.append((math.prod(sizes[axis + 1 :]), size, math.prod(sizes[:axis]) * samples))
            dimension = len(sizes) - 1 - axis
            grid = np.broadcast_to(grid.take([0], axis=dimension), grid.shape)
    leaders = grid.reshape(-1)
    return Meeting(views=tuple(views), leaders=leaders, span=int(leaders.max()) + 1)


def _slowness(folded: Folded, factors: LaneFactors) -> np.ndarray:
    """float64[samples, ranks]: factors on the time of each rank's compute; no ranks where none is slow."""
    samples = len(factors.samples)
    if factors.slow is None:
        return np.ones((samples, 0))
    slow = np.asarray(factors.slow, dtype=np.float64)
    ranks = int(folded.rank.max(initial=-1)) + folded.lanes
    if slow.shape[-1] < ranks:
        raise InputError(f"slowness of {slow.shape[-1]} ranks is given; the program has {ranks}")
    return np.ascontiguousarray(np.broadcast_to(slow, (samples, slow.shape[-1])))


class _Run:
    """Rows and all that does not change from one operation to the next."""

    def __init__(
        self, folded: Folded, factors: LaneFactors, order: LaneOrder, keep: Sequence[tuple[int, int]]
    ) -> None:
        self.folded, self.factors, self.order = folded, factors, order
        self.samples = len(factors.samples)
        self.width = folded.lanes * self.samples
        sizes = [*folded.axes.values()]
        self.lane = np.arange(folded.lanes).reshape(sizes).transpose().reshape(-1)
        """The lane at each place, of one sample."""
        place = np.empty(folded.lanes, dtype=np.int64)
        place[self.lane] = np.arange(folded.lanes)
        self.kept = np.array([place[lane] * self.samples + sample for sample, lane in keep], dtype=np.int64)
        self.meetings = [meeting_of(sizes, self.samples, sync) for sync in range(1 << len(sizes))]
        self.table = lognormal_quantiles(factors.cv) if factors.cv else np.zeros(0)
        self.counters = (self.lane.astype(np.uint64) + np.uint64(1)) * np.uint64(GAMMA)
        self.sample_keys = np.array([sample_key(factors.seed, s) for s in factors.samples], dtype=np.uint64)
        self.slow = _slowness(folded, factors)
        """By sample and rank; no ranks if none is slow."""
        self.rows = np.zeros((order.rows, self.width))
        self.last = np.zeros(self.width)
        self.starts = np.zeros((len(keep), folded.flat.operations))
        self.ends = np.zeros((len(keep), folded.flat.operations))

    def times(self, compiled: bool) -> LaneTimes:
        """Run the whole order, pausing at operations whose lanes pass data on step by step."""
        kernel = compile_kernel(lanes_kernel) if compiled else None
        order, patterns = self.order.operations, self.folded.pattern
        begin = 0
        for pause in np.flatnonzero(patterns[order]).tolist():
            self._run_segment(begin, pause, kernel)
            self._run_pattern(int(order[pause]))
            begin = pause + 1
        self._run_segment(begin, len(order), kernel)
        makespans = self.last.reshape(-1, self.samples).max(axis=0)
        return LaneTimes(makespans=makespans, starts=self.starts, ends=self.ends)

    def _run_segment(self, begin: int, end: int, kernel) -> None:
        if kernel is None:
            for op in self.order.operations[begin:end].tolist():
                self._run_row(op)
        elif end > begin:
            kernel(
                self.order.operations[begin:end], *self._tables, self.rows, self.last, self.starts, self.ends
            )

    @cached_property
    def _tables(self) -> tuple[np.ndarray, ...]:
        """What `lanes_kernel` reads, in its order."""
        flat, order = self.folded.flat, self.order
        views = [np.array(meeting.views, dtype=np.int64).reshape(-1, 3) for meeting in self.meetings]
        view_from = np.cumsum([0, *(len(view) for view in views)])
        return (
            order.row,
            order.source_from,
            order.source,
            order.delay,
            order.is_last,
            flat.durations,
            self.folded.sync,
            self.folded.rank,
            view_from,
            np.concatenate(views),
            np.array([meeting.span for meeting in self.meetings]),
            np.array([meeting.leaders[self.kept] for meeting in self.meetings]),
            self.kept,
            self.table,
            self.sample_keys,
            self.counters,
            self.slow,
            self.lane,
        )

    def _run_row(self, op: int) -> None:
        """What `lanes_kernel` does for one operation."""
        row, meeting = self._ready(op), self.meetings[self.folded.sync[op]]
        for view in meeting.views:
            row.reshape(view)[:, 0] = row.reshape(view).max(axis=1)
        self.starts[:, op] = row[meeting.leaders[self.kept]]
        row[: meeting.span] += self._seconds(op, self.folded.flat.durations[op], meeting.span)
        for view in meeting.views[::-1]:
            row.reshape(view)[:, 1:] = row.reshape(view)[:, :1]
        self._done(op, row)

    def _ready(self, op: int) -> np.ndarray:
        """The operation's row, holding when all that it waits for is over on each lane."""
        order = self.order
        row = self.rows[order.row[op]]
        row[:] = 0.0
        for edge in range(order.source_from[op], order.source_from[op + 1]):
            before = self.rows[order.row[order.source[edge]]]
            delay = order.delay[edge]
            np.maximum(row, before + delay if delay else before, out=row)
        return row

    def _seconds(self, op: int, duration: float, span: int) -> float | np.ndarray:
        """How long an operation takes at the first ``span`` places, were they all alone."""
        seconds: float | np.ndarray = duration
        lanes = -(-span // self.samples)
        if len(self.table):
            keys = operation_keys(np.array([op], dtype=np.uint64), self.sample_keys)
            draws = splitmix64(self.counters[:lanes, None] + keys) >> np.uint64(QUANTILE_SHIFT)
            seconds = duration * self.table[draws.reshape(-1)[:span]]
        rank = self.folded.rank[op]
        if self.slow.size and rank >= 0:
            seconds = seconds * self.slow[:, rank + self.lane[:lanes]].T.reshape(-1)[:span]
        return seconds

    def _done(self, op: int, row: np.ndarray) -> None:
        self.ends[:, op] = row[self.kept]
        if self.order.is_last[op]:
            np.maximum(self.last, row, out=self.last)

    def _run_pattern(self, op: int) -> None:
        """One operation whose lanes pass their data on step by step, group by group and sample by sample."""
        pattern, meeting = PATTERNS[self.folded.pattern[op]], self.meetings[self.folded.sync[op]]
        row = self._ready(op)
        self.starts[:, op] = row[self.kept]
        groups = self._groups(meeting)
        shares = step_shares(pattern, groups.shape[1])
        if not len(shares):
            row += self._seconds(op, self.folded.flat.durations[op], self.width)
            return self._done(op, row)
        distinct = shares if pattern == "halving_doubling" else shares[:1]
        own = [self._seconds(op, self.folded.flat.durations[op] * s, self.width) for s in distinct.tolist()]
        step_s = np.stack([np.broadcast_to(seconds, (self.width,)) for seconds in own])
        for places in groups:
            row[places] = pattern_ends(pattern, row[places], np.ascontiguousarray(step_s[:, places]))
        return self._done(op, row)

    def _groups(self, meeting: Meeting) -> np.ndarray:
        """Places that meet, by lane within each group: int64[groups, members]."""
        lanes = np.repeat(self.lane, self.samples)
        by_group = np.lexsort((lanes, meeting.leaders))
        return by_group.reshape(len(np.unique(meeting.leaders)), -1)
