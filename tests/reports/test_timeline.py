"""The zoomable timeline: valid for plotly, one bar a span, predicted above measured."""

from __future__ import annotations

import pytest
from result_directory import trace

from traincast.reports.timeline import plot_text, timeline
from traincast.sim.trace.trace import Span, Trace


def test_every_span_is_one_bar_in_milliseconds() -> None:
    """Bars of all phases together are the spans, at their places."""
    predicted = trace("predicted")
    figure, _ = timeline(predicted, None)
    spans = {(span.action, span.rank): span for span in predicted.spans}
    for part in figure["data"]:
        for custom, base, length in zip(part["customdata"], part["base"], part["x"], strict=True):
            span = spans.pop((custom[0], custom[1]))
            assert base == pytest.approx(span.start * 1e3, rel=1e-5)
            assert length == pytest.approx(span.duration * 1e3, rel=1e-5)
    assert not spans


def test_predicted_lies_above_measured_on_one_axis_of_time() -> None:
    """Two panels, ranks from the top, a legend entry a phase, the step time as a line in each."""
    figure, _ = timeline(trace("predicted"), trace("measured", 1.2, steps=3))
    layout = figure["layout"]
    assert layout["yaxis"]["domain"][0] > layout["yaxis2"]["domain"][1]
    assert layout["yaxis"]["ticktext"] == layout["yaxis2"]["ticktext"] == ["rank 0", "rank 1"]
    assert layout["yaxis"]["range"][0] > layout["yaxis"]["range"][1]
    assert [line["x0"] for line in layout["shapes"]] == [100.0, 121.2]
    assert [note["text"] for note in layout["annotations"]] == [
        "<b>predicted</b> · step time 100.0 ms",
        "<b>measured</b> · step time 121.2 ms",
    ]
    named = [part["name"] for part in figure["data"] if part["showlegend"]]
    assert named == ["forward", "backward", "send / receive"]
    assert {part["yaxis"] for part in figure["data"]} == {"y", "y2"}


def test_plotly_takes_it_as_it_is() -> None:
    """Plotly's own validation finds nothing unknown."""
    plotly = pytest.importorskip("plotly.graph_objects")
    figure = plotly.Figure(timeline(trace("predicted"), trace("measured"))[0])
    assert len(figure.data) == 6


def test_names_are_escaped_for_plotly_which_reads_markup() -> None:
    """Tags and entities stay text; control characters go."""
    assert plot_text("<a href='javascript:x'>&\x1b") == "&lt;a href='javascript:x'&gt;&amp; "
    evil = Trace.of(
        [Span(0, "<s>", "<img onerror>", 0, 0, 0.0, 1.0)],
        source="predicted",
        world_size=1,
        step_times_s=(1.0,),
    )
    assert timeline(evil, None)[0]["data"][0]["customdata"][0][:3] == [
        "&lt;img onerror&gt;",
        0,
        "&lt;s&gt;",
    ]


def test_what_is_left_out_is_said_for_each_side() -> None:
    """A line a side, none where all is shown."""
    assert timeline(trace("predicted"), trace("measured"))[1] == []
    assert timeline(trace("predicted"), trace("measured", steps=3))[1] == [
        "measured: step 1 of 3, the nearest to the median"
    ]
