"""From orders of passes to times without a Program: the same bits as the engines give the Program."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traincast.sim.engine import compiled as engine_compiled
from traincast.sim.engine import reference as engine_simpy
from traincast.sim.engine.pipeline import worklist as engine_pipeline
from traincast.sim.engine.pipeline.orders import PassOrders, pass_orders, regular_orders
from traincast.sim.engine.pipeline.pipeline import pipeline_program
from traincast.sim.engine.pipeline.worklist import pipeline_flat, run_pipeline
from traincast.sim.errors import InputError
from traincast.sim.plan.action import Action, Actions, Kind, parse_actions
from traincast.sim.plan.pass_times import PassTimes
from traincast.sim.plan.schedules import schedule, stage_rank
from traincast.sim.program.program import Program

F, B, W = Kind.FORWARD, Kind.BACKWARD, Kind.WEIGHT_GRADIENT
I = Kind.INPUT_GRADIENT  # noqa: E741 — the schedules' own letter
SECONDS = st.integers(0, 3).map(float) | st.sampled_from([0.1, 1 / 3, 0.7])


def written_out(orders: list[Actions], stage_rank: list[int], times: PassTimes) -> Program:
    """Passes on compute streams in order, messages on their channels' streams in order of sending."""
    program, done, sent = Program(), {}, {}
    seconds = {F: times.forward_s, I: times.input_gradient_s, W: times.weight_gradient_s}
    for rank, actions in enumerate(orders):
        for action in actions:
            took = sum(
                times.backward_s(p.stage) if p.kind is B else seconds[p.kind][p.stage] for p in action.passes
            )
            op = program.add(took, (program.stream(rank, "compute"),))
            for part in action.passes:
                done[part] = op
                step = {F: 1, B: -1, I: -1, W: 0}[part.kind]
                target = part.stage + step
                if step and 0 <= target < len(stage_rank):
                    key = ("F" if step > 0 else "B", target, part.micro_batch)
                    sent[key] = op
                    if stage_rank[target] != rank:
                        name = f"{key[0]} to {stage_rank[target]}"
                        sent[key] = program.add(
                            times.transfer_s, (program.stream(rank, name),), after=[(op, 0.0)]
                        )
    for part, op in done.items():
        if part.kind is W:
            program.depend(op, done[Action(part.stage, I, part.micro_batch)])
        elif part.kind is not F and part.stage == len(stage_rank) - 1:
            program.depend(op, done[Action(part.stage, F, part.micro_batch)])
        else:
            key = ("F" if part.kind is F else "B", part.stage, part.micro_batch)
            if key in sent:
                program.depend(op, sent[key])
    return program


def compute_times(program: Program, ends: list[float]) -> list[float]:
    """Of the passes of overlaps once, by rank and place."""
    streams = {stream: rank for (rank, name), stream in program.streams.items() if name == "compute"}
    own = [op for op in program.operations if op.streams[0] in streams]
    return [ends[op.id] for op in sorted(own, key=lambda op: (streams[op.streams[0]], op.id))]


def one_each(orders: PassOrders, values: np.ndarray) -> list[float]:
    """Values of passes, those that overlap once."""
    return values[~orders.together].tolist()


def same_orders(one: PassOrders, other: PassOrders) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("first", "kind", "stage", "micro_batch", "together", "stage_rank")
    )


