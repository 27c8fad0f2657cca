"""What a result says in words: predicted told from measured, asynchronous plans apart, memory with time."""

import pytest

from traincast.sim.plan.strategy import Strategy
from traincast.sim.search.accuracy import accuracy_of, memory_error_pct
from traincast.sim.search.planner import search
from traincast.sim.search.verdict import ordinal, verdict
from traincast.sim.trace.trace import Trace
from traincast.sim.units import format_quantity

SERVERS = {"gradient_exchange": "parameter_server", "servers": 1}
SPACE = [
    Strategy(),
    Strategy(dp=2, micro_batch=4),
    Strategy(pp=2),
    Strategy(dp=2, synchrony="async", **SERVERS),
    Strategy(dp=2, synchrony="stale:1", **SERVERS),
]


@pytest.fixture
def found(tiny_job, host_cluster):
    """Three synchronous plans, then two asynchronous ones."""
    return search(tiny_job, host_cluster, SPACE, top=len(SPACE), samples=1)


def measured(found, factors, *, memory=None, staleness=None):
    """Runs by place that took ``factors`` times what the plan ranked first is predicted to take."""
    unit = found.plans[0].trace.step_time_s
    return {
        place: Trace.of(
            [],
            source="measured",
            world_size=1,
            step_times_s=(factor * unit,),
            peak_memory_bytes={0: memory * max(found.plans[place].metrics.peak_memory_bytes)}
            if memory
            else {},
            metadata={"staleness": staleness} if staleness else {},
        )
        for place, factor in factors.items()
    }


def label(found, place):
    return found.plans[place].plan.strategy.label


def test_a_prediction_alone_is_called_one(found):
    text = verdict(found, {})
    assert text.startswith(
        f"{label(found, 0)} is predicted to be the fastest synchronous one of 5 ways to train"
    )
    assert f"Next is {label(found, 1)}, +" in text
    assert "easured" not in text


def test_the_plan_predicted_fastest_says_where_it_came_in(found):
    """Third of three is no fastest; asynchronous runs that take less do not count."""
    runs = measured(found, {0: 1.3, 1: 1.0, 2: 1.25, 3: 0.2, 4: 0.3})
    text = verdict(found, runs)
    time = format_quantity(runs[0].step_time_s, "time")
    assert (
        f"Measured, it takes {time} a step: third of 3 synchronous plans run,"
        f" 30.0 % slower than {label(found, 1)}." in text
    )
    accuracy = accuracy_of(found.plans, runs)
    assert (accuracy.compared, accuracy.fastest_place, accuracy.runs) == (3, 3, 5)
    assert accuracy.fastest_regret_pct == pytest.approx(30)


def test_the_fastest_measured_is_called_so(found):
    assert "the fastest of 2 synchronous plans run." in verdict(found, measured(found, {0: 1.0, 1: 1.1}))
    assert "the one synchronous plan run." in verdict(found, measured(found, {0: 1.0}))


def test_a_first_plan_that_was_not_run_says_so(found):
    text = verdict(found, measured(found, {1: 1.1, 2: 1.0}))
    assert f"It was not run; {label(found, 1)}, predicted fastest of those that were, takes" in text
    assert f"second of 2 synchronous plans run, 10.0 % slower than {label(found, 2)}." in text


def test_the_fastest_asynchronous_update_is_named_with_its_staleness(found):
    text = verdict(found, measured(found, {0: 1.0, 3: 1.0, 4: 0.5}, staleness=[0, 1, 4, 1]))
    assert "Ranked apart, since an asynchronous update is not worth a synchronous step:" in text
    assert (
        f"(second of 2 asynchronous plans run, 100.0 % slower than {label(found, 4)};"
        " staleness 1.5 updates in the mean, 4 at most)" in text
    )


def test_memory_is_judged_as_time_is(found):
    """By the median and the worst of the fullest rank."""
    runs = measured(found, {0: 1.0, 1: 1.0}, memory=1.25)
    assert memory_error_pct(found.plans[0], runs[0]) == pytest.approx(-20)
    assert verdict(found, runs).endswith("predicted peak memory by 20.0 % and 20.0 %.")
    unweighed = measured(found, {0: 1.0})
    assert memory_error_pct(found.plans[0], unweighed[0]) is None
    assert accuracy_of(found.plans, unweighed).memory_median_abs_pct is None
    assert "memory" not in verdict(found, unweighed)


def test_asynchronous_plans_alone_are_compared_with_each_other(tiny_job, host_cluster):
    found = search(tiny_job, host_cluster, SPACE[3:], top=2, samples=1)
    text = verdict(found, measured(found, {0: 1.2, 1: 1.0}))
    assert "is predicted to be the fastest of 2 ways" in text
    assert "second of 2 asynchronous plans run, 20.0 % slower" in text
    assert "Ranked apart" not in text


def test_places_in_words():
    assert [ordinal(n) for n in (1, 2, 10, 11, 12, 21, 22, 23, 112)] == [
        "the fastest", "second", "tenth", "11th", "12th", "21st", "22nd", "23rd", "112th",
    ]  # fmt: skip
