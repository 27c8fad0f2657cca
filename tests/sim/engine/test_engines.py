"""Both engines run the same Programs to the same bits, and to what is known in closed form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
from generators import programs
from hypothesis import given, settings
from hypothesis import strategies as st

from traincast.sim.engine import compiled as engine_compiled
from traincast.sim.engine import reference as engine_simpy
from traincast.sim.errors import InputError
from traincast.sim.jit import compiled, worthwhile
from traincast.sim.program.program import Program, SpanLabel

Times = tuple[list[float], list[float]]

ENGINES = {"simpy": engine_simpy.run, "compiled": engine_compiled.run}
both_engines = pytest.mark.parametrize("run", ENGINES.values(), ids=ENGINES)


def predecessors(program: Program) -> list[list[tuple[int, float]]]:
    """By operation: (id, delay) of everything it waits for, the previous one on each stream included."""
    waits: list[list[tuple[int, float]]] = []
    last: dict[int, int] = {}
    for operation in program.operations:
        waits.append([(last[s], 0.0) for s in operation.streams if s in last] + operation.after)
        last.update(dict.fromkeys(operation.streams, operation.id))
    return waits


def ready_times(program: Program, ends: list[float]) -> list[float]:
    """The contract's first line, from the ends that an engine gave."""
    return [max([0.0, *(ends[op] + delay for op, delay in waits)]) for waits in predecessors(program)]


# The engines against each other


@settings(max_examples=500, deadline=None)
@given(programs())
def test_engines_agree_to_the_last_bit(program: Program) -> None:
    """Starts and ends are equal as floats, ties, resources and awkward sums included."""
    assert engine_compiled.run(program) == engine_simpy.run(program)


@settings(max_examples=200, deadline=None)
@given(programs(max_resources=0), st.data())
def test_engines_agree_without_resources_and_with_other_durations(
    program: Program, data: st.DataObject
) -> None:
    """The worklist too; and durations given by the caller replace the program's own."""
    count = len(program.operations)
    durations = data.draw(st.lists(st.floats(0, 1e3), min_size=count, max_size=count))
    flat = engine_compiled.flatten(program)
    expected = engine_simpy.run(program, durations)
    assert engine_compiled.run_flat(flat, durations) == expected
    assert engine_compiled.run_flat(flat) == engine_simpy.run(program)


@settings(max_examples=100, deadline=None)
@given(st.one_of(programs(), programs(max_resources=0)))
def test_compiled_kernels_equal_interpreted_ones(program: Program) -> None:
    """numba runs the same source to the same bits."""
    flat = engine_compiled.flatten(program)
    assert engine_compiled.run_flat(flat, compiled=True) == engine_compiled.run_flat(flat, compiled=False)


