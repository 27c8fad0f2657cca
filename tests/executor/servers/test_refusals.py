"""What of a plan with servers cannot be run, and that nothing else is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from served import served_plan

pytest.importorskip("torch")

from traincast.executor.parallel.surroundings import Surroundings
from traincast.executor.servers.refusals import refusals
from traincast.sim.plan.action import parse_actions
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.strategy import Strategy

HERE = Surroundings(kind="cpu", cores=2)


@pytest.mark.parametrize("synchrony", ["sync", "async", "stale:2", "backup:1", "local:3"])
def test_every_protocol_runs(synchrony):
    assert refusals(served_plan(synchrony, servers=2, server_replicas=2, servers_colocated=True), HERE) == []


def test_others_plans_are_not_its_business():
    plan = served_plan("sync")
    assert refusals(make_plan(plan.job, Strategy(dp=2, offload="both")), HERE) == []


def test_reasons_are_told():
    (reason,) = refusals(served_plan("sync", offload="optimizer"), HERE)
    assert reason.startswith("offload optimizer: parameter servers keep optimizer states")
    plan = served_plan("sync")
    split = replace(plan, actions=(parse_actions("0PULL 0F0 0I0 0W0 0PUSH"),))
    assert refusals(split, HERE) == [
        "a worker of parameter servers computes whole passes only; the plan has I, W"
    ]
