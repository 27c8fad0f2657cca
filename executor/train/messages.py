"""Messages between the stages of a pipeline: receives posted first, sends as the plan says."""

from __future__ import annotations

import torch.distributed as dist

from ...sim.plan.action import Action, Actions, Kind
from ...sim.plan.plan import Plan
from ..measure.recorder import Recorder
from .handlers import Handlers
from .stage import PipelinedStage

WAITED_S = 300e-6
"""A receive that returns sooner than this had arrived before anybody looked: asking gloo for a message that
is there takes 0.05 to 0.2 ms."""


class Messages:
    """Sends and receives of a pipelined stage."""

    def __init__(self, plan: Plan, rank: int, stage: PipelinedStage, recorder: Recorder):
        self.plan, self.stage, self.recorder = plan, stage, recorder
        _, self.dp, _, self.tp = plan.coordinates(rank)

    @property
    def handlers(self) -> Handlers:
        return {
            Kind.SEND_F: self._send,
            Kind.SEND_B: self._send,
            Kind.RECV_F: self._receive,
            Kind.RECV_B: self._receive,
        }

    def begin_step(self, actions: Actions) -> None:
        """Post all receives at once and first: gloo serialises the directions of a pair whose sends come
        first."""
        self.sends: list[dist.Work] = []
        self.pending: dict[Action, tuple[object, list[dist.Work]]] = {}
        post = {Kind.RECV_F: self.stage.receive_forward, Kind.RECV_B: self.stage.receive_backward}
        for action in actions:
            if action.kind in post:
                issued = self.recorder.clock.stamp()
                self.pending[action] = (issued, post[action.kind](action.micro_batch))

    def end_step(self) -> None:
        """Wait until all has been sent."""
        with self.recorder.heartbeat.waiting():
            for work in self.sends:
                work.wait()

    def _send(self, action: Action) -> None:
        issued = self.recorder.clock.stamp()
        forward = action.kind is Kind.SEND_F
        send = self.stage.send_forward if forward else self.stage.send_backward
        self.sends += send(action.micro_batch)
        self._note(action, issued, None)

    def _receive(self, action: Action) -> None:
        issued, works = self.pending.pop(action)
        before = self.recorder.clock.stamp()
        with self.recorder.heartbeat.waiting():
            for work in works:
                work.wait()
        after = self.recorder.clock.stamp()
        waited = not isinstance(before, float) or not isinstance(after, float) or after - before > WAITED_S
        self._note(action, issued, after if waited else None)

    def _note(self, action: Action, issued: object, end: object) -> None:
        """The key is the same on both sides: direction, the lower stage, micro-batch, replica."""
        forward = action.kind in (Kind.SEND_F, Kind.RECV_F)
        lower = action.stage if action.kind in (Kind.SEND_F, Kind.RECV_B) else action.stage - 1
        key = f"{'F' if forward else 'B'}{lower}:{action.micro_batch}:{self.dp}:{self.tp}"
        channel = "pp-forward" if forward else "pp-backward"
        size = self.plan.sizes.messages[lower]
        self.recorder.add(action, "pp", issued, end, size_bytes=size, key=key, channel=channel)
