"""Lanes of a folded Program written out: `unfold` makes of each operation as many as really happen.

An operation without `sync` becomes one for each lane, one with `sync` one for each group of lanes that
differ in its axes alone, one with a `pattern` one for each lane's arrival, which takes no time, and one for
each step and lane. New ids count by old id, then by lane (of a group its first; of a pattern by step, then
lane), so ties fall alike in any form. `flat.py` does the same on arrays, for tens of millions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .program import Operation, Program, SpanLabel
from .ring_steps import step_shares, step_sources


@dataclass(frozen=True, kw_only=True)
class Unfolded:
    """A Program without axes, and where its n operations come from."""

    program: Program
    base: np.ndarray
    """int64[n], the folded operation"""
    lane: np.ndarray
    """int64[n], its lane; where lanes meet, the first of them"""
    first: list[np.ndarray]
    """By folded operation: the one that begins it, by lane."""
    last: list[np.ndarray]
    """By folded operation: the one that ends it, by lane."""


def lane_groups(axes: Mapping[str, int], sync: tuple[str, ...]) -> np.ndarray:
    """Lanes that meet over the axes ``sync``: int64[groups, members], rising both ways.

    Raises:
        InputError: ``sync`` names an axis that there is not.
    """
    unknown = [axis for axis in sync if axis not in axes]
    if unknown:
        raise InputError(f"lanes meet over {unknown[0]!r}; the folded axes are {', '.join(axes) or 'none'}")
    grid = np.arange(math.prod(axes.values())).reshape([*axes.values()])
    names = list(axes)
    apart = [place for place, axis in enumerate(names) if axis not in sync]
    together = [place for place, axis in enumerate(names) if axis in sync]
    members = math.prod(axes[names[place]] for place in together)
    return grid.transpose([*apart, *together]).reshape(-1, members)


def unfold(program: Program) -> Unfolded:
    """``program`` with an operation for everything that happens on any lane.

    Raises:
        InputError: an unknown axis or pattern, or two streams that lanes make one rank's stream of one name.
    """
    return _Unfolding(program).unfolded()


class _Unfolding:
    """Ids of the new operations by (old id, lane), known first, since references may lead forward."""

    def __init__(self, program: Program) -> None:
        self.folded = program
        self.lanes = program.lanes
        self.groups = {op.sync: lane_groups(program.axes, op.sync) for op in program.operations}
        self.first: list[np.ndarray] = []
        """By old id: the operation that begins it, by lane."""
        self.last: list[np.ndarray] = []
        """By old id: the operation that ends it, by lane."""
        self.count = 0
        for operation in program.operations:
            self._number(operation)

    def _number(self, operation: Operation) -> None:
        groups = self.groups[operation.sync]
        steps = _steps(operation, groups.shape[1])
        if steps:
            own = self.count + np.arange(self.lanes)
        else:
            own = np.empty(self.lanes, dtype=np.int64)
            own[groups] = self.count + np.arange(len(groups))[:, None]
        self.first.append(own)
        self.last.append(own + max(0, steps - 1) * self.lanes)
        self.count += steps * self.lanes or len(groups)

    def unfolded(self) -> Unfolded:
        """Write all operations out."""
        program = Program(streams=self._streams(), resources=self._resources())
        base: list[int] = []
        lane: list[int] = []
        for operation in self.folded.operations:
            groups = self.groups[operation.sync]
            if _steps(operation, groups.shape[1]):
                self._add_steps(program, operation, groups)
            else:
                for members in groups.tolist():
                    self._add(program, operation, members)
            added = len(program.operations) - len(base)
            base += [operation.id] * added
            firsts = range(self.lanes) if added > len(groups) else groups[:, 0].tolist()
            lane += [*firsts] * (added // len(firsts))
        return Unfolded(
            program=program,
            base=np.array(base, np.int64),
            lane=np.array(lane, np.int64),
            first=self.first,
            last=self.last,
        )

    def _streams(self) -> dict[tuple[int, str], int]:
        streams = {
            (rank + lane, name): stream * self.lanes + lane
            for (rank, name), stream in self.folded.streams.items()
            for lane in range(self.lanes)
        }
        if len(streams) < len(self.folded.streams) * self.lanes:
            raise InputError(f"with {self.lanes} lanes two ranks of the folded program have a rank in common")
        return streams

    def _resources(self) -> dict[tuple[str, int], int]:
        """Each lane has its own; lane 0 keeps the names."""
        return {
            (f"{kind} of lane {lane}" if lane else kind, number): resource * self.lanes + lane
            for (kind, number), resource in self.folded.resources.items()
            for lane in range(self.lanes)
        }

    def _add(self, program: Program, operation: Operation, members: list[int]) -> int:
        """One operation in which ``members`` meet."""
        parent, rank = operation.parent, operation.rank
        return program.add(
            operation.duration,
            self._on_lanes(operation.streams, members),
            after=self._after(operation, members),
            resources=self._on_lanes(operation.resources, members),
            spans=_spans(operation, members),
            parent=parent if parent < 0 else int(self.first[parent][members[0]]),
            size_bytes=operation.size_bytes,
            flops=operation.flops,
            rank=rank if rank < 0 else rank + members[0],
        )

    def _after(self, operation: Operation, members: list[int]) -> list[tuple[int, float]]:
        """What they come after on their lanes, each once."""
        waits = [(int(self.last[op][lane]), delay) for op, delay in operation.after for lane in members]
        return list(dict.fromkeys(waits))

    def _on_lanes(self, ids: tuple[int, ...], members: list[int]) -> tuple[int, ...]:
        return tuple(one * self.lanes + lane for one in ids for lane in members)

    def _add_steps(self, program: Program, operation: Operation, groups: np.ndarray) -> None:
        """An operation for each lane's arrival and each step of it; they show as one span."""
        shares = [0.0, *step_shares(operation.pattern, groups.shape[1]).tolist()]
        # (group, member) by lane
        place = np.empty((self.lanes, 2), dtype=np.int64)
        place[groups, 0] = np.arange(groups.shape[0])[:, None]
        place[groups, 1] = np.arange(groups.shape[1])
        for lane in range(self.lanes):
            op = self._add(program, operation, [lane])
            program.operations[op].duration = 0.0
        first = self.first[operation.id]
        for step in range(1, len(shares)):
            heard = step_sources(operation.pattern, groups.shape[1], step - 1)
            for lane in range(self.lanes):
                group, member = place[lane]
                before = int(first[0]) + (step - 1) * self.lanes
                parent = program.operations[int(first[lane])].parent
                program.add(
                    operation.duration * shares[step],
                    self._on_lanes(operation.streams, [lane]),
                    after=[(before + lane, 0.0), (before + int(groups[group, heard[member]]), 0.0)],
                    resources=self._on_lanes(operation.resources, [lane]),
                    parent=int(first[lane]) if parent < 0 else parent,
                    rank=operation.rank if operation.rank < 0 else operation.rank + lane,
                )


def _steps(operation: Operation, members: int) -> int:
    """Operations that a lane's part of it becomes, arrival and steps; 0 if lanes start together."""
    steps = len(step_shares(operation.pattern, members)) if operation.pattern else 0
    return steps + 1 if steps else 0


def _spans(operation: Operation, members: list[int]) -> tuple[SpanLabel, ...]:
    return tuple(
        SpanLabel(span.rank + lane, span.stream, span.action, span.stage, span.micro_batch)
        for span in operation.spans
        for lane in members
    )
