"""Every schedule does all passes in an order that can be played, where its rules allow it to exist."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traincast.sim.engine.pipeline.pipeline import in_flight, pipeline_timeline
from traincast.sim.errors import InputError
from traincast.sim.plan.action import Kind
from traincast.sim.plan.pass_times import PassTimes
from traincast.sim.plan.schedules import generated_names, rank_stages, schedule, schedule_faults, stage_rank

sizes = st.tuples(
    st.sampled_from(generated_names()), st.integers(1, 6), st.integers(1, 3), st.integers(1, 14)
)
seconds = st.floats(0.1, 3.0)


@settings(max_examples=150, deadline=None)
@given(sizes, seconds, seconds, seconds, st.floats(0, 1))
def test_every_pass_is_made_once_on_its_rank_and_nothing_deadlocks(chosen, forward, first, second, transfer):
    name, ranks, virtual, micro_batches = chosen
    if schedule_faults(*chosen):
        with pytest.raises(InputError):
            schedule(*chosen)
        return
    times = PassTimes.alike(
        ranks * virtual,
        forward_s=forward,
        input_gradient_s=first,
        weight_gradient_s=second,
        transfer_s=transfer,
    )
    orders = schedule(*chosen, times)
    made = [
        (rank, part.stage, part.kind, part.micro_batch)
        for rank, own in enumerate(orders)
        for action in own
        for part in action.passes
    ]
    assert len(made) == len(set(made))
    for stage in range(ranks * virtual):
        rank = stage_rank(name, stage, ranks)
        for index in range(micro_batches):
            kinds = {kind for r, s, kind, i in made if (r, s, i) == (rank, stage, index)}
            assert kinds - {Kind.FORWARD} in (
                {Kind.BACKWARD},
                {Kind.INPUT_GRADIENT, Kind.WEIGHT_GRADIENT},
            )
            assert Kind.FORWARD in kinds
    timeline = pipeline_timeline(orders, times)  # raises where passes wait for each other
    work = micro_batches * virtual * (forward + first + second)
    assert timeline.busy_s == pytest.approx([work] * ranks)
    assert timeline.makespan_s >= timeline.step_time_s - 1e-9 >= work - 2e-9


@pytest.mark.parametrize("name", ["zb-1p", "zb-2p"])
@settings(max_examples=60, deadline=None)
@given(
    ranks=st.integers(1, 6),
    micro_batches=st.integers(1, 16),
    times=st.tuples(seconds, seconds, seconds, st.floats(0, 1)),
)
def test_schedules_that_arrange_themselves_keep_to_their_memory(name, ranks, micro_batches, times):
    forward, first, second, transfer = times
    orders = schedule(
        name,
        ranks,
        1,
        micro_batches,
        PassTimes.alike(
            ranks,
            forward_s=forward,
            input_gradient_s=first,
            weight_gradient_s=second,
            transfer_s=transfer,
        ),
    )
    limit = ranks * (1 if name == "zb-1p" else 2)
    assert max(in_flight(own) for own in orders) <= limit


def test_stages_of_a_rank_go_round_or_there_and_back():
    assert [stage_rank("interleaved", s, 3) for s in range(6)] == [0, 1, 2, 0, 1, 2]
    assert [stage_rank("zbv", s, 3) for s in range(6)] == [0, 1, 2, 2, 1, 0]
    assert rank_stages("loopedbfs", 1, 3, 3) == (1, 4, 7)
    assert rank_stages("dualpipev", 0, 4, 2) == (0, 7)


@pytest.mark.parametrize(
    ("sizes", "path", "expected"),
    [
        (("1f1b", 4, 2, 8), "strategy.vp", "1 with schedule 1f1b"),
        (("zb-2p", 4, 3, 8), "strategy.vp", "1 with schedule zb-2p"),
        (("zbv", 4, 1, 8), "strategy.vp", "2 with schedule zbv"),
        (("dualpipev", 4, 2, 7), "job.global_batch", "at least 8"),
        (("interleaved", 4, 2, 9), "job.global_batch", "a multiple of 2"),
    ],
)
def test_a_broken_rule_says_what_was_expected(sizes, path, expected):
    (fault,) = schedule_faults(*sizes)
    assert fault.path == path
    assert expected in fault.expected


def test_unknown_names_and_sizes_are_refused():
    with pytest.raises(InputError, match="'1f2b' is unknown"):
        schedule("1f2b", 2, 1, 2)
    with pytest.raises(InputError, match="at least 1"):
        schedule("1f1b", 2, 1, 0)


def test_large_schedules_have_all_their_passes():
    orders = schedule("1f1b", 64, 1, 512)
    assert sum(map(len, orders)) == 64 * 512 * 2
    assert schedule("1f1b", 64, 1, 512) is orders
