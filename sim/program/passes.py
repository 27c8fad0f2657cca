"""Passes as operations: the compute of a block, then the exchanges inside its layers that it waits for."""

from __future__ import annotations

from ..costs.pass_costs import PassCosts
from ..plan.action import BACKWARDS, Action, Kind
from .build_context import BuildContext, span_label
from .exchanges import add_exchange
from .rank_state import RankState
from .steps import Step

RECEIVES = {
    Kind.FORWARD: Kind.RECV_F,
    Kind.BACKWARD: Kind.RECV_B,
    Kind.INPUT_GRADIENT: Kind.RECV_B,
}
"""By pass: the message that it needs."""


class PassBuilder:
    """Adds the blocks of passes."""

    def __init__(self, context: BuildContext):
        self.context, self.program = context, context.program
        self.costs = [
            PassCosts(context.mixed.of(rank), context.concurrency) for rank in range(context.plan.strategy.pp)
        ]
        """By pipeline rank."""

    def block(self, rank: RankState, step: Step) -> bool:
        """Add one block of a pass; it never waits for another rank."""
        cost = self.costs[rank.pipeline_rank].of(step.action, step.layers)
        after = [(op, 0.0) for op in (*_inputs(rank, step), *rank.gathered.pop(step.number, ()))]
        start = len(self.program.operations)
        label = span_label(rank.number, step.action)
        op = self.context.placement.compute(rank.number, cost.compute_s, after, label, cost.flops)
        self._join(rank, start, step, apart=bool(after or cost.exchanges))
        for exchange in cost.exchanges:
            op = add_exchange(self.context, rank, step.action, exchange)
        rank.last_op = rank.passes[step.number] = op
        self._remember_outputs(rank, step, op)
        return True

    def _join(self, rank: RankState, start: int, step: Step, *, apart: bool) -> None:
        """Show the segments of an action as one span, unless something may lie between them."""
        if step.is_first or apart:
            rank.first_of_span = start
        for op in self.program.operations[start:]:
            if op.id != rank.first_of_span:
                op.parent = rank.first_of_span

    def _remember_outputs(self, rank: RankState, step: Step, op: int) -> None:
        for part in step.action.passes:
            if part.kind is not Kind.WEIGHT_GRADIENT:
                kind = Kind.FORWARD if part.kind is Kind.FORWARD else Kind.BACKWARD
                rank.outputs[kind, part.stage, part.micro_batch] = op
            if part.kind in BACKWARDS:
                buckets = range(len(self.context.plan.stages[part.stage].buckets))
                for bucket in buckets if step.bucket < 0 else (step.bucket,):
                    rank.buckets[part.stage, bucket] = op


def _inputs(rank: RankState, step: Step) -> list[int]:
    """What brings the messages and the activations that the passes of ``step`` need."""
    parts = [part for part in step.action.passes if part.kind in RECEIVES]
    asked = [Action(part.stage, RECEIVES[part.kind], part.micro_batch) for part in parts]
    received = [rank.received[action] for action in asked if action in rank.received]
    places = [(part.stage, part.micro_batch) for part in parts if part.kind is not Kind.FORWARD]
    return [*received, *(rank.fetched.pop(place) for place in places if place in rank.fetched)]
