"""Collectives step by step: closed forms where members are alike, an explicit program where not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traincast.sim.engine import reference as engine_simpy
from traincast.sim.errors import InputError
from traincast.sim.program.program import Program
from traincast.sim.program.ring_steps import (
    halving_doubling_ends,
    pattern_ends,
    ring_all_reduce_ends,
    step_shares,
    step_sources,
)

SECONDS = st.sampled_from([0.0, 1.0, 2.0, 0.1, 1 / 3]) | st.floats(0, 1e3)


def explicit(ready: list[float], seconds: list[list[float]], pattern: str) -> list[float]:
    """Ends by the reference engine; ``seconds`` by step and member."""
    program = Program()
    before = [program.add(time) for time in ready]
    for step, row in enumerate(seconds):
        sources = step_sources(pattern, len(ready), step)
        before = [
            program.add(row[r], after=[(before[r], 0.0), (before[sources[r]], 0.0)])
            for r in range(len(ready))
        ]
    ends = engine_simpy.run(program)[1]
    return [ends[op] for op in before]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(SECONDS, SECONDS), min_size=1, max_size=6))
def test_ring_equals_the_explicit_program(members: list[tuple[float, float]]) -> None:
    """Every member with its own ready time and its own step, to the bit."""
    ready, step = map(list, zip(*members, strict=True))
    steps = [step] * (2 * (len(members) - 1))
    assert ring_all_reduce_ends(ready, np.array(step)).tolist() == explicit(ready, steps, "ring")


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 3), st.data())
def test_halving_and_doubling_equals_the_explicit_program(bits: int, data: st.DataObject) -> None:
    """Over 1, 2, 4 and 8 members, with a duration for each step."""
    ready = data.draw(st.lists(SECONDS, min_size=1 << bits, max_size=1 << bits))
    steps = data.draw(st.lists(SECONDS, min_size=2 * bits, max_size=2 * bits))
    rows = [[step] * len(ready) for step in steps]
    assert halving_doubling_ends(ready, steps).tolist() == explicit(ready, rows, "halving_doubling")


@pytest.mark.parametrize("members", [2, 8, 512])
def test_ring_of_alike_members_takes_the_textbook_time(members: int) -> None:
    """2(n-1) steps of (latency + size / n / bandwidth), to the nanosecond."""
    step = 5e-6 + 2**30 / members / 50e9
    ends = ring_all_reduce_ends(np.full(members, 0.25), step)
    assert ends == pytest.approx(np.full(members, 0.25 + 2 * (members - 1) * step), abs=1e-9)


def test_a_late_member_delays_its_right_neighbour_first() -> None:
    """Over four members: lateness travels one place a step, so the left neighbour has it last."""
    on_time = ring_all_reduce_ends(np.zeros(4), 1.0)
    late = ring_all_reduce_ends(np.array([4.0, 0.0, 0.0, 0.0]), 1.0)
    assert on_time.tolist() == [6.0] * 4
    assert late.tolist() == [10.0] * 4
    half = pattern_ends("half_ring", np.array([4.0, 0.0, 0.0, 0.0]), np.ones((3, 4)))
    assert half.tolist() == [7.0, 7.0, 7.0, 7.0]
    assert pattern_ends("half_ring", np.array([1.5, 0.0, 0.0, 0.0]), np.ones((3, 4)))[1:].min() == 4.5


@pytest.mark.parametrize("pattern", ["ring", "half_ring", "halving_doubling"])
@pytest.mark.parametrize("members", [1, 2, 8])
def test_alike_members_take_the_operations_seconds(pattern: str, members: int) -> None:
    """Shares add up to one, so a pattern among alike members ends as one common start does."""
    shares = step_shares(pattern, members)
    assert shares.sum() == pytest.approx(1.0 if members > 1 else 0.0)
    ends = pattern_ends(pattern, np.full(members, 2.0), np.outer(3.0 * shares, np.ones(members)))
    assert ends == pytest.approx(np.full(members, 5.0 if members > 1 else 2.0))


def test_numba_runs_the_ring_to_the_same_bits() -> None:
    """Loops under numba and rows in numpy."""
    random = np.random.default_rng(3)
    ready, step = random.random(50), random.random(50)
    rows, loops = (ring_all_reduce_ends(ready, step, compiled=flag).tolist() for flag in (False, True))
    assert loops == rows


def test_what_cannot_be_is_refused() -> None:
    """With the numbers."""
    with pytest.raises(InputError, match="power of two members; there are 6"):
        halving_doubling_ends([0.0] * 6, [])
    with pytest.raises(InputError, match="1 steps; halving and doubling over 4 members has 4"):
        halving_doubling_ends([0.0] * 4, [1.0])
    with pytest.raises(InputError, match="ready time of 1"):
        ring_all_reduce_ends([0.0, -1.0], 1.0)
    with pytest.raises(InputError, match="without members"):
        ring_all_reduce_ends([], 1.0)
    with pytest.raises(InputError, match="'star' is unknown"):
        step_shares("star", 4)
