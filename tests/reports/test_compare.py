"""Comparison of two traces: phases, ranks, actions, signed errors, tolerances."""

from __future__ import annotations

import io
import json

import pytest

from traincast.reports.compare import (
    Comparison,
    Row,
    check_tolerance,
    compare,
    phase_seconds,
    print_comparison,
)
from traincast.sim.errors import InputError, ToleranceError, UsageError
from traincast.sim.trace.trace import Span, Trace


def trace(source: str, forward: float, steps: int = 1, jitter: float = 0.0, **fields: object) -> Trace:
    """Two ranks; rank 1 receives, computes half as long, reduces behind compute, steps."""
    spans = []
    for step in range(steps):
        extra = jitter * (step == steps - 1)
        rows = [
            (0, "compute", "0F0", 0.0, forward + extra),
            (0, "pp", "0SEND_F0", forward + extra, forward + extra + 0.5),
            (1, "pp", "1RECV_F0", forward + extra, forward + extra + 0.5),
            (1, "compute", "1B0", 4.0, 5.0),
            (0, "compute", "0B0", 6.0, 8.0),
            (0, "dp", "0REDUCE_GRAD0", 7.0, 9.0),
            (0, "compute", "0STEP", 9.0, 9.5),
            (1, "compute", "1STEP", 9.0, 9.5),
        ]
        spans += [
            Span(rank, stream, action, rank, 0, start, end, step=step)
            for rank, stream, action, start, end in rows
        ]
    times = tuple(10.0 + jitter * (i == steps - 1) for i in range(steps))
    return Trace.of(spans, source=source, world_size=2, step_times_s=times, **fields)


def test_phases_are_means_over_ranks_and_medians_over_steps() -> None:
    """One slow step of five changes nothing; idle is the step less compute."""
    expected = {
        "forward": 2.0 / 2,
        "backward": 3.0 / 2,
        "send_recv": 1.0 / 2,
        "gradient_reduction": 2.0 / 2,
        "optimizer_step": 1.0 / 2,
        "idle": (10 - 4.5 + 10 - 1.5) / 2,
    }
    assert phase_seconds(trace("predicted", 2.0)) == pytest.approx(expected)
    assert phase_seconds(trace("measured", 2.0, steps=5, jitter=3.0)) == pytest.approx(expected)


def test_compute_and_idle_make_up_the_step() -> None:
    """Forward, backward, optimizer and idle add up to the step time; communication overlaps them."""
    seconds = phase_seconds(trace("predicted", 1.7))
    parts = ("forward", "backward", "optimizer_step", "idle")
    assert sum(seconds[part] for part in parts) == pytest.approx(10.0)


def test_errors_are_signed_and_by_phase_rank_and_action() -> None:
    """A forward predicted 10 % too short shows as -10 % wherever it counts."""
    result = compare(trace("predicted", 1.8), trace("measured", 2.0, steps=3))
    assert result.total == Row(name="step_time", predicted=10.0, measured=10.0)
    phases = {row.name: row.error_pct for row in result.phases}
    assert phases["forward"] == pytest.approx(-10.0)
    assert phases["backward"] == 0.0
    assert phases["idle"] == pytest.approx((14.2 / 14.0 - 1) * 100)
    assert list(phases) == [
        "forward",
        "backward",
        "send_recv",
        "gradient_reduction",
        "optimizer_step",
        "idle",
    ]
    assert [(row.name, row.predicted, row.measured) for row in result.ranks] == [
        ("0", pytest.approx(4.3), pytest.approx(4.5)),
        ("1", pytest.approx(1.5), pytest.approx(1.5)),
    ]
    actions = {row.name: row.error_pct for row in result.actions}
    assert actions["0F0"] == pytest.approx(-10.0)
    assert actions["1RECV_F0"] == pytest.approx(0.0)


def test_what_one_side_lacks_is_shown_as_zero() -> None:
    """A phase that was never measured has no error, rather than an infinite one."""
    predicted = trace("predicted", 2.0)
    measured = Trace.of(
        [span for span in predicted.spans if span.stream == "compute"],
        source="measured",
        world_size=2,
        step_times_s=(10.0,),
    )
    row = next(row for row in compare(predicted, measured).phases if row.name == "send_recv")
    assert (row.predicted, row.measured, row.error_pct) == (0.5, 0.0, None)


def test_json_carries_three_numbers_for_each_phase_and_in_total() -> None:
    """The form that `compare --json` promises."""
    result = compare(
        trace("predicted", 2.0, peak_memory_bytes={0: 9e9, 1: 9e9}),
        trace("measured", 2.0, peak_memory_bytes={0: 1e10}),
    ).to_dict()
    assert json.loads(json.dumps(result)) == result
    assert result["schema"] == "traincast.comparison/1"
    assert result["total"] == {"predicted_s": 10.0, "measured_s": 10.0, "error_pct": 0.0}
    assert result["phases"]["forward"] == {"predicted_s": 1.0, "measured_s": 1.0, "error_pct": 0.0}  # type: ignore[index]
    assert result["peak_memory"] == {
        "0": {"predicted_bytes": 9e9, "measured_bytes": 1e10, "error_pct": pytest.approx(-10)}
    }