@st.composite
def drawn_orders(draw: st.DrawFn, overlaps: bool = True) -> tuple[list[Actions], list[int], PassTimes]:
    """Any order that can be done: stages on any ranks, halves or whole backwards, passes that overlap."""
    ranks, stages = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    micro_batches, halves = draw(st.integers(1, 4)), draw(st.booleans())
    stage_rank = draw(st.lists(st.integers(0, ranks - 1), min_size=stages, max_size=stages))
    backward = [I, W] if halves else [B]
    todo = {Action(s, k, m) for s in range(stages) for m in range(micro_batches) for k in [F, *backward]}
    done: set[Action] = set()
    orders: list[list[Action]] = [[] for _ in range(ranks)]

    def can(part: Action) -> bool:
        if part.kind is F:
            return part.stage == 0 or Action(part.stage - 1, F, part.micro_batch) in done
        if part.kind is W:
            return Action(part.stage, I, part.micro_batch) in done
        last = part.stage == stages - 1
        return Action(part.stage + (not last), F if last else part.kind, part.micro_batch) in done

    while todo:
        ready = sorted(filter(can, todo))
        chosen = draw(st.sampled_from(ready))
        others = [p for p in ready if p != chosen and stage_rank[p.stage] == stage_rank[chosen.stage]]
        action = chosen
        if overlaps and others and draw(st.integers(0, 3)) == 0:
            action = Action.overlap(chosen, draw(st.sampled_from(others)))
        orders[stage_rank[chosen.stage]].append(action)
        done |= set(action.passes)
        todo -= set(action.passes)
    per_stage = [tuple(draw(SECONDS) for _ in range(stages)) for _ in range(3)]
    times = PassTimes(
        forward_s=per_stage[0],
        input_gradient_s=per_stage[1],
        weight_gradient_s=per_stage[2],
        transfer_s=draw(SECONDS),
    )
    return [tuple(actions) for actions in orders], stage_rank, times


@settings(max_examples=200, deadline=None)
@given(drawn_orders())
def test_any_order_ends_as_its_program_does(drawn: tuple[list[Actions], list[int], PassTimes]) -> None:
    """Starts and ends of all passes equal those of the reference engine, to the bit."""
    orders, stage_rank, times = drawn
    arrays = pass_orders(orders, stage_rank)
    found = run_pipeline(arrays, times, compiled=False)
    program = written_out(orders, stage_rank, times)
    starts, ends = engine_simpy.run(program)
    assert one_each(arrays, found.starts) == compute_times(program, starts)
    assert one_each(arrays, found.ends) == compute_times(program, ends)
    assert found.makespan == max(compute_times(program, ends))


@pytest.mark.parametrize(
    ("name", "virtual_stages"),
    [
        ("1f1b", 1),
        ("interleaved", 2),
        ("loopedbfs", 3),
        ("zb-h1", 1),
        ("zb-2p", 1),
        ("zbv", 2),
        ("dualpipev", 2),
    ],
)
def test_schedules_end_as_the_pipeline_program_does(name: str, virtual_stages: int) -> None:
    """Loops and V shapes, halves and overlaps, with uneven stages: the other way to the same times."""
    orders, stages = schedule(name, 4, virtual_stages, 8), 4 * virtual_stages
    times = PassTimes(
        forward_s=tuple(1.0 + 0.1 * stage for stage in range(stages)),
        input_gradient_s=tuple(1.1 - 0.05 * stage for stage in range(stages)),
        weight_gradient_s=(0.9,) * stages,
        transfer_s=0.3,
    )
    arrays = pass_orders(orders, [stage_rank(name, stage, 4) for stage in range(stages)])
    _, ends = engine_simpy.run(pipeline_program(orders, times))
    assert one_each(arrays, run_pipeline(arrays, times).ends) == ends[: sum(map(len, orders))]


@settings(max_examples=100, deadline=None)
@given(drawn_orders())
def test_numba_runs_orders_to_the_same_bits(drawn: tuple[list[Actions], list[int], PassTimes]) -> None:
    """The kernel is one source."""
    orders, stage_rank, times = drawn
    arrays = pass_orders(orders, stage_rank)
    interpreted, numba = (run_pipeline(arrays, times, compiled=flag) for flag in (False, True))
    assert numba.starts.tolist() == interpreted.starts.tolist()
    assert numba.ends.tolist() == interpreted.ends.tolist()


@settings(max_examples=100, deadline=None)
@given(drawn_orders(overlaps=False))
def test_passes_written_out_as_arrays_are_the_same(
    drawn: tuple[list[Actions], list[int], PassTimes],
) -> None:
    """`pipeline_flat` under the general engine gives what the worklist over ranks does."""
    orders, stage_rank, times = drawn
    arrays = pass_orders(orders, stage_rank)
    starts, ends = engine_compiled.run_flat(pipeline_flat(arrays, times))
    found = run_pipeline(arrays, times)
    assert starts[: arrays.passes] == found.starts.tolist()
    assert ends[: arrays.passes] == found.ends.tolist()


