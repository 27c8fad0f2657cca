"""Copies of activations to host memory and back as operations."""

from __future__ import annotations

from ..memory.layer_bytes import kept_bytes
from ..plan.action import Kind
from .build_context import BuildContext, span_label
from .rank_state import RankState
from .steps import Step


class HostCopyBuilder:
    """Adds the copies of OFFLOAD and FETCH."""

    def __init__(self, context: BuildContext):
        self.plan, self.program, self.costs = context.plan, context.program, context.costs

    def copy(self, rank: RankState, step: Step) -> bool:
        """A micro-batch's activations to host memory after the rank's last operation, or back after its last
        block; it never waits for another rank."""
        action = step.action
        size_bytes = self._size_bytes(step)
        place = (action.stage, action.micro_batch)
        leaves = action.kind is Kind.OFFLOAD
        if leaves:
            after = [rank.last_op]
        else:
            after = [rank.offloaded[place], *([rank.passes[step.after]] if step.after in rank.passes else [])]
        op = self.program.add(
            self.costs.communication.host_s(size_bytes),
            (self.program.stream(rank.number, "host"),),
            after=[(one, 0.0) for one in after],
            spans=(span_label(rank.number, action, "host"),),
            size_bytes=size_bytes,
        )
        (rank.offloaded if leaves else rank.fetched)[place] = op
        return True

    def _size_bytes(self, step: Step) -> float:
        """What the step's layers keep of a micro-batch."""
        layers = self.plan.job.model.layers
        kinds = (layers[i].kind for i in step.layers[0])
        return sum(kept_bytes(self.plan.job, self.plan.strategy, kind) for kind in kinds)
