"""Optimizer steps of workers as operations."""

from __future__ import annotations

from ..costs.stage import StageCosts
from .build_context import BuildContext, span_label
from .rank_state import RankState
from .steps import Step


class UpdateBuilder:
    """Adds the optimizer steps."""

    def __init__(self, context: BuildContext):
        self.context, self.plan = context, context.plan

    def step(self, rank: RankState, step: Step) -> bool:
        """Add the update of all that the rank holds, after its reductions; it never waits for another
        rank."""
        seconds = self._seconds(rank.pipeline_rank)
        after = [(op, 0.0) for op in rank.reduced]
        op = self.context.placement.compute(rank.number, seconds, after, span_label(rank.number, step.action))
        rank.last_op = op
        rank.reduced = []
        rank.stepped.append(op)
        return True

    def _seconds(self, pipeline_rank: int) -> float:
        layers, held = self.plan.job.model.layers, self.plan.rank_stages(pipeline_rank)
        has_copy = self.plan.has_copied_embedding and held[-1].index == len(self.plan.stages) - 1
        copied = self.context.embedding_parameters if has_copy else 0.0
        stage = StageCosts(self.context.mixed.of(pipeline_rank))
        own = [layers[i] for s in held for i in s.layer_indices]
        return stage.step_s(own, copied) * self.context.concurrency