def test_messages_that_share_a_card_leave_one_by_one() -> None:
    """Both ranks of one card send at 1: the forward of rank 0 first, having the lower id."""
    orders = pass_orders(
        [parse_actions("0F0 0F1"), parse_actions("1F0 1F1"), parse_actions("2F0 2F1")], [0, 1, 2]
    )
    times = PassTimes.alike(3, transfer_s=3.0)
    apart = engine_compiled.run_flat(pipeline_flat(orders, times))[1][:6]
    shared = engine_compiled.run_flat(pipeline_flat(orders, times, np.array([0, 0, 0])))[1][:6]
    assert apart == [1.0, 2.0, 5.0, 8.0, 9.0, 12.0]
    assert shared == [1.0, 2.0, 5.0, 8.0, 11.0, 14.0]


@pytest.mark.parametrize("micro_batches", [1, 4, 7, 12])
@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("name", ["gpipe", "1f1b"])
def test_regular_orders_are_the_schedules(name: str, ranks: int, micro_batches: int) -> None:
    """Arrays made at once equal those of the Actions."""
    arrays = regular_orders(name, ranks, 1, micro_batches)
    assert same_orders(arrays, pass_orders(schedule(name, ranks, 1, micro_batches), range(ranks)))


@pytest.mark.parametrize("sizes", [(2, 2, 2), (2, 3, 4), (4, 2, 8), (4, 3, 12), (8, 2, 16), (4, 2, 4)])
def test_interleaved_orders_are_the_schedule(sizes: tuple[int, int, int]) -> None:
    """As those; ranks, virtual stages, micro-batches."""
    ranks, virtual_stages, _ = sizes
    actions = schedule("interleaved", *sizes)
    stage_ranks = [stage % ranks for stage in range(ranks * virtual_stages)]
    assert same_orders(regular_orders("interleaved", *sizes), pass_orders(actions, stage_ranks))


@pytest.mark.parametrize("micro_batches", [1, 3, 8])
@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("name", ["gpipe", "1f1b"])
def test_bubble_of_the_regular_orders(name: str, ranks: int, micro_batches: int) -> None:
    """(p - 1) / m of the ideal time (Narayanan et al. 2021, section 2.2.1), without transfers."""
    orders = regular_orders(name, ranks, 1, micro_batches)
    times = PassTimes.alike(ranks, forward_s=1.0, input_gradient_s=1.0, weight_gradient_s=1.0)
    assert run_pipeline(orders, times).makespan == 3.0 * (micro_batches + ranks - 1)


def test_what_cannot_be_run_is_refused() -> None:
    """Circles, foreign actions, wrong numbers of stages."""
    circle = pass_orders([parse_actions("0B0 0F0")], [0])
    with pytest.raises(InputError, match="deadlock: 2 of 2 passes"):
        run_pipeline(circle, PassTimes.alike(1))
    with pytest.raises(InputError, match="times of 2 stages are given; the schedule has 1"):
        run_pipeline(circle, PassTimes.alike(2))
    with pytest.raises(InputError, match="rank 0: 0SEND_F0 is no pass"):
        pass_orders([parse_actions("0SEND_F0")], [0])
    with pytest.raises(InputError, match="rank 0: 1F0 is of a stage that this rank does not hold"):
        pass_orders([parse_actions("1F0")], [0, 1])
    with pytest.raises(InputError, match="twice"):
        pass_orders([parse_actions("0F0 0F0")], [0])
    together = pass_orders([(Action.overlap(Action(0, F, 0), Action(0, F, 1)),)], [0])
    with pytest.raises(InputError, match="overlap"):
        pipeline_flat(together, PassTimes.alike(1))
    with pytest.raises(InputError, match="'zbv' are not made as arrays"):
        regular_orders("zbv", 2, 2, 4)


def test_few_passes_are_run_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of passes decides."""
    monkeypatch.delattr(engine_pipeline, "compile_kernel")
    monkeypatch.setattr(engine_pipeline, "LOADED_FROM", 100)
    assert run_pipeline(regular_orders("1f1b", 2, 1, 2), PassTimes.alike(2)).makespan == 9.0
