"""Groups of ranks: they partition the grid, and their axes say who folds onto whom."""

from __future__ import annotations

import math

import numpy as np
import pytest
from generators import jobs_and_strategies
from hypothesis import given

from traincast.sim.plan.rank_groups import Groups
from traincast.sim.plan.strategy import Strategy

NAMES = ("tp", "cp", "ep", "replicas", "shards", "shard_replicas", "expert_replicas")
DEEP = Strategy(dp=8, cp=2, tp=4, ep=4, sharding="hsdp", shard_degree=8)


@given(jobs_and_strategies())
def test_every_group_divides_the_stage(drawn):
    """Each rank of a stage is in exactly one group of every name, the one that `of` gives it."""
    strategy = drawn[1]
    if strategy.gradient_exchange != "allreduce":
        return
    groups = Groups(strategy)
    places = strategy.replicas * strategy.tp
    for name in NAMES:
        group = groups[name]
        found = {group.of(rank, 0) for rank in range(places)}
        assert sorted(rank for ranks in found for rank in ranks) == list(range(places))
        assert all(rank in group.of(rank, 0) for rank in range(places))
        assert all(len(ranks) == group.size for ranks in found)


@given(jobs_and_strategies())
def test_axes_number_the_lanes_in_order_of_rank(drawn):
    """A group's members are the lanes that differ along its sync axes only."""
    strategy = drawn[1]
    if strategy.gradient_exchange != "allreduce":
        return
    groups = Groups(strategy)
    axes = groups.axes
    assert math.prod(axes.values()) == strategy.replicas * strategy.tp
    lanes = np.arange(math.prod(axes.values())).reshape(list(axes.values()) or [1])
    for name in NAMES:
        group = groups[name]
        along = tuple(place for place, axis in enumerate(axes) if axis in group.sync)
        first = lanes[tuple(slice(None) if place in along else 0 for place in range(len(axes)))]
        assert sorted(np.ravel(first if axes else lanes).tolist()) == list(group.ranks(0))


def test_groups_of_a_deep_strategy():
    """dp 8 x cp 2 x tp 4: experts over 4 neighbours, shards over 8, two replicas of each shard."""
    groups = Groups(DEEP)
    assert groups.axes == {"replica8": 2, "replica4": 2, "replica2": 2, "replica1": 2, "tp": 4}
    assert list(groups["cp"].ranks(0)) == [0, 4]
    assert list(groups["ep"].ranks(0)) == [0, 4, 8, 12]
    assert list(groups["shard_replicas"].ranks(0)) == [0, 32]
    assert list(groups["expert_replicas"].ranks(1)) == [1, 17, 33, 49]
    assert groups["expert_replicas"].sync == ("replica4", "replica8")
    assert groups["ep"].of(64 + 21, 64) == range(64 + 17, 64 + 33, 4)


@pytest.mark.parametrize("name", NAMES)
def test_a_single_rank_meets_nobody(name):
    group = Groups(Strategy())[name]
    assert (group.size, group.sync) == (1, ())
