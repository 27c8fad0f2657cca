"""From Plan and Cluster to Program: every step becomes operations with seconds, streams and resources.

Ranks are walked like the real thing: each does its list in order and stops at a collective until all its
members have arrived. Where ranks share nothing, the ranks of a pipeline stage are alike, so only the first
of them is built (folding); where they share cores, all are.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from ..costs.accelerator_mix import MixedCosts
from ..costs.compute import concurrency_factor
from ..costs.pass_costs import PassCosts
from ..costs.stage import StageCosts
from ..errors import InputError
from ..hardware.cluster import Cluster
from ..memory.layer_bytes import kept_bytes
from ..plan.action import BACKWARDS, Action, Kind
from ..plan.plan import Plan
from ..plan.traffic import Collective, gradient_bytes
from .built import Built, Made
from .placement import COMPUTE, Messenger, Placement
from .program import Program, SpanLabel
from .slowdown import Slowness
from .steps import Step, StepKind, WaitsFor, steps_of

RING_PATTERNS = {"all_reduce": "ring", "reduce_scatter": "half_ring", "all_gather": "half_ring"}
"""How the members of a collective pass data on, step by step (`stepwise.py`)."""


def build_program(plan: Plan, cluster: Cluster, *, stepwise: bool = False, alone: bool = False) -> Built:
    """The Program of one step of ``plan`` on ``cluster``.

    ``stepwise`` lets the members of a ring pass data on as soon as they can, instead of starting together.
    ``alone`` gives communication the seconds that it takes while no other group uses its links.

    Raises:
        InputError: the actions wait for each other, or are of parameter servers, which `updates` plays.
    """
    return _Walk(plan, cluster, stepwise, alone).built()


@dataclass(slots=True)
class _Rank:
    """What one rank has done so far."""

    number: int
    pipeline_rank: int
    queue: deque[Step]
    received: dict[Action, int] = field(default_factory=dict)
    """By receive: the operation after which the message is there."""
    outputs: dict[tuple[Kind, int, int], int] = field(default_factory=dict)
    """By (F or B, stage, micro-batch): the operation after which it can be sent on."""
    passes: dict[int, int] = field(default_factory=dict)
    """By number: the operation that ends a block of a pass."""
    gathered: dict[int, list[int]] = field(default_factory=dict)
    """By number of a block: what gathers its parameters."""
    buckets: dict[tuple[int, int], int] = field(default_factory=dict)
    """By (stage, bucket): the operation after which its gradients are whole."""
    reduced: list[int] = field(default_factory=list)
    """Reductions since the last optimizer step."""
    stepped: list[int] = field(default_factory=list)
    offloaded: dict[tuple[int, int], int] = field(default_factory=dict)
    """By (stage, micro-batch): the operation after which its activations are in host memory."""
    fetched: dict[tuple[int, int], int] = field(default_factory=dict)
    """By (stage, micro-batch): the operation after which they are back, for the pass that needs them."""
    meetings: dict[tuple[Action, str], int] = field(default_factory=dict)
    """How often it was in a collective: the n-th of one rank is the n-th of all members."""
    last_op: int = -1
    first_of_span: int = -1
    is_blocked: bool = False
    """Waits for a message that has not been sent."""


class _Walk:
    """Walks the workers' steps and adds their operations."""

    def __init__(self, plan: Plan, cluster: Cluster, stepwise: bool = False, alone: bool = False):
        self.plan, self.cluster = plan, cluster
        self.patterns = RING_PATTERNS if stepwise else {}
        self.mixed = MixedCosts(plan, cluster, alone=alone)
        self.costs = self.mixed.of(0)
        folded = cluster.host is None
        self.program = Program(axes=self.costs.groups.axes if folded else {})
        self.slowness = Slowness(cluster, plan.world_size, self.program.lanes)
        for ranks, factor in self.mixed.slower():
            self.slowness.multiply(ranks, factor)
        self.placement = Placement(self.program, cluster, plan.world_size)
        self.messenger = Messenger(self.program, self.placement, self.costs)
        slowdown = concurrency_factor(cluster, self.placement.ranks_per_node)
        self.slowdown = slowdown
        self.pass_costs = [PassCosts(self.mixed.of(rank), slowdown) for rank in range(plan.strategy.pp)]
        self.staged = cluster.host is not None and cluster.host.host_staged
        self.stage_ranks = plan.stage_ranks
        self.places = plan.strategy.replicas * plan.strategy.tp
        """Ranks of one pipeline stage."""
        queues = [steps_of(plan, rank) for rank in range(plan.strategy.pp)]
        built = range(0, plan.strategy.workers, self.places if folded else 1)
        self.ranks = {r: _Rank(r, r // self.places, deque(queues[r // self.places])) for r in built}
        self.sent: dict[tuple[int, Action], int] = {}
        """(receiving rank, its receive) to the transfer."""
        self.awaited: dict[tuple[int, Action], _Rank] = {}
        """By the same: who waits for it."""
        self.waiting: dict[tuple, dict[int, list[tuple[int, float]]]] = {}
        """By collective: the members that have arrived, with what their part comes after."""
        self.met: dict[tuple, int] = {}
        """By collective: its operation."""
        self.made: list[Made] = []

    def built(self) -> Built:
        while any(rank.queue for rank in self.ranks.values()):
            progress = False
            for rank in self.ranks.values():
                while rank.queue and not rank.is_blocked and self._made(rank, rank.queue[0]):
                    rank.queue.popleft()
                    progress = True
            if not progress:
                stuck = ", ".join(
                    f"rank {r.number} at {r.queue[0].action}" for r in self.ranks.values() if r.queue
                )
                raise InputError(f"the plan's actions wait for each other: {stuck}")
        steps = [(rank.number, op) for rank in self.ranks.values() for op in rank.stepped]
        slowness = self.slowness.table
        return Built(self.program, list(self.ranks), steps=steps, slowness=slowness, made=self.made)

    def _made(self, rank: _Rank, step: Step) -> bool:
        """`_try`, remembering which operations it made."""
        begin = len(self.program.operations)
        done = self._try(rank, step)
        if done:
            self.made.append(Made(rank.pipeline_rank, step, range(begin, len(self.program.operations))))
        return done

    def _try(self, rank: _Rank, step: Step) -> bool:
        """Add what ``step`` costs; False if it must wait for another rank."""
        kind = step.action.kind
        if step.kind is StepKind.BLOCK:
            self._pass(rank, step)
        elif step.kind is StepKind.COLLECTIVE:
            return self._collective(rank, step)
        elif step.kind is StepKind.HOST:
            self._to_host(rank, step)
        elif kind in (Kind.SEND_F, Kind.SEND_B):
            self._send(rank, step.action)
        elif kind in (Kind.RECV_F, Kind.RECV_B):
            return self._receive(rank, step.action)
        elif kind is Kind.REDUCE_TIED:
            return self._reduce_tied(rank, step.action)
        elif kind is Kind.STEP:
            self._step(rank, step.action)
        else:
            raise InputError(f"{step.action} has no cost model in a plan without parameter servers")
        return True

    def _label(self, rank: int, action: Action, stream: str = COMPUTE) -> SpanLabel:
        return SpanLabel(rank, stream, str(action), *action.numbers)

    # Passes

    def _pass(self, rank: _Rank, step: Step) -> None:
        """Compute, then the exchanges inside the layers that it waits for."""
        cost = self.pass_costs[rank.pipeline_rank].of(step.action, step.layers)
        after = [(op, 0.0) for op in (*self._inputs(rank, step), *rank.gathered.pop(step.number, ()))]
        start = len(self.program.operations)
        label = self._label(rank.number, step.action)
        op = self.placement.compute(rank.number, cost.compute_s, after, label, cost.flops)
        self._join(rank, start, step, apart=bool(after or cost.exchanges))
        for exchange in cost.exchanges:
            op = self.program.add(
                exchange.seconds,
                (self.program.stream(rank.number, COMPUTE),),
                spans=(self._label(rank.number, step.action, exchange.dimension),),
                size_bytes=exchange.size_bytes,
                rank=self.slowness.collective_row(self.costs.groups[exchange.group], rank.number),
                sync=self.costs.groups[exchange.group].sync if self.program.axes else (),
                # The gathering and the scattering of a layer add up to whole rings.
                pattern=self.patterns.get("all_reduce", "") if exchange.dimension == "tp" else "",
            )
        rank.last_op = rank.passes[step.number] = op
        self._remember_outputs(rank, step, op)

    def _join(self, rank: _Rank, start: int, step: Step, *, apart: bool) -> None:
        """Show the segments of an action as one span, unless something may lie between them."""
        if step.is_first or apart:
            rank.first_of_span = start
        for op in self.program.operations[start:]:
            if op.id != rank.first_of_span:
                op.parent = rank.first_of_span

    def _inputs(self, rank: _Rank, step: Step) -> list[int]:
        receive = {Kind.FORWARD: Kind.RECV_F, Kind.BACKWARD: Kind.RECV_B, Kind.INPUT_GRADIENT: Kind.RECV_B}
        parts = [part for part in step.action.passes if part.kind in receive]
        asked = [Action(part.stage, receive[part.kind], part.micro_batch) for part in parts]
        received = [rank.received[action] for action in asked if action in rank.received]
        places = [(part.stage, part.micro_batch) for part in parts if part.kind is not Kind.FORWARD]
        return [*received, *(rank.fetched.pop(place) for place in places if place in rank.fetched)]

    def _remember_outputs(self, rank: _Rank, step: Step, op: int) -> None:
        for part in step.action.passes:
            if part.kind is not Kind.WEIGHT_GRADIENT:
                kind = Kind.FORWARD if part.kind is Kind.FORWARD else Kind.BACKWARD
                rank.outputs[kind, part.stage, part.micro_batch] = op
            if part.kind in BACKWARDS:
                buckets = range(len(self.plan.stages[part.stage].buckets))
                for bucket in buckets if step.bucket < 0 else (step.bucket,):
                    rank.buckets[part.stage, bucket] = op

    # Messages

    def _send(self, rank: _Rank, action: Action) -> None:
        forward = action.kind is Kind.SEND_F
        stage = action.stage + (1 if forward else -1)
        target = self._counterpart(rank, self.stage_ranks[stage])
        receive = Action(stage, Kind.RECV_F if forward else Kind.RECV_B, action.micro_batch)
        output = rank.outputs[Kind.FORWARD if forward else Kind.BACKWARD, action.stage, action.micro_batch]
        transfer = self.messenger.send(
            self.plan.sizes.messages[min(action.stage, stage)],
            rank.number,
            target,
            after=[(output, 0.0)],
            name=action.kind.value,
            labels=(self._label(rank.number, action, "pp"), self._label(target, receive, "pp")),
            blocking=not self.plan.strategy.overlap_transfers,
            row=self.slowness.message_row(rank.number, target),
        )
        self.sent[target, receive] = transfer
        if (target, receive) in self.awaited:
            self.awaited.pop((target, receive)).is_blocked = False

    def _receive(self, rank: _Rank, action: Action) -> bool:
        """Known once the sender has been walked that far."""
        transfer = self.sent.get((rank.number, action))
        if transfer is None:
            self.awaited[rank.number, action] = rank
            rank.is_blocked = True
            return False
        stage = action.stage + (-1 if action.kind is Kind.RECV_F else 1)
        source = self._counterpart(rank, self.stage_ranks[stage])
        size = self.plan.sizes.messages[min(action.stage, stage)]
        rank.received[action] = self.messenger.receive(transfer, size, source, rank.number)
        return True

    def _counterpart(self, rank: _Rank, pipeline_rank: int) -> int:
        """The rank at the same place of another pipeline stage."""
        return pipeline_rank * self.places + rank.number % self.places

    def _to_host(self, rank: _Rank, step: Step) -> None:
        """A micro-batch's activations to host memory after the rank's last operation, or back after its last
        block."""
        action = step.action
        layers = self.plan.job.model.layers
        kinds = (layers[i].kind for i in step.layers[0])
        size = sum(kept_bytes(self.plan.job, self.plan.strategy, kind) for kind in kinds)
        place = (action.stage, action.micro_batch)
        leaves = action.kind is Kind.OFFLOAD
        if leaves:
            after = [rank.last_op]
        else:
            after = [rank.offloaded[place], *([rank.passes[step.after]] if step.after in rank.passes else [])]
        op = self.program.add(
            self.costs.communication.host_s(size),
            (self.program.stream(rank.number, "host"),),
            after=[(one, 0.0) for one in after],
            spans=(self._label(rank.number, action, "host"),),
            size_bytes=size,
        )
        (rank.offloaded if leaves else rank.fetched)[place] = op

    # Collectives

    def _collective(self, rank: _Rank, step: Step) -> bool:
        assert step.collective is not None
        group = self.costs.groups[step.collective.group]
        members = group.of(rank.number, rank.pipeline_rank * self.places)
        place = (step.action, step.collective.group)
        turn = rank.meetings.get(place, 0)
        key = (members.start, *place, turn)
        op = self._meet(rank, key, members, self._collective_inputs(rank, step), step.action, step.collective)
        if op is None:
            return False
        rank.meetings[place] = turn + 1
        if step.waits_for is WaitsFor.BLOCK:
            rank.gathered.setdefault(step.number, []).append(op)
        else:
            rank.reduced.append(op)
        return True

    def _collective_inputs(self, rank: _Rank, step: Step) -> list[tuple[int, float]]:
        if step.waits_for is WaitsFor.BLOCK:
            return [(rank.passes[step.after], 0.0)] if step.after in rank.passes else []
        if step.waits_for is WaitsFor.BUCKET:
            return [(rank.buckets[step.action.stage, step.action.bucket], 0.0)]
        return [(rank.last_op, 0.0)]

    def _meet(
        self,
        rank: _Rank,
        key: tuple,
        members: range | tuple[int, ...],
        after: list[tuple[int, float]],
        action: Action,
        collective: Collective,
    ) -> int | None:
        """The collective's operation, once all members that are built have arrived; None before."""
        if key not in self.met:
            present = [r for r in members if r in self.ranks]
            arrived = self.waiting.setdefault(key, {})
            arrived[rank.number] = after
            if len(arrived) < len(present):
                return None
            self.met[key] = self._add_collective(present, arrived, members, action, collective)
            del self.waiting[key]
        return self.met[key]

    def _add_collective(
        self,
        present: list[int],
        arrived: dict[int, list[tuple[int, float]]],
        members: range | tuple[int, ...],
        action: Action,
        collective: Collective,
    ) -> int:
        one_s = self.costs.communication.collective_s(collective.operation, collective.size_bytes, members)
        streams = [self.program.stream(r, "dp") for r in present]
        if self.staged:
            # The processor that computes also moves the bytes, so nothing hides behind compute.
            streams += [self.program.stream(r, COMPUTE) for r in present]
        is_tied = action.kind is Kind.REDUCE_TIED
        own = {r: Action(self._tied_stage(r), action.kind) if is_tied else action for r in present}
        group = self.costs.groups[collective.group]
        folded = bool(self.program.axes) and not is_tied
        row = self.slowness.message_row(present[0], present[-1]) if is_tied else -1
        return self.program.add(
            one_s * collective.count,
            tuple(streams),
            after=[wait for r in present for wait in arrived[r]],
            spans=tuple(self._label(r, own[r], collective.dimension) for r in present),
            size_bytes=collective.total_bytes,
            rank=self.slowness.collective_row(group, present[0]) if folded else row,
            sync=group.sync if folded else (),
            pattern=self.patterns.get(collective.operation, "") if folded else "",
        )

    def _tied_stage(self, rank: int) -> int:
        return 0 if rank // self.places == self.stage_ranks[0] else len(self.stage_ranks) - 1

    def _reduce_tied(self, rank: _Rank, action: Action) -> bool:
        """Tied gradients also wait for the rank's buckets, by the order of its `dp` stream."""
        place = rank.number % self.places
        ends = (self.stage_ranks[0], self.stage_ranks[-1])
        members = tuple(sorted(end * self.places + place for end in ends))
        turn = rank.meetings.get((action, "tied"), 0)
        size = gradient_bytes(self.plan.job, self.plan.strategy, self._embedding_parameters())
        collective = Collective(dimension="dp", operation="all_reduce", size_bytes=size, group="replicas")
        op = self._meet(rank, (members, turn), members, [(rank.last_op, 0.0)], action, collective)
        if op is None:
            return False
        rank.meetings[action, "tied"] = turn + 1
        rank.reduced.append(op)
        return True

    def _embedding_parameters(self) -> float:
        """Those of the table, on one rank."""
        decoder = self.plan.job.model.decoder
        return decoder.vocab * decoder.hidden / self.plan.strategy.tp

    # Updates

    def _step(self, rank: _Rank, action: Action) -> None:
        layers, held = self.plan.job.model.layers, self.plan.rank_stages(rank.pipeline_rank)
        has_copy = self.plan.has_copied_embedding and held[-1].index == len(self.plan.stages) - 1
        copied = self._embedding_parameters() if has_copy else 0.0
        stage = StageCosts(self.mixed.of(rank.pipeline_rank))
        seconds = stage.step_s([layers[i] for s in held for i in s.layer_indices], copied) * self.slowdown
        after = [(op, 0.0) for op in rank.reduced]
        op = self.placement.compute(rank.number, seconds, after, self._label(rank.number, action))
        rank.last_op = op
        rank.reduced = []
        rank.stepped.append(op)
