"""Tables for the terminal: asynchronous plans apart, memory next to time."""

from io import StringIO

import pytest

from traincast.reports.plan_tables import ASYNCHRONOUS, measured_tables, rankings
from traincast.reports.table import show_all
from traincast.sim.plan.strategy import Strategy
from traincast.sim.search.accuracy import accuracy_of
from traincast.sim.search.planner import search
from traincast.sim.trace.trace import Trace

SERVERS = {"gradient_exchange": "parameter_server", "servers": 1}


@pytest.fixture
def found(tiny_job, host_cluster):
    space = [Strategy(), Strategy(pp=2), Strategy(dp=2, synchrony="async", **SERVERS)]
    return search(tiny_job, host_cluster, space, top=3, samples=1)


def run(ranked, factor):
    peak = max(ranked.metrics.peak_memory_bytes)
    return Trace.of(
        [],
        source="measured",
        world_size=1,
        step_times_s=(factor * ranked.trace.step_time_s,),
        peak_memory_bytes={0: peak / 2, 1: peak * 2},
        metadata={"losses": [5.0, 4.0]},
    )


def test_asynchronous_plans_have_a_table_of_their_own(found):
    """Numbered on, since plans are files by number."""
    first, second = rankings(found)
    assert [row[0] for row in first.rows] == ["1", "2"]
    assert [row[0] for row in second.rows] == ["3"]
    assert second.title.startswith(ASYNCHRONOUS)
    assert (first.columns[-1], second.columns[-1]) == ("why not #1", "why not #3")
    out = StringIO()
    show_all([first, second], out)
    assert f"\n\n{ASYNCHRONOUS}" in out.getvalue()


def test_synchronous_plans_alone_have_one_table(tiny_job, host_cluster):
    found = search(tiny_job, host_cluster, [Strategy(), Strategy(pp=2)], top=2, samples=1)
    assert len(rankings(found)) == 1


def test_measured_plans_show_their_order_and_their_memory(found):
    """Of the fullest rank; predicted place, then measured place."""
    runs = {0: run(found.plans[0], 3.0), 1: run(found.plans[1], 0.5), 2: run(found.plans[2], 1.0)}
    synchronous, others = measured_tables(found.plans, runs, accuracy_of(found.plans, runs))
    assert [row[0] for row in synchronous.rows] == ["1 → 2", "2 → 1"]
    assert [row[7] for row in synchronous.rows] == ["-66.7 %", "+100.0 %"]
    assert [row[10] for row in synchronous.rows] == ["-50.0 %", "-50.0 %"]
    assert "peak memory 50.0 % in the median, 50.0 % at worst" in synchronous.title
    assert [row[0] for row in others.rows] == ["1 → 1"]
    assert others.rows[0][-1] == "5.00 → 4.00"
