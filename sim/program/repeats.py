"""Which operations of a thinned plan those of the whole plan repeat."""

from __future__ import annotations

import numpy as np

from ..plan.action import Kind
from ..plan.action_table import CODE
from .built import Built, Made
from .steps import StepKind, WaitsFor
from .thinned import Thinned


class Repeats:
    """Operations of the thinned plan (t of them), and which of them each of the whole plan's repeats."""

    def __init__(self, thinned: Thinned, built: Built) -> None:
        self.thinned, self.built = thinned.repeats, built
        self.columns = self.thinned.columns
        self.program = built.program
        self.made = self._made_by_action()
        """By kept action: what its steps came to, in order."""
        columns = self.columns
        self.is_pass = np.zeros(columns.count, dtype=np.bool_)
        self.is_pass[columns.part_of] = True
        self.template = np.zeros(columns.count, dtype=np.int64)
        """By action: the first operation that it repeats."""
        self.counts = np.zeros(columns.count, dtype=np.int64)
        """By action: its operations."""
        self._count()
        self.op = np.concatenate([[0], np.cumsum(self.counts)])
        """By action: its first operation."""
        self.of_template = np.repeat(self.template - self.op[:-1], self.counts) + np.arange(self.op[-1])
        """By operation: which of the thinned plan it repeats."""
        self.result = self.op[1:] - 1
        """By action: the operation after which its result can be sent on."""
        self.whole = np.full(len(self.program.operations), -1)
        """By operation of the thinned plan: itself in the whole one."""
        self._place_kept()

    def _made_by_action(self) -> dict[int, list[Made]]:
        """Steps belong to the kept actions in order; reductions that were put behind a part of a pass, since
        their bucket is whole there, belong to the pass."""
        columns, kept = self.columns, self.thinned.kept
        found: dict[int, list[Made]] = {}
        queues: list[list[int]] = []
        for begin, end in zip(columns.first[:-1].tolist(), columns.first[1:].tolist(), strict=True):
            quiet = columns.kind[begin:end] == CODE[Kind.RESHARD]
            queues.append((begin + np.flatnonzero(kept[begin:end] & ~quiet)).tolist()[::-1])
        places = [-1] * len(queues)
        whole: list[set[tuple[int, int]]] = [set() for _ in queues]
        for made in self.built.made:
            rank, step = made.pipeline_rank, made.step
            behind = (
                step.waits_for is WaitsFor.BUCKET and (step.action.stage, step.action.bucket) in whole[rank]
            )
            repeats = not step.is_first or self._goes_on(made, found.get(places[rank], []))
            if not behind and not repeats:
                places[rank] = self._next(queues[rank], made)
            if step.kind is StepKind.BLOCK and step.bucket >= 0:
                whole[rank].add((step.action.stage, step.bucket))
            found.setdefault(places[rank], []).append(made)
        return found

    def _next(self, queue: list[int], made: Made) -> int:
        """The next action that comes to something: reductions of a bucket that was reduced are over."""
        place = queue.pop()
        while CODE[made.step.action.kind] != self.columns.kind[place]:
            place = queue.pop()
        return place

    @staticmethod
    def _goes_on(made: Made, before: list[Made]) -> bool:
        """Whether a collective is another of the same action."""
        step = made.step
        if (
            step.kind is not StepKind.COLLECTIVE
            or not before
            or before[-1].step.kind is not StepKind.COLLECTIVE
        ):
            return False
        last = before[-1].step
        return last.action is step.action and last.collective is not step.collective

    def _count(self) -> None:
        places = np.array(list(self.made), dtype=np.int64)
        begins = [parts[0].operations.start for parts in self.made.values()]
        counts = [sum(len(part.operations) for part in parts) for parts in self.made.values()]
        repeated = np.flatnonzero(self.thinned.like >= 0)
        like = self.thinned.like[repeated]
        for column, own in ((self.template, begins), (self.counts, counts)):
            column[places] = own
            column[repeated] = column[like]
            column[places] = own

    def _place_kept(self) -> None:
        for place, parts in self.made.items():
            ids = [op for part in parts for op in part.operations]
            begin = int(self.op[place])
            self.of_template[begin : begin + len(ids)] = ids
            self.whole[ids] = np.arange(begin, begin + len(ids))
            passes = [part.operations[-1] for part in parts if part.step.kind is StepKind.BLOCK]
            if passes:
                self.result[place] = self.whole[passes[-1]]
