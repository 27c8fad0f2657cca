"""How busy a machine was, from the kernel's own counts."""

from __future__ import annotations

import os

import pytest

from traincast.executor.measure.load import Reading, busy_seconds_of, load_between

STAT = """cpu  900 0 300 5000 100 0 50 50 0 0
cpu0 400 0 100 2500 50 0 25 25 0 0
cpu1 500 0 200 2500 50 0 25 25 100 0
cpu2 9999 0 0 0 0 0 0 0 0 0
intr 12345 1 2 3
"""


def test_busy_is_all_but_idle_on_the_cores_of_the_run():
    """user, system, softirq and steal; guests are in user already."""
    tick = os.sysconf("SC_CLK_TCK")
    assert busy_seconds_of(STAT, [0, 1]) == pytest.approx((400 + 100 + 25 + 25 + 500 + 200 + 25 + 25) / tick)
    assert busy_seconds_of("", [0, 1]) == 0.0


def test_what_is_busy_and_not_of_the_ranks_is_of_others():
    """Two ranks, four seconds, two cores: six seconds busy, of which the ranks took five."""
    before = [Reading(10.0, 100.0, 1.0), Reading(10.1, 100.0, 2.0)]
    after = [Reading(14.0, 106.0, 4.0), Reading(13.9, 105.9, 4.0)]
    load = load_between(before, after, 2)
    assert load == {"cores": 2.0, "own": pytest.approx(5 / 4), "others": pytest.approx(1 / 4)}


def test_ranks_that_count_more_than_the_machine_leave_nothing_to_others():
    """Ticks are coarse."""
    before, after = [Reading(0.0, 0.0, 0.0)], [Reading(1.0, 0.9, 1.0)]
    assert load_between(before, after, 2)["others"] == 0.0


def test_a_machine_that_does_not_say_has_no_load():
    """No counts."""
    assert load_between([Reading(0.0, 0.0, 0.0)], [Reading(1.0, 0.0, 1.0)], 2) == {}
