"""Pipelines with seconds have the bubbles of the published formulae, and the memory of the tables."""

from __future__ import annotations

import pytest

from traincast.sim.engine.pipeline.pipeline import (
    bubble_rate,
    in_flight,
    pipeline_program,
    pipeline_timeline,
)
from traincast.sim.errors import InputError
from traincast.sim.plan.action import parse_actions
from traincast.sim.plan.pass_times import PassTimes
from traincast.sim.plan.schedules import schedule

TIMES = [(1.0, 1.0, 1.0), (2.0, 2.0, 2.0), (1.0, 1.25, 0.75), (3.0, 3.5, 2.5)]
"""Seconds of forward and of the two halves of backward."""
SIZES = [(2, 8), (4, 12), (8, 24)]
cases = pytest.mark.parametrize(("ranks", "micro_batches"), SIZES)
seconds = pytest.mark.parametrize("passes", TIMES)


def bubble_s(name: str, ranks: int, micro_batches: int, passes, virtual: int = 1) -> float:
    """Idle seconds of a step, with the seconds of the passes of one stage."""
    forward, first, second = passes
    times = PassTimes.alike(
        ranks * virtual, forward_s=forward, input_gradient_s=first, weight_gradient_s=second
    )
    timeline = pipeline_timeline(schedule(name, ranks, virtual, micro_batches, times), times)
    return timeline.step_time_s - micro_batches * virtual * (forward + first + second)


@cases
@seconds
@pytest.mark.parametrize("name", ["gpipe", "1f1b"])
def test_bubble_of_gpipe_and_1f1b(name, ranks, micro_batches, passes):
    """(p - 1)(F + B): Narayanan et al. 2021, section 2.2.1; deepseek-ai/DualPipe's table."""
    assert bubble_s(name, ranks, micro_batches, passes) == pytest.approx((ranks - 1) * sum(passes))


@cases
@seconds
@pytest.mark.parametrize("virtual", [2, 3])
@pytest.mark.parametrize("name", ["interleaved", "loopedbfs"])
def test_chunks_divide_the_bubble(name, ranks, micro_batches, passes, virtual):
    """(p - 1)(F + B) of one chunk: Narayanan et al. 2021, section 2.2.2; Lamy-Poirier 2023, section 4."""
    found = bubble_s(name, ranks, micro_batches, passes, virtual)
    assert found == pytest.approx((ranks - 1) * sum(passes))


@cases
@seconds
def test_bubbles_of_the_handcrafted_zero_bubble_schedules(ranks, micro_batches, passes):
    """(p - 1)(F + B - W) and (p - 1)(F + B - 2W): Qi et al. 2024, table 2 (its B is the first half).

    deepseek-ai/DualPipe's table writes the former (PP - 1)(F + B - 2W), where B is the whole backward.
    """
    forward, first, second = passes
    hops = ranks - 1
    assert bubble_s("zb-h1", ranks, micro_batches, passes) == pytest.approx(hops * (forward + first - second))
    assert bubble_s("zb-1p", ranks, micro_batches, passes) <= hops * (forward + first - second) + 1e-9
    assert bubble_s("zb-h2", ranks, micro_batches, passes) == pytest.approx(
        hops * (forward + first - 2 * second)
    )


@cases
def test_nothing_is_idle_where_all_passes_take_the_same(ranks, micro_batches):
    """sail-sg/zero-bubble-pipeline-parallelism's table: 1F1B's bubble B, ZB1P's B/3, ZB2P and ZBV none."""
    alike = (1.0, 1.0, 1.0)
    whole = bubble_s("1f1b", ranks, micro_batches, alike)
    assert bubble_s("zb-1p", ranks, micro_batches, alike) == pytest.approx(whole / 3)
    assert bubble_s("zb-2p", ranks, micro_batches, alike) == pytest.approx(0, abs=1e-9)
    assert bubble_s("zbv", ranks, micro_batches, alike, 2) == pytest.approx(0, abs=1e-9)


@cases
def test_bubble_rate_of_1f1b(ranks, micro_batches):
    """(p - 1)/(m + p - 1)."""
    orders = schedule("1f1b", ranks, 1, micro_batches)
    expected = (ranks - 1) / (micro_batches + ranks - 1)
    assert bubble_rate(orders, PassTimes.alike(ranks)) == pytest.approx(expected)


