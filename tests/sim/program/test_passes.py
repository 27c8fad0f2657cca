"""Passes: what a block waits for, and how its segments show."""

from __future__ import annotations

from collections import deque

from machines import gpu_cluster, job

from traincast.sim.plan.action import Action, Kind
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.strategy import Strategy
from traincast.sim.program.build_context import BuildContext
from traincast.sim.program.passes import PassBuilder
from traincast.sim.program.rank_state import RankState
from traincast.sim.program.steps import Step, StepKind, steps_of


def first_of(context: BuildContext, kind: Kind, pipeline_rank: int = 0) -> Step:
    steps = steps_of(context.plan, pipeline_rank)
    return next(step for step in steps if step.kind is StepKind.BLOCK and step.action.kind is kind)


def test_a_pass_waits_for_its_message_its_parameters_and_its_activations() -> None:
    """What was gathered or fetched for it serves it alone; a message stays known."""
    context = BuildContext.of(make_plan(job(), Strategy(pp=2)), gpu_cluster())
    step = first_of(context, Kind.BACKWARD)
    place = (0, step.action.micro_batch)
    receive = Action(0, Kind.RECV_B, step.action.micro_batch)
    message, gathering, copy = (context.program.add(1.0) for _ in range(3))
    rank = RankState(0, 0, deque(), {receive: message}, gathered={step.number: [gathering]})
    rank.fetched[place] = copy
    assert PassBuilder(context).block(rank, step)
    compute = context.program.operations[rank.last_op]
    assert compute.after == [(message, 0.0), (copy, 0.0), (gathering, 0.0)]
    assert (rank.gathered, rank.fetched) == ({}, {})
    assert rank.received == {receive: message}
    assert rank.outputs == {(Kind.BACKWARD, *place): rank.last_op}


def test_exchanges_follow_the_compute_on_its_stream_and_show_apart() -> None:
    context = BuildContext.of(make_plan(job(), Strategy(tp=2)), gpu_cluster(), stepwise=True)
    step = first_of(context, Kind.FORWARD)
    rank = RankState(0, 0, deque())
    PassBuilder(context).block(rank, step)
    compute, exchange = context.program.operations
    assert [label.stream for op in (compute, exchange) for label in op.spans] == ["compute", "tp"]
    assert compute.streams == exchange.streams
    assert (exchange.parent, exchange.sync, exchange.pattern) == (-1, ("tp",), "ring")
    assert rank.passes == {step.number: exchange.id}
