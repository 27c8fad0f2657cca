"""A rank's actions cut into steps: what the builder adds one after the other, each with its layers.

A pass is a step a block (`plan/blocks.py`). What gathers a block's parameters is issued as many blocks ahead
as its UNSHARD says; what reduces a bucket of gradients, right behind the block after which it is whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ..plan.action import Action, Kind
from ..plan.blocks import PASSES, Block, blocks_of
from ..plan.plan import Plan
from ..plan.traffic import Collective


class StepKind(Enum):
    """What a step is."""

    BLOCK = "block"
    """Of a pass."""
    COLLECTIVE = "collective"
    HOST = "host"
    """A copy to host memory or back: an OFFLOAD or a FETCH."""
    OTHER = "other"
    """The action itself."""


class WaitsFor(Enum):
    """What a collective's data come of."""

    BLOCK = "block"
    """The block with the number `after`."""
    BUCKET = "bucket"
    """The gradients of its action's bucket."""
    LAST = "last"
    """The rank's last operation."""


@dataclass(slots=True, kw_only=True)
class Step:
    """One thing a rank does. Blocks are numbered as they come; `number` is the one it is, or serves."""

    action: Action
    kind: StepKind
    layers: tuple[tuple[int, ...], ...] = ()
    """Those of each pass of the action: of one, or of the two of an overlap."""
    number: int = -1
    collective: Collective | None = None
    waits_for: WaitsFor = WaitsFor.LAST
    """Of a collective."""
    after: int = -1
    """Number of the block that must be over; -1 is none."""
    bucket: int = -1
    """Of a block: the bucket of gradients that is whole after it."""
    is_first: bool = True
    """The first block of its action."""


def steps_of(plan: Plan, pipeline_rank: int) -> list[Step]:
    """All steps of the ranks of a pipeline stage, in order of issue."""
    return _Cutter(plan, pipeline_rank).steps()


class _Cutter:
    def __init__(self, plan: Plan, pipeline_rank: int):
        self.plan = plan
        self.actions, self.blocks = plan.actions[pipeline_rank], blocks_of(plan, pipeline_rank)
        self.cut: list[Step] = []
        self.whole: dict[tuple[int, int], int] = {}
        """(stage, bucket) to the number of the last block that makes it whole."""
        self.behind: dict[int, list[Step]] = {}
        """By number of a block: what is issued right behind it."""
        self.ahead: dict[int, list[Step]] = {}
        """By number of a block: what is issued before it."""
        self.passed = 0
        """Blocks so far."""

    def steps(self) -> list[Step]:
        for action, blocks in zip(self.actions, self.blocks, strict=True):
            self._cut(action, blocks)
        return self._in_order()

    def _cut(self, action: Action, blocks: tuple[Block, ...]) -> None:
        kind = action.kind
        if kind in PASSES:
            self._cut_pass(action, blocks)
        elif kind in (Kind.OFFLOAD, Kind.FETCH):
            layers = (self._layers(action.stage),)
            self.cut.append(Step(action=action, kind=StepKind.HOST, layers=layers, after=self.passed - 1))
        elif kind is Kind.UNSHARD:
            if action.ahead < 0:
                self._collectives(action, self.plan.gatherings(self._layers(action.stage)), WaitsFor.LAST)
        elif kind is Kind.REDUCE_GRAD:
            waits_for = WaitsFor.BUCKET if self.plan.strategy.overlap_gradients else WaitsFor.LAST
            self._collectives(action, self.plan.reductions(action.stage, action.bucket), waits_for)
        elif kind is Kind.AVERAGE:
            for stage in self.plan.rank_stages(action.rank):
                self._collectives(action, self.plan.averages(stage.index), WaitsFor.LAST)
        elif kind is not Kind.RESHARD:
            self.cut.append(Step(action=action, kind=StepKind.OTHER))

    def _layers(self, stage: int) -> tuple[int, ...]:
        return tuple(self.plan.stages[stage].layer_indices)

    def _collectives(self, action: Action, collectives: tuple[Collective, ...], waits_for: WaitsFor) -> None:
        """Those that follow the first wait for it by the order of their stream. What reduces a bucket is
        issued once the bucket is whole, in the middle of the backward."""
        steps = [
            Step(action=action, kind=StepKind.COLLECTIVE, collective=c, waits_for=waits_for)
            for c in collectives
        ]
        whole_after = self.whole.get((action.stage, action.bucket))
        if waits_for is WaitsFor.BUCKET and whole_after is not None:
            self.behind.setdefault(whole_after, []).extend(steps)
        else:
            self.cut += steps

    def _cut_pass(self, action: Action, blocks: tuple[Block, ...]) -> None:
        for place, block in enumerate(blocks):
            if block.ahead >= 0:
                self._gather_ahead(action, block)
            step = Step(
                action=action,
                kind=StepKind.BLOCK,
                layers=block.layers,
                number=self.passed,
                bucket=block.bucket,
                is_first=place == 0,
            )
            self.cut.append(step)
            if block.bucket >= 0:
                self.whole[action.stage, block.bucket] = self.passed
            self.passed += 1

    def _gather_ahead(self, action: Action, block: Block) -> None:
        issued = self.passed - block.ahead
        for collective in self.plan.gatherings(i for part in block.layers for i in part):
            step = Step(
                action=Action(action.stage, Kind.UNSHARD),
                kind=StepKind.COLLECTIVE,
                number=self.passed,
                collective=collective,
                waits_for=WaitsFor.BLOCK,
                after=issued - 1,
            )
            self.ahead.setdefault(max(0, issued), []).append(step)

    def _in_order(self) -> list[Step]:
        """Put what is issued ahead before its block, and what is issued behind one right after it."""
        ordered: list[Step] = []
        for step in self.cut:
            if step.kind is StepKind.BLOCK:
                ordered += [*self.ahead.get(step.number, ()), step, *self.behind.get(step.number, ())]
            else:
                ordered.append(step)
        return ordered
