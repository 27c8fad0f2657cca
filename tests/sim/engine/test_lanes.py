"""Many lanes in one pass end as the unfolded program does with each operation's own seconds, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from folded import folded_programs
from hypothesis import given, settings
from hypothesis import strategies as st

from traincast.sim.engine import (
    compiled as engine_compiled,
)
from traincast.sim.engine import (
    lanes as engine_lanes,
)
from traincast.sim.engine import (
    reference as engine_simpy,
)
from traincast.sim.engine.lane_order import lane_order
from traincast.sim.engine.lanes import LaneTimes, run_lanes
from traincast.sim.errors import InputError
from traincast.sim.program.flat import fold
from traincast.sim.program.fold import unfold
from traincast.sim.program.program import Program
from traincast.sim.variability.jitter import LaneFactors


def expected(program: Program, factors: LaneFactors, keep: list[tuple[int, int]]) -> LaneTimes:
    """By the reference engine, sample by sample, on the Program written out."""
    unfolded = unfold(program)
    rank = np.array([op.rank for op in unfolded.program.operations], dtype=np.int64)
    own = np.array([op.duration for op in unfolded.program.operations])
    runs = []
    for sample in factors.samples:
        seconds = factors.durations(own, sample, unfolded.base, unfolded.lane, rank)
        runs.append(engine_simpy.run(unfolded.program, seconds))
    starts = np.zeros((len(keep), len(program.operations)))
    ends = np.zeros_like(starts)
    for k, (place, lane) in enumerate(keep):
        for op in program.operations:
            own_ids = _on_lane(program, unfolded.base, unfolded.lane, op.id, lane)
            starts[k, op.id] = runs[place][0][own_ids[0]]
            ends[k, op.id] = runs[place][1][own_ids[-1]]
    makespans = np.array([max(run[1], default=0.0) for run in runs])
    return LaneTimes(makespans=makespans, starts=starts, ends=ends)


def _on_lane(program: Program, base: np.ndarray, lane: np.ndarray, op: int, wanted: int) -> np.ndarray:
    """The unfolded operations that lane ``wanted`` has of ``op``, in order."""
    own = np.flatnonzero(base == op)
    if len(set(lane[own].tolist())) == program.lanes:
        return own[lane[own] == wanted]
    sizes, sync = [*program.axes.values()], program.operations[op].sync
    place = np.unravel_index(wanted, sizes)
    first = [0 if axis in sync else int(i) for axis, i in zip(program.axes, place, strict=True)]
    return own[lane[own] == np.ravel_multi_index(first, sizes)]


@st.composite
def lane_factors(draw: st.DrawFn) -> LaneFactors:
    """With and without jitter, one or several samples, some ranks slow."""
    first = draw(st.integers(0, 5))
    samples = range(first, first + draw(st.integers(1, 3)))
    always = np.where(np.arange(200) % 3 == 1, 1.7, 1.0)
    slow = draw(st.sampled_from([None, always, np.outer(np.arange(1.0, 4.0)[: len(samples)], always)]))
    return LaneFactors(
        cv=draw(st.sampled_from([0.0, 0.3])), seed=draw(st.integers()), samples=samples, slow=slow
    )


def same(times: LaneTimes, others: LaneTimes) -> bool:
    pairs = [(times.makespans, others.makespans), (times.starts, others.starts), (times.ends, others.ends)]
    return all(np.array_equal(one, other) for one, other in pairs)


@settings(max_examples=200, deadline=None)
@given(folded_programs(max_resources=0), lane_factors(), st.data())
def test_lanes_equal_the_unfolded_program(
    program: Program, factors: LaneFactors, data: st.DataObject
) -> None:
    """Makespans of all samples, and every start and end of the lanes that are kept."""
    places = st.tuples(st.integers(0, len(factors.samples) - 1), st.integers(0, program.lanes - 1))
    keep = data.draw(st.lists(places, max_size=3))
    assert same(
        run_lanes(fold(program), factors, keep=keep, compiled=False), expected(program, factors, keep)
    )


@settings(max_examples=100, deadline=None)
@given(folded_programs(max_resources=0), lane_factors())
def test_numba_runs_lanes_to_the_same_bits(program: Program, factors: LaneFactors) -> None:
    """The loops and the rows are one."""
    folded, keep = fold(program), [(0, 0), (len(factors.samples) - 1, program.lanes - 1)]
    rows = run_lanes(folded, factors, keep=keep, compiled=False)
    assert same(run_lanes(folded, factors, keep=keep, compiled=True), rows)


@settings(max_examples=50, deadline=None)
@given(folded_programs(max_resources=0, patterns=False))
def test_alike_lanes_equal_the_folded_run(program: Program) -> None:
    """Without factors every lane is the folded program."""
    starts, ends = engine_compiled.run(program)
    times = run_lanes(fold(program), keep=[(0, program.lanes - 1)])
    assert times.starts[0].tolist() == starts
    assert times.ends[0].tolist() == ends
    assert times.makespans.tolist() == [max(ends, default=0.0)]


def test_samples_can_be_drawn_one_by_one() -> None:
    """Sample 5 is the same in any company."""
    program = Program(axes={"tp": 4})
    for _ in range(5):
        program.add(1.0, (0,), sync=("tp",))
        program.add(1.0, (0,))
    folded = fold(program)
    many = run_lanes(folded, LaneFactors(cv=0.2, seed=1, samples=range(8))).makespans
    assert run_lanes(folded, LaneFactors(cv=0.2, seed=1, samples=range(5, 6))).makespans[0] == many[5]
    assert len(set(many.tolist())) == 8
    assert many.min() > 10.0


def test_a_slow_rank_slows_its_lane_and_whoever_meets_it() -> None:
    """Rank 5 is lane 1 of base rank 4; the collective starts when it is done."""
    program = Program(axes={"tp": 2})
    program.add(1.0, (0,), rank=4)
    program.add(0.5, (0,), sync=("tp",))
    slow = np.ones(6)
    slow[5] = 3.0
    times = run_lanes(fold(program), LaneFactors(slow=slow), keep=[(0, 0), (0, 1)])
    assert times.ends.tolist() == [[1.0, 3.5], [3.0, 3.5]]
    assert times.starts.tolist() == [[0.0, 3.0], [0.0, 3.0]]


def test_rows_do_not_grow_with_the_program() -> None:
    """A chain needs two, however long it is."""
    program = Program()
    for _ in range(1000):
        program.add(1.0, (0,))
    assert lane_order(fold(program).flat).rows == 2


def test_numba_orders_as_cpython_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same order, the same rows."""
    program = Program()
    for op in range(50):
        program.add(1.0, (op % 3,), after=[(op - 7, 0.0)] if op > 7 else None)
    flat = fold(program).flat
    interpreted = lane_order(flat)
    monkeypatch.setattr("traincast.sim.engine.lane_order.COMPILE_FROM", 1)
    monkeypatch.setattr("traincast.sim.engine.lane_order.LOADED_FROM", 1)
    numba = lane_order(flat)
    assert numba.operations.tolist() == interpreted.operations.tolist()
    assert numba.row.tolist() == interpreted.row.tolist()
    assert numba.rows == interpreted.rows


def test_little_work_is_done_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    """The amount of work decides."""
    program = Program(axes={"tp": 2})
    program.add(1.0)
    monkeypatch.delattr(engine_lanes, "compile_kernel")
    assert run_lanes(fold(program)).makespans.tolist() == [1.0]


def test_what_lanes_cannot_do_is_refused() -> None:
    """Shared resources, circles, slowness that does not reach every rank."""
    program = Program(axes={"tp": 2})
    program.add(1.0, resources=(program.resource("link", 0),), rank=3)
    with pytest.raises(InputError, match="unfold it"):
        run_lanes(fold(program))
    program.operations[0].resources = ()
    with pytest.raises(InputError, match="slowness of 4 ranks is given; the program has 5"):
        run_lanes(fold(program), LaneFactors(slow=np.ones(4)))
    program.depend(0, 0)
    with pytest.raises(InputError, match="deadlock: 1 of 1 operations"):
        run_lanes(fold(program))
