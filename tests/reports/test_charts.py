"""The report's charts: valid for plotly, with the numbers of the plans."""

from __future__ import annotations

from typing import Any

import pytest
from result_directory import MIB, plan

from traincast.reports.accuracy_charts import accuracy_figure, peaks_figure
from traincast.reports.charts import (
    breakdown_figure,
    losses_figure,
    measured_peaks,
    memory_figure,
    memory_names,
)
from traincast.reports.result_file import PlanEntry


def entry(number: int, label: str, error_pct: float | None = None, **strategy: Any) -> PlanEntry:
    values = plan(number, label, error_pct)
    values["strategy"] |= strategy
    return PlanEntry.model_validate(values)


def parts(figure: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {part.get("name", ""): part for part in figure["data"]}


def test_accuracy_shows_both_sides_and_the_signed_error() -> None:
    """Only plans that were run have a measured mark and an error; the band is ±15 %."""
    figure = accuracy_figure([entry(1, "a", -4.0), entry(2, "b"), entry(3, "c", 25.0)])
    found = parts(figure)
    assert found["predicted, p5–p95"]["x"] == pytest.approx([100.0, 110.0, 120.0])
    assert found["measured, p5–p95"]["y"] == ["#1 a", "#3 c"]
    assert found["measured, p5–p95"]["x"] == pytest.approx([100 / 0.96, 120 / 1.25], rel=1e-5)
    assert found[""]["x"] == [-4.0, 25.0]
    assert found[""]["text"] == ["-4.0 %", "+25.0 %"]
    assert figure["layout"]["xaxis2"]["range"] == [-31.25, 31.25]
    assert (figure["layout"]["shapes"][0]["x0"], figure["layout"]["shapes"][0]["x1"]) == (-15.0, 15.0)


def test_peaks_are_compared_as_times_are() -> None:
    """The fullest rank of each run, with the signed error."""
    found = parts(peaks_figure([entry(1, "a", -4.0), entry(3, "c", 25.0)]))
    assert found["predicted"]["x"] == [75.0, 75.0]
    assert found["measured"]["x"] == [80.0, 80.0]
    assert found[""]["text"] == ["-6.2 %", "-6.2 %"]


def test_ranks_of_context_parallelism_are_of_one_stage() -> None:
    """Measured peaks of dp × cp × tp ranks belong to a stage."""
    run = entry(1, "a", 1.0, pp=1, cp=2)
    assert measured_peaks(run) == {0: 80.0 * MIB}


def test_breakdown_stacks_the_phases_that_occur() -> None:
    """In the order of the palette, in milliseconds."""
    figure = breakdown_figure([("a", {"idle": 0.01, "forward": 0.03}), ("b", {"forward": 0.02})])
    assert [(part["name"], part["x"]) for part in figure["data"]] == [
        ("forward", [30.0, 20.0]),
        ("idle / bubble", [10.0, 0.0]),
    ]
    assert figure["layout"]["barmode"] == "stack"


def test_memory_adds_up_and_meets_the_capacity() -> None:
    """What no part names is other; the capacity is drawn, or named where it would squeeze the bars."""
    near = parts(memory_figure(entry(1, "a", 1.0), 256.0 * MIB))
    assert near["other"]["x"] == [5.0, 5.0]
    assert near["capacity 256.0 MiB"]["x"] == [256.0, 256.0]
    assert near["measured peak"]["x"] == [70.0, 80.0]
    far = memory_figure(entry(1, "a"), 2.0**40)
    assert not any("capacity" in part["name"] for part in far["data"])
    assert "1.0 TiB" in far["layout"]["annotations"][0]["text"]


def test_measured_peaks_are_those_of_the_fullest_rank_of_a_stage() -> None:
    """Ranks are stage by stage; servers come last; nonsense is left out."""
    values = plan(1, "a", 1.0)
    values["strategy"] = {"dp": 2, "tp": 1, "pp": 1}
    values["measured"]["peak_memory_bytes"] = {"0": 5.0, "1": 7.0, "2": 3.0, "x": 9.0, "99": 9.0}
    found = PlanEntry.model_validate(values)
    assert measured_peaks(found) == {0: 7.0, 1: 3.0}
    assert memory_names(found) == ["stage 0", "server 0"]
    assert measured_peaks(entry(1, "a", 1.0, dp="two")) == {}


def test_losses_of_every_run() -> None:
    """Against the step, told apart by colour and dash."""
    figure = losses_figure([entry(1, "a", 1.0), entry(2, "b"), entry(3, "c", 1.0)])
    assert [(part["name"], part["x"], part["y"]) for part in figure["data"]] == [
        ("#1 a", [1, 2, 3], [5.5, 5.0, 4.75]),
        ("#3 c", [1, 2, 3], [5.5, 5.0, 4.75]),
    ]
    assert len({(part["line"]["color"], part["line"]["dash"]) for part in figure["data"]}) == 2


def test_plotly_takes_them_as_they_are() -> None:
    """Plotly's own validation finds nothing unknown."""
    plotly = pytest.importorskip("plotly.graph_objects")
    run = entry(1, "a", 3.0)
    for figure in (
        accuracy_figure([run]),
        peaks_figure([run]),
        breakdown_figure([("a", {"forward": 1.0})]),
        memory_figure(run, 1e9),
        memory_figure(run, 1e15),
        losses_figure([run]),
    ):
        assert plotly.Figure(figure).data
