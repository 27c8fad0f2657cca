"""From Plan and Cluster to Program: every step becomes operations with seconds, streams and resources.

Ranks are walked like the real thing: each does its list in order and stops at a collective until all its
members have arrived. Where ranks share nothing, the ranks of a pipeline stage are alike, so only the first
of them is built (folding); where they share cores, all are. What a step becomes is the matter of one builder
a subject: `passes.py`, `messages.py`, `host_copies.py`, `collectives.py`, `updates.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

from ..errors import InputError
from ..hardware.cluster import Cluster
from ..plan.action import Kind
from ..plan.plan import Plan
from .build_context import BuildContext
from .built import Built, Made
from .collectives import CollectiveBuilder
from .host_copies import HostCopyBuilder
from .messages import MessageBuilder
from .passes import PassBuilder
from .rank_state import RankState
from .steps import Step, StepKind, steps_of
from .updates import UpdateBuilder

Handler = Callable[[RankState, Step], bool]
"""Adds what a step of a rank costs; False, with nothing added, if it must wait for another rank."""


def build_program(plan: Plan, cluster: Cluster, *, stepwise: bool = False, alone: bool = False) -> Built:
    """The Program of one step of ``plan`` on ``cluster``.

    ``stepwise`` lets the members of a ring pass data on as soon as they can, instead of starting together.
    ``alone`` gives communication the seconds that it takes while no other group uses its links.

    Raises:
        InputError: the actions wait for each other, or are of parameter servers, which `updates` plays.
    """
    return _Walk(BuildContext.of(plan, cluster, stepwise=stepwise, alone=alone)).built()


def _handlers(context: BuildContext) -> Mapping[StepKind | Kind, Handler]:
    """By kind of a step, or of its action where the step is the action itself."""
    messages, collectives = MessageBuilder(context), CollectiveBuilder(context)
    return {
        StepKind.BLOCK: PassBuilder(context).block,
        StepKind.COLLECTIVE: collectives.collective,
        StepKind.HOST: HostCopyBuilder(context).copy,
        Kind.SEND_F: messages.send,
        Kind.SEND_B: messages.send,
        Kind.RECV_F: messages.receive,
        Kind.RECV_B: messages.receive,
        Kind.REDUCE_TIED: collectives.reduce_tied,
        Kind.STEP: UpdateBuilder(context).step,
    }


class _Walk:
    """Walks the workers' steps in turn, each rank as far as it gets."""

    def __init__(self, context: BuildContext):
        self.context, self.program = context, context.program
        self.handlers = _handlers(context)
        queues = [steps_of(context.plan, rank) for rank in range(context.plan.strategy.pp)]
        places = context.places
        self.ranks = [RankState(r, r // places, deque(queues[r // places])) for r in context.ranks]
        self.made: list[Made] = []

    def built(self) -> Built:
        """The Program, once every rank has done its list."""
        while any(rank.queue for rank in self.ranks):
            if not sum(self._advance(rank) for rank in self.ranks):
                stuck = ", ".join(f"rank {r.number} at {r.queue[0].action}" for r in self.ranks if r.queue)
                raise InputError(f"the plan's actions wait for each other: {stuck}")
        return Built(
            self.program,
            [rank.number for rank in self.ranks],
            steps=[(rank.number, op) for rank in self.ranks for op in rank.stepped],
            slowness=self.context.slowness.table,
            made=self.made,
            core_s=self.context.placement.core_s if self.context.cluster.host is not None else 0.0,
        )

    def _advance(self, rank: RankState) -> int:
        """Do what ``rank`` can before it waits for another, and count its steps."""
        before = len(rank.queue)
        while rank.queue and not rank.is_blocked and self._do(rank, rank.queue[0]):
            rank.queue.popleft()
        return before - len(rank.queue)

    def _do(self, rank: RankState, step: Step) -> bool:
        """Add what ``step`` costs, and remember its operations; False if it must wait for another rank."""
        handler = self.handlers.get(step.action.kind if step.kind is StepKind.OTHER else step.kind)
        if handler is None:
            raise InputError(f"{step.action} has no cost model in a plan without parameter servers")
        begin = len(self.program.operations)
        done = handler(rank, step)
        if done:
            self.made.append(Made(rank.pipeline_rank, step, range(begin, len(self.program.operations))))
        return done
