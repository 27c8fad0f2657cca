"""Which ranks talk to each other: the groups of a strategy, as strides through the rank grid.

Worker ranks count [pp, dp, cp, tp]. The dp x cp ranks of one stage and one tensor-parallel index hold the
same layers; their places 0 .. dp x cp - 1 are cut where cp, ep and sharding groups end, each size dividing
the next. Between two cuts lies an axis, so every group is either all ranks along the inner axes (neighbours)
or all along the outer ones (strided), and like ranks fold along these axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from .strategy import Strategy


@dataclass(frozen=True, slots=True)
class Group:
    """Ranks first, first + stride, ...: ``size`` of them."""

    size: int
    stride: int
    sync: tuple[str, ...]
    """The axes of a folded Program along which its members lie."""

    def ranks(self, first: int) -> range:
        """The group of which ``first`` is the first member."""
        return range(first, first + self.size * self.stride, self.stride)

    def of(self, rank: int, stage_first: int) -> range:
        """The group that ``rank`` is in, its pipeline stage beginning at rank ``stage_first``."""
        place = rank - stage_first
        block, inside = divmod(place, self.size * self.stride)
        return self.ranks(stage_first + block * self.size * self.stride + inside % self.stride)


class Groups:
    """The groups of one strategy by name.

    `tp`, `cp`, `ep`; `replicas`: all that hold the same dense layers; `shards`: one sharding group of them;
    `shard_replicas`: those that hold the same shard; `expert_replicas`: those that hold the same experts.
    """

    def __init__(self, strategy: Strategy):
        tp, replicas = strategy.tp, strategy.replicas
        shards = strategy.shard_degree if strategy.sharding == "hsdp" else replicas
        self.cuts = sorted({1, strategy.cp, strategy.ep, shards, replicas})
        self._tp, self._replicas = tp, replicas
        self._by_name = {
            "tp": Group(tp, 1, ("tp",) if tp > 1 else ()),
            "cp": self._inner(strategy.cp),
            "ep": self._inner(strategy.ep),
            "replicas": self._inner(replicas),
            "shards": self._inner(shards),
            "shard_replicas": self._outer(shards),
            "expert_replicas": self._outer(strategy.ep),
        }

    def __getitem__(self, name: str) -> Group:
        return self._by_name[name]

    @property
    def axes(self) -> dict[str, int]:
        """Sizes of the axes of like ranks, slowest first; those of one rank are left out."""
        sizes = {_axis(low): high // low for low, high in pairwise(self.cuts)}
        return {**dict(reversed(sizes.items())), **({"tp": self._tp} if self._tp > 1 else {})}

    def _inner(self, size: int) -> Group:
        """Neighbours: ``size`` places in a row."""
        return Group(size, self._tp, tuple(_axis(low) for low in self.cuts if low < size))

    def _outer(self, step: int) -> Group:
        """Every ``step``-th place."""
        axes = tuple(_axis(low) for low in self.cuts if step <= low < self._replicas)
        return Group(self._replicas // step, step * self._tp, axes)


def _axis(low: int) -> str:
    return f"replica{low}"
