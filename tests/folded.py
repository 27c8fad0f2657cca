"""A hypothesis strategy for folded Programs, shared by the tests of folding and of lanes."""

from __future__ import annotations

from generators import programs
from hypothesis import strategies as st

from traincast.sim.program.program import Program

AXES = [
    {},
    {"dp": 1},
    {"tp": 2},
    {"dp": 2, "tp": 2},
    {"dp": 3, "cp": 1, "tp": 2},
    {"dp": 2, "cp": 2, "tp": 2},
]


@st.composite
def folded_programs(draw: st.DrawFn, max_resources: int = 2, patterns: bool = True) -> Program:
    """A Program without deadlock whose operations meet over some of its axes, some of them step by step."""
    program = draw(programs(max_operations=10, max_resources=max_resources))
    program.axes = dict(draw(st.sampled_from(AXES)))
    for operation in program.operations:
        operation.sync = tuple(axis for axis in program.axes if draw(st.integers(0, 2)) == 0)
        operation.rank = draw(st.sampled_from([-1, 0, 100]))
        if patterns and operation.sync and draw(st.integers(0, 2)) == 0:
            members = 1
            for axis in operation.sync:
                members *= program.axes[axis]
            power_of_two = members & (members - 1) == 0
            names = ["ring", "half_ring", *(["halving_doubling"] if power_of_two else [])]
            operation.pattern = draw(st.sampled_from(names))
    return program
