"""Folding is exact: lanes written out as objects, as arrays, and not at all give the same bits."""

from __future__ import annotations

import numpy as np
import pytest
from folded import folded_programs
from hypothesis import given, settings
from hypothesis import strategies as st

from traincast.sim.engine import compiled as engine_compiled
from traincast.sim.engine import reference as engine_simpy
from traincast.sim.errors import InputError
from traincast.sim.program.flat import FlatLanes, fold, unfold_flat
from traincast.sim.program.fold import lane_groups, unfold
from traincast.sim.program.program import Program, SpanLabel


@settings(max_examples=200, deadline=None)
@given(folded_programs())
def test_objects_and_arrays_unfold_alike(program: Program) -> None:
    """Operation for operation: where it comes from, its seconds, when it starts and ends on both engines."""
    objects, arrays = unfold(program), unfold_flat(fold(program))
    assert arrays.lanes.base.tolist() == objects.base.tolist()
    assert arrays.lanes.lane.tolist() == objects.lane.tolist()
    assert arrays.flat.durations.tolist() == [op.duration for op in objects.program.operations]
    times = engine_compiled.run_flat(arrays.flat)
    assert times == engine_compiled.run(objects.program) == engine_simpy.run(objects.program)


@settings(max_examples=200, deadline=None)
@given(folded_programs(max_resources=0, patterns=False))
def test_folded_equals_unfolded_where_lanes_are_alike(program: Program) -> None:
    """Each unfolded operation starts and ends when the folded one does, to the bit."""
    unfolded = unfold(program)
    starts, ends = map(np.array, engine_compiled.run(program))
    all_starts, all_ends = engine_simpy.run(unfolded.program)
    assert all_starts == starts[unfolded.base].tolist()
    assert all_ends == ends[unfolded.base].tolist()


@settings(max_examples=100, deadline=None)
@given(folded_programs(max_resources=0), st.data())
def test_order_of_lanes_does_not_matter(program: Program, data: st.DataObject) -> None:
    """Slowing one lane or another that is like it gives the same makespan."""
    unfolded = unfold(program)
    durations = np.array([op.duration for op in unfolded.program.operations])
    makespans = set()
    for lane in (0, program.lanes - 1):
        slow = np.where((unfolded.lane == lane) & _alone(program, unfolded.base), 2.0, 1.0)
        makespans.add(max(engine_compiled.run(unfolded.program, durations * slow)[1], default=0.0))
    assert len(makespans) == 1


def _alone(program: Program, base: np.ndarray) -> np.ndarray:
    """Of every unfolded operation: whether only one lane is in it."""
    return np.array([not program.operations[op].sync for op in base], dtype=bool)


def test_groups_are_the_lanes_that_differ_in_the_axes_alone() -> None:
    """dp 2 × tp 3, lanes numbered with tp fastest."""
    axes = {"dp": 2, "tp": 3}
    assert lane_groups(axes, ()).tolist() == [[0], [1], [2], [3], [4], [5]]
    assert lane_groups(axes, ("tp",)).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert lane_groups(axes, ("dp",)).tolist() == [[0, 3], [1, 4], [2, 5]]
    assert lane_groups(axes, ("dp", "tp")).tolist() == [[0, 1, 2, 3, 4, 5]]


def test_a_step_written_out() -> None:
    """Compute on ranks 4..7 (dp 2 × tp 2), all-reduces over tp and over dp: names, order, labels."""
    program = Program(axes={"dp": 2, "tp": 2})
    stream, link = program.stream(4, "compute"), program.resource("link", 0)
    label = SpanLabel(4, "compute", "0F0", 0, 0)
    compute = program.add(1.0, (stream,), spans=(label,), rank=4, flops=8.0)
    program.add(2.0, (stream,), spans=(label,), sync=("tp",), parent=compute)
    program.add(3.0, after=[(1, 0.5)], resources=(link,), sync=("dp",))
    unfolded = unfold(program)
    assert unfolded.program.streams == {(4, "compute"): 0, (5, "compute"): 1, (6, "compute"): 2} | {
        (7, "compute"): 3
    }
    assert unfolded.program.resources[("link of lane 3", 0)] == 3
    shown = [
        (op.duration, op.streams, op.after, op.resources, op.parent, op.rank, [s.rank for s in op.spans])
        for op in unfolded.program.operations
    ]
    assert shown == [
        (1.0, (0,), [], (), -1, 4, [4]),
        (1.0, (1,), [], (), -1, 5, [5]),
        (1.0, (2,), [], (), -1, 6, [6]),
        (1.0, (3,), [], (), -1, 7, [7]),
        (2.0, (0, 1), [], (), 0, -1, [4, 5]),
        (2.0, (2, 3), [], (), 2, -1, [6, 7]),
        (3.0, (), [(4, 0.5), (5, 0.5)], (0, 2), -1, -1, []),
        (3.0, (), [(4, 0.5), (5, 0.5)], (1, 3), -1, -1, []),
    ]


def test_a_pattern_written_out() -> None:
    """A ring over three lanes: arrival and four steps each, shown as one span."""
    program = Program(axes={"dp": 3})
    program.add(4.0, (program.stream(0, "dp"),), spans=(SpanLabel(0, "dp", "R", 0, 0),), sync=("dp",))
    program.operations[0].pattern = "ring"
    program.add(1.0, after=[(0, 0.0)])
    operations = unfold(program).program.operations
    assert [op.duration for op in operations] == [0.0] * 3 + [1.0] * 15
    assert [op.parent for op in operations] == [-1, -1, -1, *[0, 1, 2] * 4, -1, -1, -1]
    assert operations[3].after == [(0, 0.0), (2, 0.0)]
    assert operations[14].after == [(11, 0.0), (10, 0.0)]
    assert [op.after for op in operations[15:]] == [[(12, 0.0)], [(13, 0.0)], [(14, 0.0)]]


def test_links_replace_the_lanes_own_resources() -> None:
    """One link for all lanes: they leave one by one, in order of id."""
    program = Program(axes={"dp": 3})
    program.add(2.0)

    def one_link(lanes: FlatLanes) -> tuple[np.ndarray, np.ndarray]:
        return np.ones(len(lanes.base), dtype=np.int64), np.zeros(len(lanes.base), dtype=np.int32)

    flat = unfold_flat(fold(program), one_link).flat
    assert engine_compiled.run_flat(flat) == ([0.0, 2.0, 4.0], [2.0, 4.0, 6.0])


def test_impossible_foldings_are_refused() -> None:
    """An axis that is none, a pattern that is none, lanes that would fall on another's rank."""
    program = Program(axes={"dp": 2})
    program.add(1.0, sync=("tp",))
    for write_out in (unfold, fold):
        with pytest.raises(InputError, match="lanes meet over 'tp'; the folded axes are dp"):
            write_out(program)
    program.operations[0].sync, program.operations[0].pattern = ("dp",), "star"
    for write_out in (unfold, fold):
        with pytest.raises(InputError, match="'star' is unknown"):
            write_out(program)
    program.operations[0].pattern = ""
    program.stream(0, "compute"), program.stream(1, "compute")
    with pytest.raises(InputError, match="a rank in common"):
        unfold(program)
