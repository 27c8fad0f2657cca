"""A step as arrays: what `build.py` makes of a thinned plan, repeated for every micro-batch.

A step of 64 stages and 512 micro-batches has 130,000 operations that differ in nothing but their micro-batch.
`build.py` makes one of each kind; here they are repeated by numpy, with what they wait for, in a thousandth
of the time that objects take. Operations and their order on each rank are those of `build_program`, so
whatever is run gives the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..hardware.cluster import Cluster
from ..plan.action import Kind
from ..plan.action_table import CODE
from ..plan.plan import Plan
from ..plan.sharding import gathers_parameters
from .build import build_program
from .repeats import Repeats
from .ring_steps import PATTERNS
from .span_rows import SpanRows, labelled
from .steps import StepKind
from .thinned import thin

LARGEST_SHARE = 0.25
"""Share of a plan's actions that may be kept for repeating the rest to be worth it."""


@dataclass(frozen=True, kw_only=True)
class StepArrays:
    """n operations of the r pipeline ranks, rank after rank, each standing for one on every lane.

    ``entries`` are what ranks do in order: an operation, or, as ``-1 - op``, waiting until another rank has
    come to ``op``.
    """

    first: np.ndarray
    """int64[r + 1]: the entries of rank i are those from ``first[i]`` up to ``first[i + 1]``"""
    entries: np.ndarray
    """int64[e]"""
    durations: np.ndarray
    """float64[n], seconds"""
    streams: np.ndarray
    """int64[n, 2]: what each occupies; -1 is none"""
    waits: np.ndarray
    """int64[n, w]: operations that each comes after, apart from the order of its streams; -1 is none"""
    sync: np.ndarray
    """int64[n]: bit a is set where lanes meet over axis a"""
    pattern: np.ndarray
    """int64[n], places in `ring_steps.PATTERNS`"""
    rank: np.ndarray
    """int64[n], rows of the slowness; -1 is communication that nothing slows"""
    axes: dict[str, int]
    ranks: list[int]
    """The first rank of each pipeline rank."""
    steps: list[tuple[int, int]]
    """(rank, operation) of every optimizer step, in order on each rank."""
    slowness: np.ndarray | None
    show: Callable[[], SpanRows]
    """Makes `rows`."""

    @cached_property
    def rows(self) -> SpanRows:
        """The spans that the operations show."""
        return self.show()

    @property
    def operations(self) -> int:
        return len(self.durations)

    @property
    def lanes(self) -> int:
        """Like ranks that each operation stands for."""
        return math.prod(self.axes.values())


def step_arrays(
    plan: Plan, cluster: Cluster, *, stepwise: bool = False, always: bool = False
) -> StepArrays | None:
    """The step of ``plan`` as arrays, or None where it must be built operation by operation.

    That is where ranks share what they run on, parameters are gathered for each pass, activations leave for
    the host's memory, or so little repeats itself that it is not worth it (unless ``always``).
    """
    strategy = plan.strategy
    gathers = gathers_parameters(strategy) and strategy.replicas > 1
    if cluster.host is not None or strategy.gradient_exchange == "parameter_server" or gathers:
        return None
    thinned = thin(plan)
    if thinned is None or (thinned.repeats.share > LARGEST_SHARE and not always) or _has_copies(thinned.plan):
        return None
    return _Columns(thinned, build_program(thinned.plan, cluster, stepwise=stepwise)).arrays()


def _has_copies(plan: Plan) -> bool:
    """Whether parameters are gathered, or activations copied, for one pass."""
    return any(
        action.kind in (Kind.OFFLOAD, Kind.FETCH) or (action.kind is Kind.UNSHARD and action.ahead >= 0)
        for own in plan.actions
        for action in own
    )