@pytest.mark.parametrize(("ranks", "micro_batches"), [(2, 8), (4, 12), (8, 24), (8, 64)])
@pytest.mark.parametrize("passes", [(1.0, 1.0, 1.0), (2.0, 2.0, 2.0), (1.0, 1.0, 0.75), (3.0, 3.0, 2.0)])
def test_bubble_of_dualpipev(ranks, micro_batches, passes):
    """(PP/2 - 1)(F&B + B - 3W) with PP stages on PP/2 devices: deepseek-ai/DualPipe's table.

    A forward and a backward side by side are taken to last as long as both. The formula holds where a
    forward takes as long as the first half of backward and the second half no longer; else it is a guide.
    """
    forward, first, second = passes
    expected = (ranks - 1) * (forward + 2 * (first + second) - 3 * second)
    assert bubble_s("dualpipev", ranks, micro_batches, passes, 2) == pytest.approx(expected)


@cases
def test_micro_batches_in_flight(ranks, micro_batches):
    """1F1B and ZB1P PP, DualPipeV PP + 1 of its half stages, ZB-H2 2PP - 1, ZB2P 2x, ZBV 1x."""

    def most(name, virtual=1):
        return max(in_flight(own) for own in schedule(name, ranks, virtual, micro_batches))

    assert [in_flight(own) for own in schedule("1f1b", ranks, 1, micro_batches)] == list(range(ranks, 0, -1))
    assert most("gpipe") == micro_batches
    assert most("zb-h1") == most("zb-1p") == ranks
    assert most("zb-h2") == 2 * ranks - 1
    assert most("zb-2p") <= 2 * ranks
    assert most("zbv", 2) == 2 * ranks
    assert most("dualpipev", 2) == 2 * ranks + 1


def test_messages_take_their_time_on_a_stream_of_their_own():
    """Two ranks, two micro-batches: the whole timeline by hand."""
    times = PassTimes.alike(2, transfer_s=0.5)
    timeline = pipeline_timeline(schedule("1f1b", 2, 1, 2), times)
    assert timeline.starts == ((0.0, 1.0, 5.0, 8.0), (1.5, 2.5, 4.5, 5.5))
    assert timeline.ends == ((1.0, 2.0, 7.0, 10.0), (2.5, 4.5, 5.5, 7.5))
    assert timeline.makespan_s == timeline.step_time_s == 10.0
    program = pipeline_program(schedule("1f1b", 2, 1, 2), times)
    assert sorted(program.streams) == [(0, "SEND_F 1"), (0, "compute"), (1, "SEND_B 0"), (1, "compute")]


def test_stages_of_one_rank_send_nothing():
    program = pipeline_program(schedule("zbv", 1, 2, 3), PassTimes.alike(2, transfer_s=9.0))
    assert len(program.operations) == 3 * 6
    assert list(program.streams) == [(0, "compute")]


def test_an_overlap_lasts_as_long_as_its_passes():
    times = PassTimes.alike(2, forward_s=2.0)
    orders = (parse_actions("0F0 1F0 0F1 (1F1;1B0)OVERLAP_F_B (0F2;0B0)OVERLAP_F_B 1F2 1B1 0B1 1B2 0B2"),)
    timeline = pipeline_timeline(orders, times)
    assert timeline.ends[0][3] - timeline.starts[0][3] == 4.0
    assert [part for part, _, _ in timeline.passes(0)][3:5] == list(orders[0][3].parts)
    assert timeline.bubble_rate == 0


@pytest.mark.parametrize(
    ("orders", "stages", "said"),
    [
        (("0F0 0B0",), 2, "seconds of 2 stages"),
        (("0F0 0B0", "1F1 1B1"), 2, "waits for a pass that no rank does"),
        (("0F0 0B0", ""), 1, "without passes"),
        (("0F0 0SEND_F0 0B0",), 1, "no pass"),
        (("0B0 0F0",), 1, "wait"),
    ],
)
def test_orders_that_cannot_be_played_are_refused(orders, stages, said):
    with pytest.raises(InputError, match=said):
        pipeline_timeline([parse_actions(own) for own in orders], PassTimes.alike(stages))
