"""Messages between the stages of a pipeline: receives posted first, sends as the plan says.

A stage's neighbour may lie on the same rank (there-and-back placements); then what is passed on is handed
over without a message.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from ...sim.plan.action import Action, Kind
from ..parallel.rank_context import RankContext
from .handlers import Handlers

WAITED_S = 300e-6
"""A receive that returns sooner than this had arrived before anybody looked: asking gloo for a message that
is there takes 0.05 to 0.2 ms."""
RECEIVED_BY = {Kind.SEND_F: (Kind.RECV_F, 1), Kind.SEND_B: (Kind.RECV_B, -1)}
"""What a send is for the other side, and how many stages on."""


class Passed(NamedTuple):
    """What one stage passes to another for a micro-batch."""

    kind: Kind
    """RECV_F or RECV_B, as the receiving stage has it."""
    stage: int
    """The one that receives."""
    micro_batch: int


class Messages:
    """What the stages of one rank pass on and are passed."""

    def __init__(self, here: RankContext, boundaries: dict[int, Tensor]):
        """``boundaries`` has, by stage but the last, an empty tensor like what it passes on."""
        self.plan, self.recorder, self.boundaries = here.plan, here.recorder, boundaries
        self.pp, self.dp, self.cp, self.tp = here.plan.coordinates(here.rank)
        self.groups = {1: here.groups.pp, -1: here.groups.backward}
        """By direction along the ranks: NCCL would keep both directions of a pair in one queue."""
        self.rank, self.step_of_ranks = here.rank, here.plan.strategy.workers // here.plan.strategy.pp
        self.arrived: dict[Passed, Tensor] = {}
        self.incoming = self._incoming()

    @property
    def handlers(self) -> Handlers:
        kinds = (Kind.SEND_F, Kind.SEND_B)
        return {
            **dict.fromkeys(kinds, self._send),
            **dict.fromkeys((Kind.RECV_F, Kind.RECV_B), self._receive),
        }

    def begin_step(self) -> None:
        """Post all receives at once and first: gloo serialises the directions of a pair whose sends come
        first."""
        self.sends: list[tuple[dist.Work, Tensor]] = []
        self.outgoing: dict[Passed, Tensor] = {}
        self.pending: dict[Passed, tuple[object, dist.Work, Tensor]] = {}
        for passed, source in self.incoming:
            buffer = torch.empty_like(self.boundaries[_lower(passed)])
            issued = self.recorder.clock.stamp()
            work = dist.irecv(
                buffer, self._global(source), group=self._group(source, self.pp), tag=_tag(passed)
            )
            assert work is not None
            self.pending[passed] = (issued, work, buffer)

    def end_step(self) -> None:
        """Wait until all has been sent."""
        with self.recorder.heartbeat.waiting():
            for work, _ in self.sends:
                work.wait()
        self.sends = []

    def take(self, kind: Kind, stage: int, micro_batch: int) -> Tensor:
        """What ``stage`` was passed; received, or handed over on this rank."""
        return self.arrived.pop(Passed(kind, stage, micro_batch))

    def give(self, sent_as: Kind, stage: int, micro_batch: int, x: Tensor) -> None:
        """What ``stage`` passes on: kept until its send, or handed to its neighbour on this rank."""
        kind, way = RECEIVED_BY[sent_as]
        passed = Passed(kind, stage + way, micro_batch)
        if self.plan.stage_ranks[passed.stage] == self.pp:
            self.arrived[passed] = x.detach()
        else:
            self.outgoing[passed] = x.detach()

    def _incoming(self) -> list[tuple[Passed, int]]:
        """What this rank is sent, and by which pipeline rank, in the order in which each sends."""
        found = []
        for source, actions in enumerate(self.plan.actions):
            for action in actions:
                if action.kind in RECEIVED_BY:
                    kind, way = RECEIVED_BY[action.kind]
                    passed = Passed(kind, action.stage + way, action.micro_batch)
                    if self.plan.stage_ranks[passed.stage] == self.pp:
                        found.append((passed, source))
        return found

    def _send(self, action: Action) -> None:
        kind, way = RECEIVED_BY[action.kind]
        passed = Passed(kind, action.stage + way, action.micro_batch)
        x = self.outgoing.pop(passed).contiguous()
        target = self.plan.stage_ranks[passed.stage]
        issued = self.recorder.clock.stamp()
        work = dist.isend(x, self._global(target), group=self._group(self.pp, target), tag=_tag(passed))
        assert work is not None
        if self.plan.strategy.overlap_transfers:
            self.sends = [(one, kept) for one, kept in self.sends if not one.is_completed()]
            self.sends.append((work, x))
        else:
            # Once: gloo has a second wait for the same send wait for another one.
            with self.recorder.heartbeat.waiting():
                work.wait()
        self._note(action, passed, issued, None)

    def _receive(self, action: Action) -> None:
        passed = Passed(action.kind, action.stage, action.micro_batch)
        issued, work, buffer = self.pending.pop(passed)
        before = self.recorder.clock.stamp()
        with self.recorder.heartbeat.waiting():
            work.wait()
        after = self.recorder.clock.stamp()
        self.arrived[passed] = buffer
        waited = not isinstance(before, float) or not isinstance(after, float) or after - before > WAITED_S
        self._note(action, passed, issued, after if waited else None)

    def _note(self, action: Action, passed: Passed, issued: object, end: object) -> None:
        """The key is the same on both sides: direction, the lower stage, micro-batch, replica."""
        lower, forward = _lower(passed), passed.kind is Kind.RECV_F
        key = f"{'F' if forward else 'B'}{lower}:{passed.micro_batch}:{self.dp}:{self.cp}:{self.tp}"
        channel = "pp-forward" if forward else "pp-backward"
        size = self.plan.sizes.messages[lower]
        self.recorder.add(action, "pp", issued, end, size_bytes=size, key=key, channel=channel)

    def _global(self, pipeline_rank: int) -> int:
        """The rank of this pipeline that is number ``pipeline_rank`` in it."""
        return self.rank + (pipeline_rank - self.pp) * self.step_of_ranks

    def _group(self, source: int, target: int) -> dist.ProcessGroup | None:
        return self.groups[1 if target > source else -1]


def _lower(passed: Passed) -> int:
    """The stage whose activations they are, or whose activations' gradients."""
    return passed.stage - 1 if passed.kind is Kind.RECV_F else passed.stage


def _tag(passed: Passed) -> int:
    """Tells the messages of a pair of ranks apart on gloo; NCCL has them in order."""
    forward = passed.kind is Kind.RECV_F
    return (passed.stage << 20 | passed.micro_batch) << 1 | forward