class _Columns(Repeats):
    """The columns of a step that repeats itself."""

    def arrays(self) -> StepArrays:
        """All columns."""
        operations, bits = self.program.operations, {a: 1 << i for i, a in enumerate(self.program.axes)}
        sync = np.array([sum(bits[axis] for axis in op.sync) for op in operations], dtype=np.int64)
        first, entries = self._entries()
        rank_of = {number: place for place, number in enumerate(self.built.ranks)}
        steps = sorted((rank_of[rank], int(self.whole[op]), rank) for rank, op in self.built.steps)
        return StepArrays(
            first=first,
            entries=entries,
            durations=np.array([op.duration for op in operations])[self.of_template],
            streams=np.array([(*op.streams, -1, -1)[:2] for op in operations])[self.of_template],
            waits=self._waits(),
            sync=sync[self.of_template],
            pattern=np.array([PATTERNS.index(op.pattern) for op in operations])[self.of_template],
            rank=np.array([op.rank for op in operations], dtype=np.int64)[self.of_template],
            axes=dict(self.program.axes),
            ranks=self.built.ranks,
            steps=[(rank, op) for _, op, rank in steps],
            slowness=self.built.slowness,
            show=self._rows,
        )

    def _entries(self) -> tuple[np.ndarray, np.ndarray]:
        """Operations in order, with a wait for the message at each receive, and the tied reductions on both
        ranks that do them."""
        columns, message = self.columns, self.thinned.message
        gets = np.flatnonzero(message >= 0)
        entries, where = np.arange(self.op[-1]), self.op[gets]
        shown = -1 - self.op[message[gets]]
        tied = self._tied_again()
        if tied:
            places, ops = np.array(tied).T
            where, shown = np.concatenate([where, self.op[places]]), np.concatenate([shown, ops])
            by_action = np.argsort(np.concatenate([gets, places]), kind="stable")
            where, shown = where[by_action], shown[by_action]
        more = np.zeros(columns.count, dtype=np.int64)
        more[gets] = 1
        more[[place for place, _ in tied]] = 1
        first = np.concatenate([[0], np.cumsum(more + self.counts)])[columns.first]
        return first, np.insert(entries, where, shown)

    def _tied_again(self) -> list[tuple[int, int]]:
        """(action, operation) of reductions of tied gradients that another rank made."""
        tied = [place for place in self.made if self.columns.kind[place] == CODE[Kind.REDUCE_TIED]]
        by_rank: dict[int, list[int]] = {}
        for place in sorted(tied):
            by_rank.setdefault(self.made[place][0].pipeline_rank, []).append(place)
        found = []
        for together in zip(*by_rank.values(), strict=True):
            owner = next(place for place in together if self.counts[place])
            found += [(place, int(self.op[owner])) for place in together if place != owner]
        return found

    def _waits(self) -> np.ndarray:
        """What each operation comes after: passes their messages, messages what they send, and others what
        they came after in the thinned plan."""
        columns, thinned = self.columns, self.thinned
        sends = np.flatnonzero(thinned.maker >= 0)
        got = np.flatnonzero(thinned.received >= 0)
        extra = self._other_waits()
        width = max([2 if len(columns.part_of) > self.is_pass.sum() else 1, *map(len, extra.values())])
        waits = np.full((int(self.op[-1]), width), -1)
        waits[self.op[sends], 0] = self.result[thinned.maker[sends]]
        second = np.zeros(len(columns.part_of), dtype=np.int64)
        second[1:] = columns.part_of[1:] == columns.part_of[:-1]
        waits[self.op[columns.part_of[got]], second[got]] = self.op[thinned.received[got]]
        for op, own in extra.items():
            waits[op, : len(own)] = own
        return waits

    def _other_waits(self) -> dict[int, list[int]]:
        """By operation that is neither pass nor message: the last on each stream of what it comes after,
        which ends no earlier than the others there."""
        operations = self.program.operations
        found: dict[int, list[int]] = {}
        for parts in self.made.values():
            for part in parts:
                if part.step.kind is StepKind.BLOCK or part.step.action.kind in (Kind.SEND_F, Kind.SEND_B):
                    continue
                for op in part.operations:
                    last = {operations[source].streams[0]: source for source, _ in operations[op].after}
                    found[int(self.whole[op])] = [int(self.whole[source]) for source in last.values()]
        return found

    def _rows(self) -> SpanRows:
        columns = self.columns
        of_action = np.repeat(np.arange(columns.count), self.counts)
        numbered = np.zeros(len(self.program.operations), dtype=np.bool_)
        for parts in self.made.values():
            for part in parts:
                if part.step.kind is StepKind.BLOCK or part.step.action.kind in (Kind.SEND_F, Kind.SEND_B):
                    numbered[part.operations.start : part.operations.stop] = True
        moved = np.where(numbered[self.of_template], columns.micro_batch[of_action], -1)
        texts = {}
        overlaps = np.flatnonzero(columns.kind == CODE[Kind.OVERLAP])
        if len(overlaps):
            texts = self._overlap_texts(overlaps)
        return labelled(self.program, self.of_template, self.whole, moved, of_action, texts)

    def _overlap_texts(self, overlaps: np.ndarray) -> dict[int, str]:
        """By action: the text of two passes side by side."""
        columns = self.columns
        begin = np.searchsorted(columns.part_of, overlaps)
        names = [kind.value for kind in CODE]
        kind, stage, index = (
            column.tolist() for column in (columns.part_kind, columns.part_stage, columns.part_micro_batch)
        )
        return {
            place: f"({stage[i]}{names[kind[i]]}{index[i]};{stage[i + 1]}{names[kind[i + 1]]}{index[i + 1]})"
            f"{Kind.OVERLAP.value}"
            for place, i in zip(overlaps.tolist(), begin.tolist(), strict=True)
        }
