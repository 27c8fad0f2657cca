"""A rank's actions cut into steps: what the builder adds one after the other, each with its layers.

A pass is cut where gradients become whole or parameters must be gathered, block by block. Gathering is
issued ahead of the pass that needs it, by the strategy's prefetch, as FSDP does; what is in host memory is
fetched one pass ahead.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..costs.traffic import Collective, averaging, gathering, reduction, split_parameters
from ..plan.action import BACKWARDS, Action, Actions, Kind
from ..plan.plan import Plan

PASSES = (Kind.FORWARD, Kind.BACKWARD, Kind.INPUT_GRADIENT, Kind.WEIGHT_GRADIENT, Kind.OVERLAP)


@dataclass(slots=True, kw_only=True)
class Step:
    """One thing a rank does. Passes are numbered as they come; `number` is the pass it is, or serves."""

    action: Action
    what: str
    """`pass`, `collective`, `offload`, `fetch`, or `other`: the action itself."""
    layers: tuple[tuple[int, ...], ...] = ()
    """Those of each pass of the action: of one, or of the two of an overlap."""
    number: int = -1
    collective: Collective | None = None
    waits_for: str = ""
    """A collective's inputs: `pass` `after`; `bucket` of its action; `last` operation of the rank."""
    after: int = -1
    """Number of the pass that must be over."""
    bucket: int = -1
    """Of a pass: the bucket of gradients that is whole after it."""
    is_first: bool = True
    """The first segment of its action."""


def steps_of(plan: Plan, pipeline_rank: int) -> list[Step]:
    """All steps of the ranks of a pipeline stage, in order of issue."""
    return _Cutter(plan, plan.actions[pipeline_rank]).steps()


