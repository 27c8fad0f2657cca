"""From Plan and Cluster to Program: every action becomes operations with seconds, streams and resources.

Ranks are walked like the real thing: each does its list in order and stops at a collective until all its
members have arrived. Where ranks share nothing, data- and tensor-parallel ranks are alike, so only the
first of them is built (folding); where they share cores, all are.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple

from .cluster import Cluster
from .costs import Costs
from .errors import InputError
from .plan import Action, Kind, Plan
from .program import Program, SpanLabel

COMPUTE = "compute"


@dataclass(slots=True)
class Built:
    """A Program and what the trace must know of it."""

    program: Program
    ranks: list[int]
    """Ranks that were built; each stands for all ranks alike."""
    updates: list[tuple[int, int, int, int]] = field(default_factory=list)
    """Parameter servers: (worker, server, pull operation, step operation) of every update."""


def build_program(plan: Plan, cluster: Cluster, rounds: int = 1) -> Built:
    """The Program of one step of ``plan`` on ``cluster``.

    ``rounds`` is how many updates each worker of an asynchronous plan makes; it has no meaning elsewhere.
    """
    if plan.strategy.gradient_exchange == "parameter_server":
        from .build_server import build_server_program

        return build_server_program(plan, cluster, rounds)
    return _Walk(plan, cluster).built()


class Placement:
    """Which processor a rank computes on, and what it shares it with."""

    def __init__(self, program: Program, cluster: Cluster, world_size: int, queued: Collection[int] = ()):
        self.program = program
        self.host = cluster.host
        self.ranks_per_node = min(world_size, cluster.accelerators_per_node)
        self.cores = self.host.cores if self.host else self.ranks_per_node
        self.shared = self.ranks_per_node > self.cores
        self.queued = frozenset(queued)
        """Ranks that do what comes first, first, in no order of their own."""

    def compute(
        self,
        rank: int,
        duration: float,
        after: list[tuple[int, float]],
        label: SpanLabel | None = None,
        flops: float = 0.0,
    ) -> int:
        """Add compute on ``rank`` and return its last operation.

        On a shared core it runs in the kernel's time slices, taking turns with whoever else is ready.
        """
        spans = (label,) if label else ()
        resources = (self.program.resource("core", self.core(rank)),) if self.shared else ()
        if rank in self.queued:
            resources = (self.program.resource("server", rank), *resources)
            return self.program.add(duration, after=after, resources=resources, spans=spans, flops=flops)
        streams = (self.program.stream(rank, COMPUTE),)
        slices = self._slices(duration)
        share = duration / slices
        first = op = self.program.add(
            share, streams, after=after, resources=resources, spans=spans, flops=flops
        )
        for _ in range(slices - 1):
            op = self.program.add(share, streams, resources=resources, spans=spans, parent=first)
        return op

    def _slices(self, duration: float) -> int:
        if not self.shared or self.host is None:
            return 1
        return max(1, math.ceil(duration / self.host.time_slice_s))

    def core(self, rank: int) -> int:
        """The core a rank is pinned to: ranks of a node take cores in turn."""
        node, local = divmod(rank, self.ranks_per_node)
        return node * self.cores + local % self.cores


class Messenger:
    """Point-to-point messages between ranks, with what they cost the processors at both ends."""

    def __init__(self, program: Program, placement: Placement, costs: Costs):
        self.program, self.placement, self.costs = program, placement, costs
        self.known: dict[tuple[float, int, int], tuple[float, float]] = {}

    def send(
        self,
        size_bytes: float,
        source: int,
        target: int,
        *,
        after: list[tuple[int, float]],
        name: str,
        labels: tuple[SpanLabel, ...],
        resources: tuple[int, ...] = (),
    ) -> int:
        """Add one message and return the transfer; `receive` ends it.

        A host-staged message takes processor time from both ends (the overhead o of LogP, Culler et al.
        1993): the sender's beside the transfer, the receiver's at its end.
        """
        wall, cpu = self._times(size_bytes, source, target)
        channel = self.program.stream(source, f"{name}>{target}")
        op = self.program.add(
            wall - cpu, (channel,), after=after, spans=labels, size_bytes=size_bytes, resources=resources
        )
        if cpu:
            self.placement.compute(source, cpu, after)
        return op

    def receive(self, transfer: int, size_bytes: float, source: int, target: int) -> int:
        """Add the receiver's share of a message and return the operation after which it has the data."""
        cpu = self._times(size_bytes, source, target)[1]
        return self.placement.compute(target, cpu, [(transfer, 0.0)]) if cpu else transfer

    def _times(self, size_bytes: float, source: int, target: int) -> tuple[float, float]:
        key = (size_bytes, source, target)
        if key not in self.known:
            wall = self.costs.transfer_s(*key)
            self.known[key] = (wall, min(self.costs.transfer_cpu_s(size_bytes), wall))
        return self.known[key]


