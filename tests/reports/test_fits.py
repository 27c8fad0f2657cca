"""Fitted curves over their measurements: read as the simulator reads them, residuals signed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from result_directory import cluster, plan, write_directory

from traincast.reports.fits import fit_figure, kernel_fits, layer_fits, memory_fits, transport_fits
from traincast.reports.measurements_file import Series, read_measurements
from traincast.reports.report import write_report
from traincast.sim.errors import InputError
from traincast.sim.hardware.cluster import LayerProfile


def series(what: str, seconds: list[float], **parameters: Any) -> Series:
    return Series(what=what, parameters=parameters, seconds=seconds)


SERIES = [
    series("all_reduce", [1.1e-4, 0.9e-4, 1.0e-4], ranks=2, bytes=1024),
    series("all_reduce", [2e-3], ranks=2, bytes=1048576),
    series("all_reduce", [9.0], ranks=4, bytes=1024),
    series("gemm", [1e-4], m=100, n=100, k=100, precision="fp32"),
    series("gemm", [1.0], m="x", n=1, k=1, precision="fp32"),
    series("memory", [1e-4], bytes=500_000),
    series("forward", [0.012], kind="block", micro_batch=2),
]


def test_measured_points_are_medians_of_the_same_thing() -> None:
    """Other numbers of ranks are other things."""
    (fit,) = transport_fits(cluster(), SERIES)
    assert fit.points == ((1024.0, 1e-4), (1048576.0, 2e-3))
    assert fit.residuals == ((1024.0, pytest.approx(0.0)), (1048576.0, pytest.approx(-50.0)))
    assert fit.median_pct == pytest.approx(25.0)


def test_kernels_are_fractions_of_peak_and_nonsense_is_left_out() -> None:
    """2mnk FLOPs in 0.1 ms at 100 GFLOP/s peak is a fifth."""
    (fit,) = kernel_fits(cluster(), SERIES)
    assert fit.points == ((2e6, pytest.approx(0.2)),)


def test_memory_and_layers() -> None:
    """Bytes over seconds over bandwidth; seconds by micro-batch for both directions."""
    profile = LayerProfile(
        kind="block",
        hidden=1,
        heads=1,
        kv_heads=1,
        ffn=1,
        vocab=1,
        activation="gelu",
        norm="layernorm",
        seq_len=1,
        micro_batch=2,
        precision="fp32",
        forward_s=0.009,
        backward_s=0.02,
    )
    accelerator = replace(
        cluster().accelerator, memory_efficiency=((1e3, 0.4), (1e6, 0.4)), layer_profiles=(profile,)
    )
    machine = replace(cluster(), accelerator=accelerator)
    (memory,) = memory_fits(machine, SERIES)
    assert memory.points == ((5e5, pytest.approx(0.5)),)
    assert memory.median_pct == pytest.approx(20.0)
    forward, backward = layer_fits(machine, SERIES)
    assert (forward.name, forward.median_pct) == ("block forward", pytest.approx(25.0))
    assert (backward.name, backward.points, backward.median_pct) == ("block backward", (), None)


def test_plotly_takes_figures_with_and_without_measurements() -> None:
    """Residuals stand beneath only where something was measured."""
    plotly = pytest.importorskip("plotly.graph_objects")
    with_points = fit_figure(transport_fits(cluster(), SERIES), "bytes", "seconds", log_y=True)
    without = fit_figure(transport_fits(cluster(), []), "bytes", "seconds", log_y=True)
    assert len(plotly.Figure(with_points).data) == 3
    assert len(plotly.Figure(without).data) == 1
    assert "yaxis2" in with_points["layout"]
    assert "yaxis2" not in without["layout"]


def document(**fields: Any) -> dict[str, Any]:
    found = [one.model_dump() for one in SERIES]
    return {"schema": "traincast.measurements/1", "machine": {}, "rounds": 1, "series": found} | fields


def test_the_report_shows_measurements_beside_the_fits(tmp_path: Path) -> None:
    """Samples are counted, and the table carries the median residual."""
    directory = write_directory(tmp_path, [plan(1, "a", 1.0)], measurements="measurements.json")
    (directory / "measurements.json").write_text(json.dumps(document()))
    write_report(directory, directory / "report.html")
    text = (directory / "report.html").read_text()
    assert "9 samples of 7 things" in text
    assert '<td class="n">25.0 %</td>' in text


@pytest.mark.parametrize(
    "content",
    [
        "[",
        "[]",
        json.dumps(document(schema="other/1")),
        json.dumps(document(series=[{"what": "gemm", "seconds": []}])),
        json.dumps(document(series=[{"what": "gemm", "seconds": [-1]}])),
        '{"schema": "traincast.measurements/1", "series": [{"what": "gemm", "seconds": [NaN]}]}',
    ],
)
def test_broken_measurements_are_refused(content: str, tmp_path: Path) -> None:
    """With the file's name."""
    (tmp_path / "m.json").write_text(content)
    with pytest.raises(InputError, match=r"m\.json"):
        read_measurements(tmp_path / "m.json")
