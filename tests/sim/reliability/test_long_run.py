"""Long runs: the vectorised one and its twin in simpy give the same ticks, and the books balance."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traincast.sim.errors import InputError
from traincast.sim.reliability.failures import (
    NEVER,
    TICK_S,
    Failures,
    FailureTimes,
    draw_failures,
    machine,
)
from traincast.sim.reliability.long_run import CAUSES, LongJob, Runs, long_job, play
from traincast.sim.reliability.long_run_reference import play_one_by_one

US = TICK_S


def failing_at(*moments: int, until: int, takes_node: bool = False) -> FailureTimes:
    """One sample that fails at ``moments`` (ticks)."""
    return FailureTimes(
        ticks=np.array([[*moments, NEVER]]),
        takes_node=np.full((1, len(moments) + 1), takes_node),
        until=until,
    )


def books(runs: Runs) -> dict[str, int]:
    """The first sample's numbers."""
    return {f.name: int(getattr(runs, f.name)[0]) for f in fields(Runs)}


def same(one: Runs, other: Runs) -> None:
    for f in fields(Runs):
        assert getattr(one, f.name).tolist() == getattr(other, f.name).tolist(), f.name


@st.composite
def cases(draw) -> tuple[LongJob, FailureTimes]:
    """Jobs of a few ticks with failures on every kind of moment, so that ties are the norm."""
    samples, interval = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    small = st.integers(0, 5)
    pace = st.integers(1, 4).map(lambda ticks: ticks * US)
    job = LongJob(
        step_s=draw(pace | st.tuples(*[pace] * samples)),
        interval_steps=interval,
        stall_s=draw(small) * US,
        write_s=draw(st.integers(0, interval)) * US,
        detection_s=draw(small) * US,
        restart_s=draw(small) * US,
        repair_s=draw(st.integers(0, 40)) * US,
        spare_nodes=draw(st.integers(0, 2)),
        steps=draw(st.none() | st.integers(1, 20)),
    )
    until, count = draw(st.integers(1, 120)), draw(st.integers(0, 10))
    rows = st.lists(st.integers(0, until - 1), min_size=count, max_size=count).map(sorted)
    takes = st.lists(st.booleans(), min_size=count + 1, max_size=count + 1)
    times = FailureTimes(
        ticks=np.array([[*draw(rows), NEVER] for _ in range(samples)]),
        takes_node=np.array([draw(takes) for _ in range(samples)]),
        until=until,
    )
    return job, times


@settings(max_examples=200, deadline=None)
@given(cases())
def test_both_engines_agree_to_the_tick(case: tuple[LongJob, FailureTimes]):
    """Every book of every sample, whatever ties there are."""
    same(play(*case), play_one_by_one(*case))


@settings(max_examples=100, deadline=None)
@given(cases())
def test_books_balance(case: tuple[LongJob, FailureTimes]):
    """Time is spent once; a run that ended made its steps and no more."""
    job, times = case
    runs = play(job, times)
    spent = runs.useful + sum(getattr(runs, cause) for cause in CAUSES)
    assert spent.tolist() == runs.wall.tolist()
    assert all((getattr(runs, cause) >= 0).all() for cause in (*CAUSES, "useful", "steps"))
    assert (runs.wall[~runs.finished] == times.until).all()
    if job.steps is not None:
        assert (runs.steps[runs.finished] == job.steps).all()
        assert (runs.steps <= job.steps).all()


def test_engines_agree_on_days_of_drawn_failures():
    """Two weeks of 1,024 nodes with few spares, with bursts, in microseconds."""
    failures = Failures(spare_nodes=3, shape=0.7)
    drawn = draw_failures(failures, machine(failures, 1024, 8), horizon_s=4 * 86400.0, samples=2, seed=5)
    job = long_job(failures, 1024, 7.3456789, 600.0)
    runs = play(job, drawn)
    same(runs, play_one_by_one(job, drawn))
    assert runs.failures.min() > 5
    assert runs.waiting.sum() > 0


JOB = {"step_s": 10 * US, "interval_steps": 2, "stall_s": 3 * US}


def test_a_failure_costs_what_was_not_saved():
    """23 ticks a cycle: failure at 60, two checkpoints kept, 14 ticks lost; 5 to see it, 4 to start."""
    job = LongJob(**JOB, detection_s=5 * US, restart_s=4 * US, steps=6)
    assert books(play(job, failing_at(60, until=1000))) == {
        **{"wall": 60 + 9 + 20, "useful": 60, "checkpoint": 6, "lost": 14, "detection": 5, "waiting": 0},
        **{"restart": 4, "steps": 6, "failures": 1, "finished": True},
    }


def test_a_checkpoint_in_writing_is_lost():
    """Saved at 23 but on storage at 33: a failure at 32 loses all, one at 33 only what came after."""
    job = LongJob(**JOB, write_s=10 * US)
    assert books(play(job, failing_at(32, until=33)))["lost"] == 32
    assert books(play(job, failing_at(33, until=34)))["lost"] == 10


def test_a_failure_during_recovery_begins_it_again():
    """Fails at 10 and, while it starts again, at 17: 5 + 2 are spent, then 5 + 4 more."""
    job = LongJob(**JOB, detection_s=5 * US, restart_s=4 * US)
    found = books(play(job, failing_at(10, 17, until=40)))
    assert (found["lost"], found["detection"], found["restart"], found["useful"]) == (10, 10, 2 + 4, 14)


def test_spares_stand_in_until_none_is_left():
    """One spare: the first failure waits for nobody, the second for the first node's repair at 10 + 50."""
    job = LongJob(**JOB, repair_s=50 * US, spare_nodes=1)
    found = books(play(job, failing_at(10, 30, until=100, takes_node=True)))
    assert (found["waiting"], found["lost"], found["failures"]) == (30, 30, 2)
    without = books(play(LongJob(**JOB, repair_s=50 * US), failing_at(10, until=100, takes_node=True)))
    assert without["waiting"] == 50
    software = books(play(LongJob(**JOB, repair_s=50 * US), failing_at(10, until=100)))
    assert software["waiting"] == 0


def test_without_failures_only_checkpoints_cost():
    assert play(LongJob(**JOB), failing_at(until=2300)).goodput.tolist() == [20 / 23]


def test_runs_have_their_own_pace():
    """A slower run makes fewer steps in the same time."""
    times = FailureTimes(ticks=np.full((2, 1), NEVER), takes_node=np.zeros((2, 1), dtype=bool), until=600)
    job = LongJob(step_s=(10 * US, 20 * US), interval_steps=1000, stall_s=0.0)
    assert play(job, times).steps.tolist() == [60, 30]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step_s": 0.0}, "step of 0 us"),
        ({"interval_steps": 0}, "every 0 steps"),
        ({"steps": 0}, "0 steps"),
        ({"write_s": 21 * US}, "written for 2.1e-05 s, but the next is due after 2e-05 s"),
        ({"step_s": (1.0, 2.0)}, "2 step times for 1 runs"),
        ({"stall_s": -1.0}, "checkpoint stall is -1.0 s"),
        ({"repair_s": float("nan")}, "repair time is nan s"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        play(LongJob(**{**JOB, **changes}), failing_at(until=100))