class _Pass(NamedTuple):
    """One micro-batch through some layers on one rank."""

    compute_s: float
    flops: float
    tp_s: float
    """Tensor-parallel all-reduces."""
    tp_bytes: float


class _Walk:
    """Walks the workers' actions and adds their operations."""

    def __init__(self, plan: Plan, cluster: Cluster):
        self.plan, self.cluster = plan, cluster
        self.program = Program()
        self.costs = Costs(cluster, plan.job, plan.strategy)
        self.placement = Placement(self.program, cluster, plan.world_size)
        self.messenger = Messenger(self.program, self.placement, self.costs)
        self.ranks = self._built_ranks()
        self.staged = cluster.host is not None and cluster.host.host_staged
        self.slowdown = self.costs.concurrency_factor(self.placement.ranks_per_node)
        self.done: dict[tuple[int, Action], int] = {}
        """(rank, action) to the operation after which it is done."""
        self.sent: dict[tuple[int, Action], int] = {}
        """(receiving rank, its receive) to the transfer."""
        self.reduced: dict[int, list[int]] = {rank: [] for rank in self.ranks}
        """By rank: its gradient reductions."""
        self.bucket_ready: dict[tuple[int, int], int] = {}
        """(rank, bucket) to the operation after which its gradients are whole."""
        self.last_op: dict[int, int] = {}
        self.passes: dict[tuple[Kind, tuple[int, ...]], _Pass] = {}
        """What a pass through some layers costs, which every micro-batch repeats."""
        self.arrived: dict[tuple[Action, tuple[int, ...]], set[int]] = {}

    def _built_ranks(self) -> list[int]:
        grid = self.plan.grid
        if self.cluster.host is not None:
            return [int(rank) for rank in grid.reshape(-1)]
        return [int(rank) for rank in grid[:, 0, 0]]

    def built(self) -> Built:
        queues = {rank: deque(self.plan.rank_actions(rank)) for rank in self.ranks}
        while any(queues.values()):
            progress = False
            for rank, queue in queues.items():
                while queue and self._try(rank, queue[0]):
                    queue.popleft()
                    progress = True
            if not progress:
                waiting = ", ".join(f"rank {rank} at {queue[0]}" for rank, queue in queues.items() if queue)
                raise InputError(f"the plan's actions wait for each other: {waiting}")
        return Built(self.program, self.ranks)

    def _try(self, rank: int, action: Action) -> bool:
        """Add what ``action`` costs; False if it must wait for another rank."""
        kind = action.kind
        if kind in (Kind.RECV_F, Kind.RECV_B):
            return self._receive(rank, action)
        if kind in (Kind.REDUCE_GRAD, Kind.REDUCE_TIED):
            return self._reduce(rank, action)
        if kind is Kind.FORWARD:
            self._forward(rank, action)
        elif kind is Kind.BACKWARD:
            self._backward(rank, action)
        elif kind in (Kind.SEND_F, Kind.SEND_B):
            self._send(rank, action)
        elif kind is Kind.STEP:
            self._step(rank, action)
        else:
            raise InputError(f"{action} has no cost model; expected {', '.join(k.value for k in _COSTED)}")
        return True

    def _label(self, rank: int, action: Action, stream: str = COMPUTE) -> SpanLabel:
        return SpanLabel(rank, stream, str(action), action.stage, action.index)

    def _pass(self, kind: Kind, layers: tuple[int, ...]) -> _Pass:
        """What one micro-batch through ``layers`` costs."""
        if (kind, layers) not in self.passes:
            costs, all_layers = self.costs, self.plan.job.model.layers
            own = [all_layers[i] for i in layers]
            backward = kind is not Kind.FORWARD
            if backward:
                each = (costs.backward_s, costs.backward_flops, costs.tensor_parallel_backward_s)
            else:
                each = (costs.forward_s, costs.forward_flops, costs.tensor_parallel_forward_s)
            seconds, flops, tp_s = (sum(map(cost, own)) for cost in each)
            tp_bytes = sum(costs.tensor_parallel_bytes(layer, backward=backward) for layer in own)
            self.passes[kind, layers] = _Pass(seconds * self.slowdown, flops, tp_s, tp_bytes)
        return self.passes[kind, layers]

    def _forward(self, rank: int, action: Action) -> None:
        layers = tuple(self.plan.stages[action.stage].layer_indices)
        self._compute(rank, action, self._pass(action.kind, layers))

    def _backward(self, rank: int, action: Action) -> None:
        """The last micro-batch's backward is cut where a bucket of gradients becomes whole."""
        stage = self.plan.stages[action.stage]
        is_last = action.index == self.plan.micro_batches - 1
        segments = stage.buckets if is_last and stage.buckets else (tuple(stage.layer_indices),)
        first = len(self.program.operations)
        for number, segment in enumerate(segments):
            start = len(self.program.operations)
            self._compute(rank, action, self._pass(action.kind, segment))
            self._join(start, first)
            self.bucket_ready[rank, number] = self.last_op[rank]

    def _join(self, start: int, first: int) -> None:
        """Show the operations from ``start`` on as part of the span that ``first`` begins."""
        for op in self.program.operations[start:]:
            if op.id != first and op.spans and op.spans[0].stream == COMPUTE:
                op.parent = first

    def _compute(self, rank: int, action: Action, cost: _Pass) -> None:
        """Compute, then the tensor-parallel all-reduces that it waits for."""
        after = self._received(rank, action)
        op = self.placement.compute(rank, cost.compute_s, after, self._label(rank, action), cost.flops)
        if cost.tp_s:
            streams = (self.program.stream(rank, COMPUTE),)
            labels = (self._label(rank, action, "tp"),)
            op = self.program.add(cost.tp_s, streams, spans=labels, size_bytes=cost.tp_bytes)
        self.done[rank, action] = self.last_op[rank] = op

    def _received(self, rank: int, action: Action) -> list[tuple[int, float]]:
        receive = {Kind.FORWARD: Kind.RECV_F, Kind.BACKWARD: Kind.RECV_B}[action.kind]
        op = self.done.get((rank, Action(action.stage, receive, action.index)))
        return [] if op is None else [(op, 0.0)]

    def _neighbour(self, rank: int, offset: int) -> int:
        """The rank with the same (dp, tp) indices on another stage."""
        pp, dp, tp = self.plan.coordinates(rank)
        return int(self.plan.grid[pp + offset, dp, tp])

    def _send(self, rank: int, action: Action) -> None:
        forward = action.kind is Kind.SEND_F
        offset = 1 if forward else -1
        target = self._neighbour(rank, offset)
        computed = Action(action.stage, Kind.FORWARD if forward else Kind.BACKWARD, action.index)
        receive = Action(action.stage + offset, Kind.RECV_F if forward else Kind.RECV_B, action.index)
        self.sent[target, receive] = self.messenger.send(
            self.costs.boundary_bytes,
            rank,
            target,
            after=[(self.done[rank, computed], 0.0)],
            name=action.kind.value,
            labels=(self._label(rank, action, "pp"), self._label(target, receive, "pp")),
        )

    def _receive(self, rank: int, action: Action) -> bool:
        """Known once the sender has been walked that far."""
        transfer = self.sent.get((rank, action))
        if transfer is None:
            return False
        source = self._neighbour(rank, -1 if action.kind is Kind.RECV_F else 1)
        op = self.messenger.receive(transfer, self.costs.boundary_bytes, source, rank)
        self.done[rank, action] = op
        return True

    def _members(self, rank: int, action: Action) -> tuple[int, ...]:
        """All ranks of the collective that ``action`` is part of."""
        pp, dp, tp = self.plan.coordinates(rank)
        grid = self.plan.grid
        ranks = grid[pp, :, tp] if action.kind is Kind.REDUCE_GRAD else grid[[0, -1], dp, tp]
        return tuple(int(r) for r in ranks)

    def _reduce(self, rank: int, action: Action) -> bool:
        members = self._members(rank, action)
        # The two ends of a pipeline name different stages in REDUCE_TIED; one key serves both.
        key = (
            Action(0 if action.kind is Kind.REDUCE_TIED else action.stage, action.kind, action.index),
            members,
        )
        present = [r for r in members if r in set(self.ranks)]
        arrived = self.arrived.setdefault(key, set())
        arrived.add(rank)
        if len(arrived) == len(present) and (rank, action) not in self.done:
            self._add_reduce(action, members, present)
        return (rank, action) in self.done

    def _add_reduce(self, action: Action, members: tuple[int, ...], present: list[int]) -> None:
        size = self._reduced_bytes(action)
        seconds = self.costs.collective_s("all_reduce", size, members)
        streams = [self.program.stream(r, "dp") for r in present]
        if self.staged:
            # The processor that computes also moves the bytes, so nothing hides behind compute.
            streams += [self.program.stream(r, COMPUTE) for r in present]
        own = {r: Action(self.plan.coordinates(r)[0], action.kind, action.index) for r in present}
        after = [(self._gradients_ready(r, action), 0.0) for r in present]
        labels = tuple(self._label(r, own[r], "dp") for r in present)
        op = self.program.add(seconds, tuple(streams), after=after, spans=labels, size_bytes=size)
        for r in present:
            self.done[r, own[r]] = op
            self.reduced[r].append(op)

    def _gradients_ready(self, rank: int, action: Action) -> int:
        """The operation after which the gradients to be reduced are whole.

        Tied gradients also wait for the rank's buckets, by the order of its `dp` stream.
        """
        return (
            self.last_op[rank] if action.kind is Kind.REDUCE_TIED else self.bucket_ready[rank, action.index]
        )

    def _reduced_bytes(self, action: Action) -> float:
        layers = self.plan.job.model.layers
        if action.kind is Kind.REDUCE_TIED:
            decoder = self.plan.job.model.decoder
            share = decoder.vocab * decoder.hidden / layers[0].parameters
            return self.costs.layer_gradient_bytes(layers[0]) * share
        bucket = self.plan.stages[action.stage].buckets[action.index]
        return sum(self.costs.layer_gradient_bytes(layers[i]) for i in bucket)

    def _step(self, rank: int, action: Action) -> None:
        parameters = self.plan.stage_parameters(action.stage) / self.plan.strategy.tp
        seconds = self.costs.optimizer_s(parameters) * self.slowdown
        after = [(op, 0.0) for op in self.reduced[rank]]
        op = self.placement.compute(rank, seconds, after, self._label(rank, action))
        self.done[rank, action] = self.last_op[rank] = op


_COSTED = (
    Kind.FORWARD,
    Kind.BACKWARD,
    Kind.SEND_F,
    Kind.RECV_F,
    Kind.SEND_B,
    Kind.RECV_B,
    Kind.REDUCE_GRAD,
    Kind.REDUCE_TIED,
    Kind.STEP,
)
