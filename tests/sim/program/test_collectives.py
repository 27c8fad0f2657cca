"""Collectives: members meet, and the last of them to arrive adds the operation."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from machines import cpu_cluster, gpu_cluster, job

from traincast.sim.plan.action import Action, Kind
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.strategy import Strategy
from traincast.sim.program.build_context import BuildContext
from traincast.sim.program.collectives import CollectiveBuilder
from traincast.sim.program.rank_state import RankState
from traincast.sim.program.steps import Step, StepKind, steps_of

JOB = job()
PLAN = make_plan(JOB, Strategy(dp=2))
REDUCE = next(step for step in steps_of(PLAN, 0) if step.kind is StepKind.COLLECTIVE)


def arrived(context: BuildContext, number: int, pipeline_rank: int = 0) -> RankState:
    """A rank whose gradients are whole after an operation of its own."""
    op = context.program.add(1.0)
    place = (REDUCE.action.stage, REDUCE.action.bucket)
    return RankState(number, pipeline_rank, deque(), buckets={place: op}, last_op=op)


def test_members_that_are_built_meet_in_one_operation() -> None:
    context = BuildContext.of(PLAN, cpu_cluster(ranks=2, cores=2))
    collectives = CollectiveBuilder(context)
    first, second = arrived(context, 0), arrived(context, 1)
    assert not collectives.collective(first, REDUCE)
    assert not collectives.collective(first, REDUCE), "who asks again is no second member"
    assert collectives.collective(second, REDUCE)
    assert collectives.collective(first, REDUCE)
    meeting, *moved, done = context.program.operations[2:]
    assert first.reduced == second.reduced == [done.id]
    assert meeting.after == [(0, 0.0), (1, 0.0)]
    assert [label.rank for label in meeting.spans] == [0, 1]
    assert {op.rank for op in moved} == {0, 1}, "each rank's core moves its bytes"
    assert len({op.resources for op in moved}) == 2
    assert {op.parent for op in (*moved, done)} == {meeting.id}


def test_the_next_of_the_same_action_is_another_meeting() -> None:
    context = BuildContext.of(PLAN, cpu_cluster(ranks=2, cores=2))
    collectives = CollectiveBuilder(context)
    first, second = arrived(context, 0), arrived(context, 1)
    for _ in range(2):
        assert not collectives.collective(first, REDUCE)
        assert collectives.collective(second, REDUCE)
        assert collectives.collective(first, REDUCE)
    assert first.reduced == second.reduced
    assert len(set(first.reduced)) == 2


def test_a_folded_rank_stands_for_all_members() -> None:
    context = BuildContext.of(PLAN, gpu_cluster(), stepwise=True)
    rank = arrived(context, 0)
    assert CollectiveBuilder(context).collective(rank, REDUCE)
    meeting = context.program.operations[rank.reduced[0]]
    assert meeting.sync == context.costs.groups["replicas"].sync != ()
    assert meeting.pattern == "ring"


def test_both_ends_of_the_pipeline_meet_for_the_tied_embedding() -> None:
    """Each shows the reduction as its own stage's, and lanes do not meet in it."""
    model = JOB.model
    tied = replace(model, decoder=replace(model.decoder, tied_embeddings=True))
    plan = make_plan(replace(JOB, model=tied), Strategy(dp=2, pp=2))
    context = BuildContext.of(plan, gpu_cluster())
    collectives = CollectiveBuilder(context)
    first, last = arrived(context, 0), arrived(context, 2, 1)
    steps = [Step(action=Action(stage, Kind.REDUCE_TIED), kind=StepKind.OTHER) for stage in (0, 1)]
    assert not collectives.reduce_tied(last, steps[1])
    assert collectives.reduce_tied(first, steps[0])
    assert collectives.reduce_tied(last, steps[1])
    assert first.reduced == last.reduced == [2]
    meeting = context.program.operations[2]
    assert [(label.rank, label.action) for label in meeting.spans] == [
        (0, "0REDUCE_TIED"),
        (2, "1REDUCE_TIED"),
    ]
    assert meeting.sync == ()
