"""Messages between pipeline stages as operations: a rank that receives waits until its sender has sent."""

from __future__ import annotations

from ..plan.action import Action, Kind
from .build_context import BuildContext, span_label
from .placement import Messenger
from .rank_state import RankState
from .steps import Step


class MessageBuilder:
    """Adds sends and receives."""

    def __init__(self, context: BuildContext):
        self.plan, self.slowness, self.places = context.plan, context.slowness, context.places
        self.messenger = Messenger(context.program, context.placement, context.costs)
        self._sent: dict[tuple[int, Action], int] = {}
        """(receiving rank, its receive) to the transfer."""
        self._awaited: dict[tuple[int, Action], RankState] = {}
        """By the same: who waits for it."""

    def send(self, rank: RankState, step: Step) -> bool:
        """Add a transfer after what it sends, and let its receiver go on; it never waits for another rank."""
        action = step.action
        forward = action.kind is Kind.SEND_F
        stage = action.stage + (1 if forward else -1)
        target = self._counterpart(rank, stage)
        receive = Action(stage, Kind.RECV_F if forward else Kind.RECV_B, action.micro_batch)
        output = rank.outputs[Kind.FORWARD if forward else Kind.BACKWARD, action.stage, action.micro_batch]
        transfer = self.messenger.send(
            self._size_bytes(action.stage, stage),
            rank.number,
            target,
            after=[(output, 0.0)],
            name=action.kind.value,
            labels=(span_label(rank.number, action, "pp"), span_label(target, receive, "pp")),
            blocking=not self.plan.strategy.overlap_transfers,
            row=self.slowness.message_row(rank.number, target),
        )
        self._sent[target, receive] = transfer
        if (target, receive) in self._awaited:
            self._awaited.pop((target, receive)).is_blocked = False
        return True

    def receive(self, rank: RankState, step: Step) -> bool:
        """Known once the sender has been walked that far; False, and the rank blocked, before."""
        action = step.action
        transfer = self._sent.get((rank.number, action))
        if transfer is None:
            self._awaited[rank.number, action] = rank
            rank.is_blocked = True
            return False
        stage = action.stage + (-1 if action.kind is Kind.RECV_F else 1)
        source = self._counterpart(rank, stage)
        size_bytes = self._size_bytes(action.stage, stage)
        rank.received[action] = self.messenger.receive(transfer, size_bytes, source, rank.number)
        return True

    def _size_bytes(self, stage: int, other: int) -> float:
        """Bytes of a message between two neighbouring stages, in either direction."""
        return self.plan.sizes.messages[min(stage, other)]

    def _counterpart(self, rank: RankState, stage: int) -> int:
        """The rank that holds ``stage`` at the same place of its pipeline stage."""
        return self.plan.stage_ranks[stage] * self.places + rank.number % self.places
