"""Sends and receives: who waits for whom, and which ranks a message joins."""

from __future__ import annotations

from collections import deque

from machines import cpu_cluster, gpu_cluster, job

from traincast.sim.hardware.cluster import Cluster
from traincast.sim.plan.action import Action, Kind
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.strategy import Strategy
from traincast.sim.program.build_context import BuildContext
from traincast.sim.program.messages import MessageBuilder
from traincast.sim.program.rank_state import RankState
from traincast.sim.program.steps import Step, StepKind

SEND = Step(action=Action(0, Kind.SEND_F, 0), kind=StepKind.OTHER)
RECEIVE = Step(action=Action(1, Kind.RECV_F, 0), kind=StepKind.OTHER)


def pipeline(cluster: Cluster) -> BuildContext:
    """Two stages of two ranks: rank 1 sends to rank 3."""
    return BuildContext.of(make_plan(job(), Strategy(pp=2, dp=2)), cluster)


def test_a_receiver_is_blocked_until_its_sender_has_sent() -> None:
    context = pipeline(gpu_cluster())
    messages = MessageBuilder(context)
    sender, receiver = RankState(0, 0, deque()), RankState(2, 1, deque())
    assert not messages.receive(receiver, RECEIVE)
    assert receiver.is_blocked
    sender.outputs[Kind.FORWARD, 0, 0] = context.program.add(1.0)
    assert messages.send(sender, SEND)
    assert not receiver.is_blocked
    assert messages.receive(receiver, RECEIVE)
    transfer = context.program.operations[receiver.received[RECEIVE.action]]
    assert transfer.after == [(sender.outputs[Kind.FORWARD, 0, 0], 0.0)]
    assert [(label.rank, label.action) for label in transfer.spans] == [(0, "0SEND_F0"), (2, "1RECV_F0")]


def test_a_message_goes_to_the_same_place_of_the_next_stage() -> None:
    """Where every rank is built, the second of a stage sends to the second of the next, to nobody else."""
    context = pipeline(cpu_cluster(ranks=4, cores=4))
    messages = MessageBuilder(context)
    sender = RankState(1, 0, deque())
    sender.outputs[Kind.FORWARD, 0, 0] = context.program.add(1.0)
    messages.send(sender, SEND)
    assert not messages.receive(RankState(2, 1, deque()), RECEIVE)
    assert messages.receive(RankState(3, 1, deque()), RECEIVE)