def test_large_programs_are_compiled_and_small_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of operations decides, where the caller does not."""
    program = Program()
    program.add(1.0, (0,))
    flat = engine_compiled.flatten(program)
    expected = ([0.0], [1.0])
    with monkeypatch.context() as patch:
        patch.delattr(engine_compiled, "run_arrays")
        assert engine_compiled.run_flat(flat, compiled=False) == engine_compiled.run(program) == expected
    monkeypatch.setattr(engine_compiled, "COMPILE_FROM", 1)
    monkeypatch.setattr(engine_compiled, "LOADED_FROM", 1)
    monkeypatch.delattr(engine_compiled, "_run_interpreted")
    assert engine_compiled.run_flat(flat, compiled=True) == engine_compiled.run(program) == expected


def test_numba_is_asked_for_less_once_it_is_loaded() -> None:
    """A kernel that this process has not compiled yet needs more work to be worth it."""

    def kernel() -> int:
        return 1

    assert [worthwhile(kernel, work, 1000, 10) for work in (9, 999, 1000)] == [False, False, True]
    assert compiled(kernel)() == 1
    assert [worthwhile(kernel, work, 1000, 10) for work in (9, 10)] == [False, True]


def test_a_deadlock_without_a_program_names_the_operations() -> None:
    """Arrays alone have no labels."""
    program = Program()
    program.add(1.0, after=[(1, 0.0)])
    program.add(1.0, after=[(0, 0.0)])
    flat = replace(engine_compiled.flatten(program), program=None)
    with pytest.raises(InputError, match=r"2 operations never start \(first: op 0, op 1\)"):
        engine_compiled.run_flat(flat)


# What holds for every program


@settings(max_examples=200, deadline=None)
@given(programs())
def test_times_follow_the_contract(program: Program) -> None:
    """end = start + duration; what needs no resource starts when it is ready, the rest not before."""
    starts, ends = engine_compiled.run(program)
    for operation, start, end, ready in zip(
        program.operations, starts, ends, ready_times(program, ends), strict=True
    ):
        assert end == start + operation.duration
        assert start >= ready if operation.resources else start == ready


@settings(max_examples=200, deadline=None)
@given(programs())
def test_resources_are_used_by_one_at_a_time_in_order_of_ready_and_id(program: Program) -> None:
    """On each resource nothing overlaps, and who is ready first starts first.

    At equal ready times the lower id does, unless it became ready by a grant of that same moment.
    """
    starts, ends = engine_compiled.run(program)
    ready = ready_times(program, ends)
    instant = any(op.resources and starts[op.id] == ends[op.id] for op in program.operations)
    for resource in program.resources.values():
        users = [op.id for op in program.operations if resource in op.resources]
        users.sort(key=lambda op: (starts[op], ends[op]))
        for first, second in pairwise(users):
            assert ends[first] <= starts[second]
            if starts[first] < starts[second]:
                assert ready[first] <= ready[second]
                assert instant or (ready[first], first) < (ready[second], second)


@settings(max_examples=200, deadline=None)
@given(programs())
def test_streams_keep_their_order(program: Program) -> None:
    """Operations of one stream do not overlap and run in the order in which they were added."""
    starts, ends = engine_compiled.run(program)
    for stream in range(4):
        own = [op.id for op in program.operations if stream in op.streams]
        assert all(ends[first] <= starts[second] for first, second in pairwise(own))


@settings(max_examples=200, deadline=None)
@given(programs())
def test_twice_the_seconds_give_twice_the_times(program: Program) -> None:
    """Scaling by a power of two is exact, so no bit may change."""
    starts, ends = engine_compiled.run(program)
    for operation in program.operations:
        operation.duration *= 2
        operation.after = [(op, 2 * delay) for op, delay in operation.after]
    assert engine_compiled.run(program) == ([2 * t for t in starts], [2 * t for t in ends])


@settings(max_examples=200, deadline=None)
@given(programs())
def test_makespan_lies_between_critical_path_and_sum(program: Program) -> None:
    """The critical path is what remains when nothing is shared; the sum, when nothing overlaps."""
    makespan = max(engine_compiled.run(program)[1], default=0.0)
    everything = sum(op.duration + sum(delay for _, delay in op.after) for op in program.operations)
    for operation in program.operations:
        operation.resources = ()
    critical_path = max(engine_compiled.run(program)[1], default=0.0)
    assert critical_path <= makespan <= everything * (1 + 1e-12)


@settings(max_examples=200, deadline=None)
@given(programs(max_resources=0, max_operations=12).filter(lambda p: p.operations), st.data())
def test_a_longer_operation_never_ends_anything_sooner(program: Program, data: st.DataObject) -> None:
    """Without resources. (With them a longer one may help: Graham's anomalies, 1969.)"""
    before = engine_compiled.run(program)[1]
    longer = data.draw(st.sampled_from(program.operations))
    longer.duration += data.draw(st.floats(0, 10))
    after = engine_compiled.run(program)[1]
    assert all(new >= old for old, new in zip(before, after, strict=True))


# Arbitration, by hand


@both_engines
def test_head_of_the_queue_waits_for_all_its_resources(run: Callable[..., Times]) -> None:
    """Strict FIFO: op 2 could run next to op 0 on resource 1, but op 1 is ahead of it there."""
    program = Program()
    a, b = program.resource("link", 0), program.resource("link", 1)
    program.add(4.0, resources=(a,))
    program.add(1.0, resources=(a, b))
    program.add(1.0, resources=(b,))
    assert run(program) == ([0.0, 4.0, 5.0], [4.0, 5.0, 6.0])


@both_engines
def test_arbitration_waits_for_zero_length_chains(run: Callable[..., Times]) -> None:
    """Op 0 becomes ready at 1 by way of three operations that take no time, yet comes before op 1."""
    program = Program()
    core = program.resource("core", 0)
    program.add(1.0, resources=(core,))
    program.add(1.0, resources=(core,))
    tick = program.add(1.0)
    link = tick
    for _ in range(3):
        link = program.add(0.0, after=[(link, 0.0)])
    program.depend(0, link)
    program.depend(1, tick)
    starts, _ = run(program)
    assert starts[:2] == [1.0, 2.0]


@both_engines
def test_what_a_zero_length_grant_sets_off_is_queued_before_the_next_grant(run: Callable[..., Times]) -> None:
    """Op 3 takes no time and lets op 0 become ready at that same moment, ahead of op 4 by its id."""
    program = Program()
    core, other = program.resource("core", 0), program.resource("core", 1)
    program.add(1.0, resources=(core,))
    program.add(2.0, resources=(core,))
    program.add(2.0, resources=(other,))
    program.add(0.0, resources=(core,), after=[(1, 0.0)])
    program.add(1.0, resources=(core,), after=[(2, 0.0)])
    program.depend(0, 3)
    starts, _ = run(program)
    assert starts == [2.0, 0.0, 0.0, 2.0, 3.0]


@both_engines
def test_grants_of_one_decision_are_made_together(run: Callable[..., Times]) -> None:
    """Op 0 becomes ready at 0 too, but only by op 1's grant, which was made together with op 2's."""
    program = Program()
    core, other = program.resource("core", 0), program.resource("core", 1)
    program.add(1.0, resources=(other,))
    program.add(0.0, resources=(core,))
    program.add(1.0, resources=(other,))
    program.depend(0, 1)
    assert run(program) == ([1.0, 0.0, 0.0], [2.0, 0.0, 1.0])


@both_engines
def test_naming_a_stream_or_resource_twice_means_once(run: Callable[..., Times]) -> None:
    """A member that is both ends of a transfer does not wait for itself."""
    program = Program()
    core = program.resource("core", 0)
    program.add(1.0, (0, 0), resources=(core, core))
    program.add(1.0, (0, 0), resources=(core, core))
    assert run(program) == ([0.0, 1.0], [1.0, 2.0])


@both_engines
def test_empty_program_takes_no_time(run: Callable[..., Times]) -> None:
    """No operations, no times."""
    assert run(Program()) == ([], [])


# What is refused


@pytest.mark.parametrize("resources", [(), (0,)], ids=["worklist", "heap"])
@both_engines
def test_deadlock_names_the_circle(run: Callable[..., Times], resources: tuple[int, ...]) -> None:
    """Two ranks that each wait for what the other does later."""
    program = Program()
    program.resource("core", 0)
    streams = [program.stream(rank, "compute") for rank in range(2)]

    def add(rank: int, action: str) -> int:
        label = SpanLabel(rank, "compute", action, rank, 0)
        return program.add(1.0, (streams[rank],), spans=(label,), resources=resources)

    add(0, "0F0")
    receive, send = add(0, "0RECV_B0"), add(0, "0SEND_F0")
    other_receive, other_send = add(1, "1RECV_F0"), add(1, "1SEND_B0")
    program.depend(receive, other_send)
    program.depend(other_receive, send)
    with pytest.raises(InputError) as error:
        run(program)
    assert str(error.value) == (
        "deadlock: 4 of 5 operations never start (first: op 1 (rank 0 compute 0RECV_B0), "
        "op 2 (rank 0 compute 0SEND_F0), op 3 (rank 1 compute 1RECV_F0), op 4 (rank 1 compute 1SEND_B0)); "
        "these wait in a circle: op 1 (rank 0 compute 0RECV_B0) after op 4 (rank 1 compute 1SEND_B0) after "
        "op 3 (rank 1 compute 1RECV_F0) after op 2 (rank 0 compute 0SEND_F0) after "
        "op 1 (rank 0 compute 0RECV_B0)"
    )


@both_engines
def test_an_operation_after_itself_is_a_deadlock(run: Callable[..., Times]) -> None:
    """The smallest circle; what comes after it is stuck too."""
    program = Program()
    program.add(1.0, after=[(0, 0.0)])
    program.add(1.0, after=[(0, 0.0)])
    with pytest.raises(InputError, match=r"2 of 2 operations .* in a circle: op 0 after op 0"):
        run(program)


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
@both_engines
def test_seconds_that_are_none_are_refused(run: Callable[..., Times], bad: float) -> None:
    """In durations of the program, durations given, and delays."""
    program = Program()
    program.add(1.0)
    program.add(1.0, after=[(0, bad)])
    with pytest.raises(InputError, match="delay"):
        run(program)
    program.operations[1].after.clear()
    with pytest.raises(InputError, match="duration of operation 1"):
        run(program, [0.0, bad])
    program.operations[0].duration = bad
    with pytest.raises(InputError, match="duration of operation 0"):
        run(program)


@both_engines
def test_references_to_nowhere_and_wrong_counts_are_refused(run: Callable[..., Times]) -> None:
    """Each with the numbers."""
    program = Program()
    program.add(1.0, after=[(5, 0.0)])
    with pytest.raises(InputError, match=r"after 5, but ids are 0\.\.0"):
        run(program)
    program.operations[0].after.clear()
    with pytest.raises(InputError, match="2 durations for 1 operations"):
        run(program, [1.0, 2.0])
