"""Collectives as operations: what gathers parameters and reduces gradients, and the tied embedding's.

Members meet: each stops at a collective until all that are built have arrived, and the last to arrive adds
its one operation. The n-th collective of an action on one rank is the n-th on all members.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..costs.communication import Shares
from ..plan.action import Action, Kind
from ..plan.traffic import Collective, tied_bytes
from .build_context import BuildContext, span_label
from .rank_state import RankState
from .steps import Step, WaitsFor

DATA_PARALLEL = "dp"
"""The stream that a rank's collectives are on."""
TIED = "tied"
"""Stands for the group of the first and the last stage, which the groups of a strategy have no name for."""

After = list[tuple[int, float]]
"""(operation, seconds after its end), as `Program.add` takes them."""


@dataclass(frozen=True, slots=True)
class _Meeting:
    """One collective, as one of its members comes to it."""

    key: tuple
    """The same for all its members, and for no other collective."""
    members: range | tuple[int, ...]
    action: Action
    collective: Collective
    next_to_compute: bool = False
    """Whether its members go on computing meanwhile."""


class CollectiveBuilder:
    """Adds collectives."""

    def __init__(self, context: BuildContext):
        self.context, self.plan, self.program = context, context.plan, context.program
        self.costs, self.places, self.built = context.costs, context.places, context.ranks
        self._waiting: dict[tuple, dict[int, After]] = {}
        """By meeting: the members that have arrived, with what their part comes after."""
        self._met: dict[tuple, int] = {}
        """By meeting: its operation."""

    def collective(self, rank: RankState, step: Step) -> bool:
        """Add a collective of a group of the strategy; False before all its members have arrived."""
        assert step.collective is not None
        group = self.costs.groups[step.collective.group]
        members = group.of(rank.number, rank.pipeline_rank * self.places)
        place = (step.action, step.collective.group)
        key = (members.start, *place, rank.meetings.get(place, 0))
        meeting = _Meeting(
            key, members, step.action, step.collective, next_to_compute=step.waits_for is not WaitsFor.LAST
        )
        op = self._meet(rank, meeting, _inputs(rank, step))
        if op is None:
            return False
        rank.meetings[place] = rank.meetings.get(place, 0) + 1
        if step.waits_for is WaitsFor.BLOCK:
            rank.gathered.setdefault(step.number, []).append(op)
        else:
            rank.reduced.append(op)
        return True

    def reduce_tied(self, rank: RankState, step: Step) -> bool:
        """Add the tied embedding's reduction; False before both ends of the pipeline have arrived.

        Tied gradients also wait for the rank's buckets, by the order of its `dp` stream.
        """
        ends = (self.plan.stage_ranks[0], self.plan.stage_ranks[-1])
        members = tuple(sorted(end * self.places + rank.number % self.places for end in ends))
        place = (step.action, TIED)
        key = (members, rank.meetings.get(place, 0))
        size = tied_bytes(self.plan.job, self.plan.strategy, executed=self.costs.is_executed)
        collective = Collective(dimension="dp", operation="all_reduce", size_bytes=size, group="replicas")
        op = self._meet(rank, _Meeting(key, members, step.action, collective), [(rank.last_op, 0.0)])
        if op is None:
            return False
        rank.meetings[place] = rank.meetings.get(place, 0) + 1
        rank.reduced.append(op)
        return True

    def _meet(self, rank: RankState, meeting: _Meeting, after: After) -> int | None:
        """The meeting's operation, once all members that are built have arrived; None before."""
        key = meeting.key
        if key not in self._met:
            present = [r for r in meeting.members if r in self.built]
            arrived = self._waiting.setdefault(key, {})
            arrived[rank.number] = after
            if len(arrived) < len(present):
                return None
            waits = [wait for r in present for wait in arrived[r]]
            self._met[key] = self._add(meeting, present, waits)
            del self._waiting[key]
        return self._met[key]

    def _add(self, meeting: _Meeting, present: list[int], after: After) -> int:
        collective, context = meeting.collective, self.context
        is_tied = meeting.action.kind is Kind.REDUCE_TIED
        group = self.costs.groups[collective.group]
        folded = bool(self.program.axes) and not is_tied
        row = context.slowness.message_row(present[0], present[-1]) if is_tied else -1
        one = self.costs.communication.shares(collective.operation, collective.size_bytes, meeting.members)
        op = self.program.add(
            one.wire_s * collective.count,
            tuple(self.program.stream(r, DATA_PARALLEL) for r in present),
            after=after,
            spans=tuple(
                span_label(r, self._own_action(r, meeting.action), collective.dimension) for r in present
            ),
            size_bytes=collective.total_bytes,
            rank=context.slowness.collective_row(group, present[0]) if folded else row,
            sync=group.sync if folded else (),
            pattern=context.patterns.get(collective.operation, "") if folded else "",
        )
        return self._moved(op, present, self._cpu_s(meeting, one)) if one.cpu_s else op

    def _cpu_s(self, meeting: _Meeting, one: Shares) -> float:
        """Seconds of a member's core: what the transport takes, more where it disturbs compute, and gradients
        that are laid one after the other before they are reduced."""
        host, collective = self.context.cluster.host, meeting.collective
        assert host is not None
        seconds = one.cpu_s * collective.count * (host.traffic if meeting.next_to_compute else 1.0)
        if meeting.action.kind is Kind.REDUCE_GRAD:
            seconds += host.copied_s_per_byte * collective.size_bytes * collective.count
        return seconds

    def _moved(self, op: int, present: list[int], cpu_s: float) -> int:
        """Where the cores that compute move the bytes: theirs of every member, next to its compute. Returns
        what all of them are done after."""
        ends = [
            self.context.placement.compute(r, cpu_s, [(op, 0.0)], stream=DATA_PARALLEL, parent=op)
            for r in present
        ]
        return self.program.add(0.0, after=[(end, 0.0) for end in ends], parent=op)

    def _own_action(self, rank: int, action: Action) -> Action:
        """What ``rank`` calls it: the tied embedding's reduction is another stage's at the other end."""
        if action.kind is not Kind.REDUCE_TIED:
            return action
        stage_ranks = self.plan.stage_ranks
        is_first = rank // self.places == stage_ranks[0]
        return Action(0 if is_first else len(stage_ranks) - 1, action.kind)


def _inputs(rank: RankState, step: Step) -> After:
    """What a rank's part of a collective comes after."""
    if step.waits_for is WaitsFor.BLOCK:
        return [(rank.passes[step.after], 0.0)] if step.after in rank.passes else []
    if step.waits_for is WaitsFor.BUCKET:
        return [(rank.buckets[step.action.stage, step.action.bucket], 0.0)]
    return [(rank.last_op, 0.0)]