class _Cutter:
    def __init__(self, plan: Plan, actions: Actions):
        self.plan, self.job, self.strategy = plan, plan.job, plan.strategy
        self.actions = actions
        self.reducing = _reducing(actions) if self.strategy.overlap_gradients else set()
        self.cut: list[Step] = []
        self.to_gather: set[int] = set()
        """Stages whose parameters the next pass must gather."""
        self.whole: dict[tuple[int, int], int] = {}
        """(stage, bucket) to the number of the last pass that makes it whole."""
        self.behind: dict[int, list[Step]] = {}
        """By number of a pass: what is issued right behind it."""
        self.ahead: list[tuple[int, Step]] = []
        """(number of the pass before which it is issued, step)"""
        self.offloaded: dict[tuple[int, int], int] = {}
        """(stage, micro-batch) to the number of the forward after which its activations leave."""
        self.passes = 0

    def steps(self) -> list[Step]:
        for place, action in enumerate(self.actions):
            self._cut(place, action)
        return self._in_order()

    def _cut(self, place: int, action: Action) -> None:
        kind = action.kind
        if kind in PASSES:
            self._cut_pass(place, action)
        elif kind is Kind.UNSHARD:
            if self.strategy.shards_parameters:
                self.to_gather.add(action.stage)
            else:
                self._collectives(action, self._gathering(self._layers(action.stage)), "last")
        elif kind is Kind.RESHARD:
            self.to_gather.discard(action.stage)
        elif kind is Kind.REDUCE_GRAD:
            dense, experts = self._parameters(self.plan.stages[action.stage].buckets[action.bucket])
            waits_for = "bucket" if self.strategy.overlap_gradients else "last"
            self._collectives(action, reduction(self.job, self.strategy, dense, experts), waits_for)
        elif kind is Kind.AVERAGE:
            for stage in self.plan.rank_stages(action.rank):
                dense, experts = self._parameters(tuple(stage.layer_indices))
                self._collectives(action, averaging(self.job, dense, experts), "last")
        else:
            self.cut.append(Step(action=action, what="other"))

    def _layers(self, stage: int) -> tuple[int, ...]:
        return tuple(self.plan.stages[stage].layer_indices)

    def _parameters(self, layers: tuple[int, ...]) -> tuple[float, float]:
        return split_parameters((self.job.model.layers[i] for i in layers), self.strategy)

    def _gathering(self, layers: tuple[int, ...]) -> tuple[Collective, ...]:
        return gathering(self.job, self.strategy, *self._parameters(layers))

    def _collectives(self, action: Action, collectives: tuple[Collective, ...], waits_for: str) -> None:
        """Those that follow the first wait for it by the order of their stream. What reduces a bucket is
        issued once the bucket is whole, in the middle of the backward."""
        steps = [
            Step(action=action, what="collective", collective=c, waits_for=waits_for) for c in collectives
        ]
        whole_after = self.whole.get((action.stage, action.bucket))
        if waits_for == "bucket" and whole_after is not None:
            self.behind.setdefault(whole_after, []).extend(steps)
        else:
            self.cut += steps

    def _cut_pass(self, place: int, action: Action) -> None:
        segments = self._segments(place, action)
        if self._is_offloaded:
            self._fetch_ahead(action)
        for number, (layers, bucket) in enumerate(segments):
            if not self.to_gather.isdisjoint(part.stage for part in action.passes):
                self._gather_ahead(action, tuple(i for part in layers for i in part))
            self.cut.append(
                Step(
                    action=action,
                    what="pass",
                    layers=layers,
                    number=self.passes,
                    bucket=bucket,
                    is_first=number == 0,
                )
            )
            if bucket >= 0:
                self.whole[action.stage, bucket] = self.passes
            self.passes += 1
        if action.kind is not Kind.WEIGHT_GRADIENT:
            self.to_gather -= {part.stage for part in action.passes}
        if self._is_offloaded:
            self._offload(action)

    def _fetch_ahead(self, action: Action) -> None:
        """A backward's activations come back one pass ahead, once they have left."""
        for part in action.passes:
            if part.kind not in (Kind.BACKWARD, Kind.INPUT_GRADIENT):
                continue
            fetch = Step(
                action=part,
                what="fetch",
                layers=(self._layers(part.stage),),
                number=self.passes,
                after=self.passes - 2,
            )
            issued = max(self.passes - 1, self.offloaded[part.stage, part.micro_batch] + 1)
            self.ahead.append((issued, fetch))

    def _offload(self, action: Action) -> None:
        for part in action.passes:
            if part.kind is Kind.FORWARD:
                self.cut.append(Step(action=part, what="offload", layers=(self._layers(part.stage),)))
                self.offloaded[part.stage, part.micro_batch] = self.passes - 1

    @property
    def _is_offloaded(self) -> bool:
        return self.strategy.offload in ("activations", "both")

    def _segments(self, place: int, action: Action) -> list[tuple[tuple[tuple[int, ...], ...], int]]:
        """(layers by pass, bucket that is whole then) of the segments of an action; -1 is no bucket."""
        if action.kind is Kind.OVERLAP:
            return [(tuple(self._layers(part.stage) for part in action.passes), -1)]
        stage = self.plan.stages[action.stage]
        if place in self.reducing and stage.buckets:
            return [((bucket,), number) for number, bucket in enumerate(stage.buckets)]
        layers = tuple(stage.layer_indices)
        if action.stage in self.to_gather and action.kind is not Kind.WEIGHT_GRADIENT:
            ordered = layers if action.kind is Kind.FORWARD else layers[::-1]
            return [(((layer,),), -1) for layer in ordered]
        return [((layers,), -1)]

    def _gather_ahead(self, action: Action, layers: tuple[int, ...]) -> None:
        if action.kind is Kind.WEIGHT_GRADIENT:
            return
        issued = self.passes - self.strategy.prefetch
        for collective in self._gathering(layers):
            step = Step(
                action=Action(action.stage, Kind.UNSHARD),
                what="collective",
                number=self.passes,
                collective=collective,
                waits_for="pass",
                after=issued - 1,
            )
            self.ahead.append((max(0, issued), step))

    def _in_order(self) -> list[Step]:
        """Put what is issued ahead before its pass, and what is issued behind one right after it."""
        before: dict[int, list[Step]] = {}
        for number, step in self.ahead:
            before.setdefault(number, []).append(step)
        ordered: list[Step] = []
        for step in self.cut:
            if step.what == "pass":
                ordered += [*before.get(step.number, ()), step, *self.behind.get(step.number, ())]
            else:
                ordered.append(step)
        return ordered


def _reducing(actions: Actions) -> set[int]:
    """Places of the backwards after which gradients are reduced."""
    last: dict[int, int] = {}
    found: set[int] = set()
    for place, action in enumerate(actions):
        for part in action.passes:
            if part.kind in BACKWARDS:
                last[part.stage] = place
        if action.kind is Kind.REDUCE_GRAD:
            found.add(last[action.stage])
    return found
