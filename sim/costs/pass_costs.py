"""What one pass through some layers costs a rank: compute, FLOPs, and the exchanges inside its layers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ..hardware.cluster import Cluster
from ..model.layer import Layer
from ..plan.action import Action, Kind
from ..plan.job import Job
from ..plan.partition import partition
from ..plan.pass_times import PassTimes
from ..plan.strategy import Strategy
from ..plan.traffic import message_bytes
from .costs import Costs
from .stage import StageCosts


class Exchange(NamedTuple):
    """Communication inside layers that their compute waits for, all of one dimension."""

    dimension: str
    group: str
    wire_s: float
    """Seconds in which the rank only waits."""
    size_bytes: float
    cpu_s: float = 0.0
    """Seconds in which a host's core moves the bytes."""

    @property
    def seconds(self) -> float:
        """Of a rank that has its core to itself."""
        return self.wire_s + self.cpu_s


class PassCost(NamedTuple):
    """One micro-batch through some layers on one rank."""

    compute_s: float
    flops: float
    exchanges: tuple[Exchange, ...]


class PassCosts:
    """Costs of passes, remembered, since every micro-batch repeats them."""

    def __init__(self, costs: Costs, slowdown: float):
        self.costs, self.slowdown = costs, slowdown
        self._stage = StageCosts(costs)
        self._known: dict[tuple, PassCost] = {}

    def of(self, action: Action, layers: tuple[tuple[int, ...], ...]) -> PassCost:
        """The cost of ``action`` for ``layers``, those of each of its passes."""
        kinds = tuple(part.kind for part in action.passes)
        key = (kinds, layers)
        if key not in self._known:
            every = self.costs.job.model.layers
            parts = [
                self._pass(kind, [every[i] for i in own]) for kind, own in zip(kinds, layers, strict=True)
            ]
            self._known[key] = parts[0] if len(parts) == 1 else _side_by_side(parts)
        return self._known[key]

    def _pass(self, kind: Kind, layers: list[Layer]) -> PassCost:
        exchanges = () if kind is Kind.WEIGHT_GRADIENT else self._exchanges(layers, kind is not Kind.FORWARD)
        seconds = self._stage.pass_s(layers, kind)
        return PassCost(seconds * self.slowdown, self._stage.flops(layers, kind), exchanges)

    def _exchanges(self, layers: Iterable[Layer], backward: bool) -> tuple[Exchange, ...]:
        sums: dict[tuple[str, str], tuple[float, float, float]] = {}
        for layer in layers:
            for one, wire, cpu in self.costs.exchanges.of(layer, backward=backward):
                place = (one.dimension, one.group)
                before = sums.get(place, (0.0, 0.0, 0.0))
                sums[place] = (before[0] + wire, before[1] + one.total_bytes, before[2] + cpu)
        return tuple(Exchange(*place, *total) for place, total in sums.items() if total[0] + total[2] > 0)


def _side_by_side(parts: list[PassCost]) -> PassCost:
    """Two passes on one device: each one's exchanges overlap with the other's compute (DeepSeek-AI 2024,
    DeepSeek-V3, section 3.2.1), and only what is longer than all compute shows. A host's cores do one after
    the other."""
    compute = sum(part.compute_s for part in parts)
    exchanges = [exchange for part in parts for exchange in part.exchanges]
    total = sum(exchange.wire_s for exchange in exchanges)
    shown = max(0.0, total - compute) / total if total else 0.0
    kept = tuple(one._replace(wire_s=one.wire_s * shown) for one in exchanges) if shown else ()
    if any(one.cpu_s for one in exchanges):
        kept = tuple(exchanges)
    return PassCost(compute, sum(part.flops for part in parts), kept)


def pass_times(job: Job, strategy: Strategy, cluster: Cluster) -> PassTimes:
    """The seconds of every stage's passes, exchanges included, and of the message between the first two
    ranks: what a schedule that arranges itself looks at."""
    costs = Costs(cluster, job, strategy)
    known = PassCosts(costs, 1.0)

    def seconds(kind: Kind) -> tuple[float, ...]:
        every = (known.of(Action(s.index, kind), (tuple(s.layer_indices),)) for s in partition(job, strategy))
        return tuple(cost.compute_s + sum(one.seconds for one in cost.exchanges) for cost in every)

    places = strategy.replicas * strategy.tp
    deep = strategy.pp > 1
    return PassTimes(
        forward_s=seconds(Kind.FORWARD),
        input_gradient_s=seconds(Kind.INPUT_GRADIENT),
        weight_gradient_s=seconds(Kind.WEIGHT_GRADIENT),
        transfer_s=costs.communication.transfer_s(message_bytes(job, strategy), 0, places) if deep else 0.0,
    )
