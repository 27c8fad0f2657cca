"""What all that adds operations to one Program shares: the plan, its costs, and the Program itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..costs.accelerator_mix import MixedCosts
from ..costs.compute import concurrency_factor
from ..costs.costs import Costs
from ..hardware.cluster import Cluster
from ..plan.action import Action
from ..plan.plan import Plan
from ..plan.sharding import gathers_parameters
from .placement import COMPUTE, Placement
from .program import Program, SpanLabel
from .slowdown import Slowness

RING_PATTERNS = {"all_reduce": "ring", "reduce_scatter": "half_ring", "all_gather": "half_ring"}
"""How the members of a collective pass data on, step by step (`ring_steps.py`)."""


def span_label(rank: int, action: Action, stream: str = COMPUTE) -> SpanLabel:
    """What the trace shows of ``action`` on a stream of ``rank``."""
    return SpanLabel(rank, stream, str(action), *action.numbers)


def _overlaps(plan: Plan) -> bool:
    """Whether ranks reduce gradients or gather parameters while they compute."""
    strategy = plan.strategy
    return strategy.replicas > 1 and (strategy.overlap_gradients or gathers_parameters(strategy))


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildContext:
    """The Program that is built, and what every operation in it is made from."""

    plan: Plan
    cluster: Cluster
    program: Program
    mixed: MixedCosts
    """Costs by pipeline rank."""
    costs: Costs
    """Those of the first pipeline rank; communication is the same for all."""
    slowness: Slowness
    placement: Placement
    concurrency: float
    """Factor on seconds of compute where the ranks of a node compute at once."""
    patterns: Mapping[str, str]
    """By operation of a collective: how its members pass data on; empty where they start together."""

    @classmethod
    def of(cls, plan: Plan, cluster: Cluster, *, stepwise: bool = False, alone: bool = False) -> BuildContext:
        """That of an empty Program; ``stepwise`` and ``alone`` as `build_program` takes them."""
        mixed = MixedCosts(plan, cluster, alone=alone)
        costs = mixed.of(0)
        program = Program(axes=costs.groups.axes if cluster.host is None else {})
        slowness = Slowness(cluster, plan.world_size, program.lanes)
        for ranks, factor in mixed.slower():
            slowness.multiply(ranks, factor)
        placement = Placement(program, cluster, plan.world_size, overlaps=_overlaps(plan))
        return cls(
            plan=plan,
            cluster=cluster,
            program=program,
            mixed=mixed,
            costs=costs,
            slowness=slowness,
            placement=placement,
            concurrency=concurrency_factor(cluster, placement.ranks_per_node),
            patterns=RING_PATTERNS if stepwise else {},
        )

    @property
    def places(self) -> int:
        """Ranks of one pipeline stage."""
        return self.plan.strategy.replicas * self.plan.strategy.tp

    @property
    def ranks(self) -> range:
        """Those that are built: of alike ones only the first, unless they share cores."""
        return range(0, self.plan.strategy.workers, self.places if self.cluster.host is None else 1)

    @property
    def embedding_parameters(self) -> float:
        """Those of the embedding table, on one rank."""
        decoder = self.plan.job.model.decoder
        return decoder.vocab * decoder.hidden / self.plan.strategy.tp
