"""What a picture shows of a trace: a typical step, not too much of it, and what it left out."""

from __future__ import annotations

import pytest
from result_directory import trace

from traincast.reports.lanes import picture
from traincast.sim.trace.trace import Span, Trace


def test_a_small_trace_is_shown_whole() -> None:
    """Nothing is left out, so nothing is noted."""
    whole = trace("predicted")
    shown = picture(whole)
    assert shown.spans == whole.spans
    assert shown.ranks == (0, 1)
    assert shown.notes == ()


def test_the_step_nearest_to_the_median_is_typical() -> None:
    """Of steps 1.00, 1.01 … 1.04 the middle one; the note says which."""
    shown = picture(trace("measured", steps=5))
    assert {span.step for span in shown.spans} == {2}
    assert shown.notes == ("step 2 of 5, the nearest to the median",)


def test_many_ranks_are_thinned_at_even_distances() -> None:
    """First and last stay, sixteen at most."""
    shown = picture(trace("predicted", ranks=100))
    assert len(shown.ranks) == 16
    assert shown.ranks[0] == 0
    assert shown.ranks[-1] == 99
    assert {span.rank for span in shown.spans} == set(shown.ranks)
    assert shown.notes == ("16 of 100 ranks",)


def test_spans_never_exceed_the_limit() -> None:
    """The end of the step is cut, so that all stages are seen at the beginning; bars stop at the edge."""
    shown = picture(trace("predicted", ranks=4), max_spans=12)
    assert shown.ranks == (0, 1, 2, 3)
    assert len(shown.spans) <= 12
    assert shown.length_s < 0.1
    assert max(span.end for span in shown.spans) <= shown.length_s
    assert shown.notes == (f"the first {shown.length_s * 1e3:.1f} ms of 100.0 ms",)
    one = picture(trace("predicted", ranks=1), max_spans=3)
    assert [span.action for span in one.spans] == ["0F0", "0F1", "0F2"]


def test_a_given_length_cuts_both_sides_alike() -> None:
    """The measured side ends where the predicted side ends."""
    shown = picture(trace("measured"), length_s=0.05)
    assert shown.length_s == 0.05
    assert max(span.end for span in shown.spans) == 0.05


def test_given_ranks_are_shown_so_that_two_pictures_match() -> None:
    """The measured side shows what the predicted side shows."""
    assert picture(trace("measured", ranks=8), ranks=[0, 3]).ranks == (0, 3)


def test_an_asynchronous_prediction_shows_two_rounds_from_the_middle() -> None:
    """Twelve rounds in one step: two step times, counted from the left edge."""
    rounds = Trace.of(
        [Span(0, "compute", "0F0", 0, 0, 10.0 * i, 10.0 * i + 8) for i in range(12)],
        source="predicted",
        world_size=1,
        step_times_s=(10.0,),
    )
    shown = picture(rounds)
    assert [(span.start, span.end) for span in shown.spans] == [
        (0.0, pytest.approx(2.6)),
        (pytest.approx(4.6), pytest.approx(12.6)),
        (pytest.approx(14.6), 20.0),
    ]
    assert shown.length_s == 20.0
    assert shown.notes == ("2 of 12 step times, from the middle",)
