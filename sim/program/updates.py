"""Optimizer steps of workers as operations."""

from __future__ import annotations

from ..costs.pass_costs import Exchange
from ..costs.stage import StageCosts
from .build_context import BuildContext, span_label
from .exchanges import add_exchange
from .rank_state import RankState
from .steps import Step


class UpdateBuilder:
    """Adds the optimizer steps."""

    def __init__(self, context: BuildContext):
        self.context, self.plan = context, context.plan

    def step(self, rank: RankState, step: Step) -> bool:
        """Add the update of all that the rank holds, after its reductions and what tensor-parallel ranks sum
        then; it never waits for another rank."""
        after = [(op, 0.0) for op in rank.reduced]
        summed = self._summed(rank.pipeline_rank)
        if summed is not None:
            after = [(add_exchange(self.context, rank, step.action, summed, after), 0.0)]
        seconds = self._seconds(rank.pipeline_rank)
        op = self.context.placement.compute(rank.number, seconds, after, span_label(rank.number, step.action))
        rank.last_op = op
        rank.reduced = []
        rank.stepped.append(op)
        return True

    def _summed(self, pipeline_rank: int) -> Exchange | None:
        layers, held = self.plan.job.model.layers, self.plan.rank_stages(pipeline_rank)
        costs, first = self.context.mixed.of(pipeline_rank), pipeline_rank * self.context.places
        found = costs.exchanges.before_step([layers[i] for s in held for i in s.layer_indices], first)
        if found is None:
            return None
        one, wire_s, cpu_s = found
        return Exchange(one.dimension, one.group, wire_s, one.size_bytes, cpu_s)

    def _seconds(self, pipeline_rank: int) -> float:
        layers, held = self.plan.job.model.layers, self.plan.rank_stages(pipeline_rank)
        has_copy = self.plan.has_copied_embedding and held[-1].index == len(self.plan.stages) - 1
        copied = self.context.embedding_parameters if has_copy else 0.0
        stage = StageCosts(self.context.mixed.of(pipeline_rank))
        own = [layers[i] for s in held for i in s.layer_indices]
        return stage.step_s(own, copied) * self.context.concurrency
