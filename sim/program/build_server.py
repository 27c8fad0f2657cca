"""Programs of parameter-server plans: workers that push gradients and pull parameters, servers that step.

Messages to and from a server share its network interface, one after the other (incast). A synchronous
server steps once for all workers; an asynchronous one serves gradients in the order in which they arrive,
so each worker goes on at its own pace and its gradients may be stale (Dean et al. 2012, section 4.1).
"""

from __future__ import annotations

from collections.abc import Sequence

from ..costs.compute import concurrency_factor
from ..costs.costs import Costs
from ..costs.stage import StageCosts
from ..hardware.cluster import Cluster
from ..plan.action import Action, Kind
from ..plan.plan import Plan
from .built import Built
from .placement import COMPUTE, Messenger, Placement
from .program import Program, SpanLabel


def build_server_program(plan: Plan, cluster: Cluster, rounds: int) -> Built:
    """One synchronous step, or ``rounds`` updates of every worker where the plan is asynchronous."""
    walk = _Servers(plan, cluster)
    if plan.strategy.synchrony == "async":
        walk.asynchronous(rounds)
    else:
        walk.synchronous()
    return walk.built


class _Servers:
    def __init__(self, plan: Plan, cluster: Cluster):
        self.plan = plan
        self.program = Program()
        self.costs = Costs(cluster, plan.job, plan.strategy)
        queued = plan.server_ranks if plan.strategy.synchrony == "async" else ()
        self.placement = Placement(self.program, cluster, plan.world_size, queued)
        self.messenger = Messenger(self.program, self.placement, self.costs)
        self.slowdown = concurrency_factor(cluster, self.placement.ranks_per_node)
        self.workers = range(plan.strategy.dp)
        self.built = Built(self.program, list(range(plan.world_size)))
        layers = plan.job.model.layers
        self.shard_parameters = [sum(layers[i].parameters for i in s) for s in plan.shards]

    def synchronous(self) -> None:
        pulled = {w: self._pull(w, {}) for w in self.workers}
        sends = {w: self._push(w, self._compute(w, pulled[w])) for w in self.workers}
        for number, server in enumerate(self.plan.server_ranks):
            arrived = [(self._arrive(sends[w], number, w), 0.0) for w in self.workers]
            self.placement.compute(
                server,
                self._step_s(number),
                arrived,
                self._label(server, Action.of(Kind.APPLY, server=number)),
            )

    def asynchronous(self, rounds: int) -> None:
        """Workers' rounds are added in turn; who is served first is the engine's to say."""
        stepped: dict[int, dict[int, int]] = {w: {} for w in self.workers}
        for _ in range(rounds):
            for worker in self.workers:
                pulled = self._pull(worker, stepped[worker])
                sends = self._push(worker, self._compute(worker, pulled))
                for number, server in enumerate(self.plan.server_ranks):
                    arrived = self._arrive(sends, number, worker)
                    label = self._label(server, Action.of(Kind.APPLY, server=number, worker=worker))
                    step = self.placement.compute(server, self._step_s(number), [(arrived, 0.0)], label)
                    stepped[worker][number] = step
                    self.built.updates.append((worker, number, pulled[number], step))

    def _step_s(self, number: int) -> float:
        return self.costs.optimizer.update_s(self.shard_parameters[number]) * self.slowdown

    def _label(self, rank: int, action: Action, stream: str = COMPUTE) -> SpanLabel:
        return SpanLabel(rank, stream, str(action), *action.numbers)

    def _message(self, number: int, worker: int, kind: Kind, after: list[tuple[int, float]]) -> int:
        """Gradients to a server or parameters from it, through the server's interface."""
        server = self.plan.server_ranks[number]
        source, target = (worker, server) if kind is Kind.PUSH else (server, worker)
        interface = self.program.resource("nic-in" if kind is Kind.PUSH else "nic-out", number)
        labels = (
            self._label(worker, Action(0, kind), "ps"),
            self._label(server, Action.of(kind, server=number, worker=worker), "ps"),
        )
        return self.messenger.send(
            self.plan.sizes.shards[number],
            source,
            target,
            after=after,
            name=f"{kind.value}{number}",
            labels=labels,
            resources=(interface,),
        )

    def _pull(self, worker: int, stepped: dict[int, int]) -> list[int]:
        """Parameters from every server, each after that server's step for this worker's last gradients."""
        pulled = []
        for number, server in enumerate(self.plan.server_ranks):
            after = [(stepped[number], 0.0)] if number in stepped else []
            transfer = self._message(number, worker, Kind.PULL, after)
            pulled.append(self.messenger.receive(transfer, self.plan.sizes.shards[number], server, worker))
        return pulled

    def _compute(self, worker: int, pulled: Sequence[int]) -> int:
        """The worker's forwards and backwards, in the plan's order; returns the last."""
        layers = self.plan.job.model.layers
        stage = StageCosts(self.costs)
        op = -1
        for action in self.plan.actions[0]:
            if action.kind not in (Kind.FORWARD, Kind.BACKWARD):
                continue
            seconds, flops = stage.compute_s(layers, action.kind), stage.flops(layers, action.kind)
            after = [(p, 0.0) for p in pulled] if op < 0 else []
            op = self.placement.compute(
                worker, seconds * self.slowdown, after, self._label(worker, action), flops
            )
        return op

    def _push(self, worker: int, computed: int) -> list[int]:
        return [
            self._message(n, worker, Kind.PUSH, [(computed, 0.0)]) for n in range(self.plan.strategy.servers)
        ]

    def _arrive(self, sends: list[int], number: int, worker: int) -> int:
        server = self.plan.server_ranks[number]
        return self.messenger.receive(sends[number], self.plan.sizes.shards[number], worker, server)
