"""Results are remembered for the same plan and cluster, not for equal ones, and only so many of them."""

from __future__ import annotations

from dataclasses import replace

from machines import gpu_cluster, job

from traincast.sim.hardware.cluster import Cluster
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.plan import Plan
from traincast.sim.plan.strategy import Strategy
from traincast.sim.predict.remembered import remembered


def test_results_belong_to_the_objects_they_were_made_of() -> None:
    """The same objects are not asked again, nor is the plan that only says another cluster; others are, and
    the oldest are forgotten."""
    asked: list[bool] = []

    @remembered(2)
    def ranks(plan: Plan, cluster: Cluster, *, twice: bool) -> int:
        asked.append(twice)
        return plan.world_size * cluster.nodes * (2 if twice else 1)

    own, strategy = job(), Strategy(pp=2)
    plan, cluster = make_plan(own, strategy), gpu_cluster(nodes=4)
    assert [ranks(plan, cluster, twice=False), ranks(plan, cluster, twice=False)] == [8, 8]
    assert ranks(replace(plan, cluster={"name": "other"}), cluster, twice=False) == 8
    assert asked == [False]
    assert ranks(plan, cluster, twice=True) == 16
    assert ranks(plan, gpu_cluster(nodes=4), twice=True) == 16
    assert asked == [False, True, True]
    assert ranks(plan, cluster, twice=False) == 8
    assert asked == [False, True, True, False]