def test_traces_of_different_plans_are_refused() -> None:
    """Different numbers of ranks, or nothing to compare."""
    other = Trace(spans=(), source="measured", world_size=4, step_times_s=(1.0,))
    with pytest.raises(InputError, match="predicted for 2 ranks, measured on 4"):
        compare(trace("predicted", 1.0), other)
    empty = Trace(spans=(), source="measured", world_size=2, step_times_s=(1.0,))
    with pytest.raises(InputError, match="no rank in common"):
        compare(trace("predicted", 1.0), empty)


def test_rounds_of_an_asynchronous_prediction_count_once() -> None:
    """Three rounds in one step give the seconds of one."""
    once = trace("predicted", 2.0)
    thrice = Trace.of(
        [
            span._replace(start=span.start + 10 * i, end=span.end + 10 * i)
            for span in once.spans
            for i in range(3)
        ],
        source="predicted",
        world_size=2,
        step_times_s=(10.0,),
    )
    assert phase_seconds(thrice) == pytest.approx(phase_seconds(once))


def test_a_folded_prediction_is_compared_over_the_ranks_it_shows() -> None:
    """Where one rank stands for all that are alike, the others' measurements are not mixed in."""
    both = trace("measured", 2.0)
    folded = Trace.of(
        [span for span in trace("predicted", 2.0).spans if span.rank == 0],
        source="predicted",
        world_size=2,
        step_times_s=(10.0,),
    )
    result = compare(folded, both)
    assert [row.name for row in result.ranks] == ["0"]
    assert {row.error_pct for row in result.phases} == {0.0}


@pytest.mark.parametrize("expression", ["forward>10.1%", "step_time > 0%", "forward>11%, backward>1%"])
def test_tolerances_kept(expression: str) -> None:
    """Errors up to the limit pass."""
    check_tolerance(compare(trace("predicted", 1.8), trace("measured", 2.0)), expression)


@pytest.mark.parametrize("forward", [1.8, 2.2])
def test_tolerances_passed_in_either_direction(forward: float) -> None:
    """Exit code 5 and the numbers, for too short and too long alike."""
    comparison = compare(trace("predicted", forward), trace("measured", 2.0))
    with pytest.raises(ToleranceError, match=r"forward: [+-]10.0 % .*tolerance 5 %") as caught:
        check_tolerance(comparison, "step_time>1%,forward>5%")
    assert caught.value.exit_code == 5


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("step_time", "write for example step_time>10%"),
        ("step_time<10%", "not a tolerance"),
        ("step_time>10", "not a tolerance"),
        ("", "not a tolerance"),
        ("speed>10%", "speed is not compared; there are step_time, forward"),
        ("push_pull>10%", "push_pull does not occur in these traces"),
    ],
)
def test_tolerances_that_cannot_be_read(expression: str, message: str) -> None:
    """A typing error must not pass as success."""
    with pytest.raises(UsageError, match=message):
        check_tolerance(compare(trace("predicted", 1.8), trace("measured", 2.0)), expression)


def test_a_phase_foretold_but_never_measured_is_past_any_tolerance() -> None:
    """Its error cannot be counted, so it cannot be within a limit."""
    predicted = trace("predicted", 2.0)
    measured = Trace.of(
        [span for span in predicted.spans if span.stream == "compute"],
        source="measured",
        world_size=2,
        step_times_s=(10.0,),
    )
    with pytest.raises(ToleranceError, match="send_recv: nothing measured"):
        check_tolerance(compare(predicted, measured), "send_recv>99%")


def test_comparison_prints_as_the_manual_shows_it() -> None:
    """Whole output, with the sign of each error."""
    comparison = Comparison(
        total=Row(name="step_time", predicted=3.21, measured=3.4),
        phases=(
            Row(name="forward", predicted=0.412, measured=0.431),
            Row(name="push_pull", predicted=0.1, measured=0.0),
        ),
        ranks=(Row(name="0", predicted=1.0, measured=1.0),),
        actions=(Row(name="0F0", predicted=0.2, measured=0.3),),
        memory=(),
    )
    file = io.StringIO()
    print_comparison(comparison, file)
    assert file.getvalue().splitlines() == [
        "phase        predicted  measured   error",
        "forward       412.0 ms  431.0 ms  -4.4 %",
        "push / pull   100.0 ms       0 s       –",
        "step time      3.210 s   3.400 s  -5.6 %",
        "",
        "compute of  predicted  measured   error",
        "rank 0        1.000 s   1.000 s  +0.0 %",
        "",
        "furthest off  predicted  measured    error",
        "0F0            200.0 ms  300.0 ms  -33.3 %",
    ]
