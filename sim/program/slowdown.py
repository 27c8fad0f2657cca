"""How much slower than the built one each lane of an operation is: stragglers, slow links, mixed devices.

A Program's operations name a row of this table by `rank`. The first rows are the ranks themselves, for what
they compute; each kind of communication that a slow link touches adds a block of its own, one row a lane.
Where everybody is alike there is no table, and a folded Program needs no lanes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..hardware.cluster import Cluster
from ..hardware.straggler_factors import link_factor, persistent_factors
from ..plan.rank_groups import Group


class Slowness:
    """Factors on time, by row."""

    def __init__(self, cluster: Cluster, world_size: int, lanes: int):
        self.cluster, self.lanes = cluster, lanes
        self.ranks = persistent_factors(cluster, world_size)
        """By rank: on compute."""
        self._blocks: list[np.ndarray] = []
        self._known: dict[tuple, int] = {}
        nodes = -(-world_size // cluster.accelerators_per_node)
        links = np.array([link_factor(cluster, node) for node in range(nodes)])
        self._links = links if (links < 1.0).any() else None
        """By node: fraction of its bandwidth; None where all have theirs."""

    @property
    def table(self) -> np.ndarray | None:
        """All rows, float64[rows]; None where all are 1."""
        rows = np.concatenate([self.ranks, *self._blocks])
        return rows if (rows != 1.0).any() else None

    def multiply(self, ranks: Sequence[int] | range, factor: float) -> None:
        """Ranks that take ``factor`` times as long for reasons of their own."""
        self.ranks[ranks] *= factor

    def message_row(self, source: int, target: int) -> int:
        """Row of the messages from rank ``source`` + lane to ``target`` + lane; -1 if no link is slow."""
        return self._row(("message", source, target), lambda: self._message_factors(source, target))

    def collective_row(self, group: Group, first: int) -> int:
        """Row of a collective in every group like ``group`` of the stage that begins at rank ``first``."""
        if group.size == 1:
            return -1
        return self._row(("collective", group, first), lambda: self._collective_factors(group, first))

    def _message_factors(self, source: int, target: int) -> np.ndarray:
        lane = np.arange(self.lanes)
        slowest = np.minimum(self._fraction(source + lane), self._fraction(target + lane))
        same_node = (source + lane) // self._per_node == (target + lane) // self._per_node
        return np.where(same_node, 1.0, 1.0 / slowest)

    def _collective_factors(self, group: Group, first: int) -> np.ndarray:
        """As slow as the slowest adapter of each lane's group; inside a node there is none."""
        lane = np.arange(self.lanes)
        span = group.size * group.stride
        begins = first + lane // span * span + lane % group.stride
        members = begins[:, None] + np.arange(group.size) * group.stride
        nodes = members // self._per_node
        slowest = self._fraction(members).min(axis=1)
        return np.where((nodes == nodes[:, :1]).all(axis=1), 1.0, 1.0 / slowest)

    @property
    def _per_node(self) -> int:
        return self.cluster.accelerators_per_node

    def _fraction(self, ranks: np.ndarray) -> np.ndarray:
        assert self._links is not None
        return self._links[ranks // self._per_node]

    def _row(self, key: tuple, factors: Callable[[], np.ndarray]) -> int:
        if self._links is None:
            return -1
        if key not in self._known:
            own = factors()
            self._known[key] = -1
            if (own != 1.0).any():
                self._known[key] = len(self.ranks) + sum(map(len, self._blocks))
                self._blocks.append(own)
        return self._known[key]
