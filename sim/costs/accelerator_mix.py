"""Clusters whose nodes have different accelerators: what each rank computes with, and how much slower it is.

A pipeline stage is costed on the accelerator of its first rank. Where its ranks have several kinds, the
others take as many times as long as all layers of the stage take on theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..hardware.cluster import Accelerator, Cluster
from ..plan.action import Kind
from ..plan.plan import Plan
from .costs import Costs
from .stage import StageCosts


def accelerators_of(cluster: Cluster) -> list[Accelerator]:
    """The kinds of accelerators there are, each once."""
    return [group.accelerator for group in cluster.node_groups] or [cluster.accelerator]


def stage_accelerators(cluster: Cluster, ranks: range) -> dict[str, tuple[Accelerator, list[int]]]:
    """By name: each kind of accelerator among ``ranks``, and the ranks that have it."""
    found: dict[str, tuple[Accelerator, list[int]]] = {}
    for rank in ranks:
        accelerator = cluster.accelerator_of(rank)
        found.setdefault(accelerator.name, (accelerator, []))[1].append(rank)
    return found


class MixedCosts:
    """Costs of one plan by pipeline rank."""

    def __init__(self, plan: Plan, cluster: Cluster, *, alone: bool = False):
        self.plan, self.cluster, self.alone = plan, cluster, alone
        self._by_name: dict[str, Costs] = {}

    def of(self, pipeline_rank: int) -> Costs:
        """Costs on the accelerator of a stage's first rank."""
        return self._on(self.cluster.accelerator_of(self._ranks(pipeline_rank)[0]))

    def slower(self) -> Iterator[tuple[list[int], float]]:
        """Ranks whose accelerator is not that of their stage's first, with the factor on their time."""
        if not self.cluster.node_groups:
            return
        for pipeline_rank in range(self.plan.strategy.pp):
            first = self._seconds(self.of(pipeline_rank), pipeline_rank)
            kinds = stage_accelerators(self.cluster, self._ranks(pipeline_rank))
            for accelerator, ranks in kinds.values():
                factor = self._seconds(self._on(accelerator), pipeline_rank) / first
                if factor != 1.0:
                    yield ranks, factor

    def _ranks(self, pipeline_rank: int) -> range:
        places = self.plan.strategy.replicas * self.plan.strategy.tp
        return range(pipeline_rank * places, (pipeline_rank + 1) * places)

    def _on(self, accelerator: Accelerator) -> Costs:
        if accelerator.name not in self._by_name:
            cluster = replace(self.cluster, accelerator=accelerator)
            costs = Costs(cluster, self.plan.job, self.plan.strategy)
            costs.communication.alone = self.alone
            self._by_name[accelerator.name] = costs
        return self._by_name[accelerator.name]

    def _seconds(self, costs: Costs, pipeline_rank: int) -> float:
        layers = self.plan.job.model.layers
        held = [layers[i] for stage in self.plan.rank_stages(pipeline_rank) for i in stage.layer_indices]
        return StageCosts(costs).compute_s(held, Kind.FORWARD, Kind.BACKWARD)
