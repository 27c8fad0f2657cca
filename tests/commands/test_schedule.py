"""`traincast schedule`: the table, the drawing, the files, and what it refuses."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from traincast.__main__ import cli
from traincast.sim.plan.schedule_csv import read_schedule_csv
from traincast.sim.plan.schedules import generated_names, schedule


def run(*arguments: object):
    return CliRunner().invoke(cli, ["schedule", *map(str, arguments)])


def test_all_lays_every_schedule_side_by_side():
    done = run("all", "--ranks", 4, "--micro-batches", 8, "--json")
    rows = json.loads(done.stdout)["schedules"]
    assert [row["name"] for row in rows] == list(generated_names())
    steps = {row["name"]: row["step_time_s"] for row in rows}
    assert steps["1f1b"] == pytest.approx((8 + 3) * 3e-3)
    assert steps["zb-h1"] == pytest.approx((8 * 3 + 3) * 1e-3)
    assert steps["zb-2p"] == pytest.approx(8 * 3e-3)
    assert {row["name"]: row["in_flight"][0] for row in rows}["interleaved"] == 5.5


def test_times_have_units():
    arguments = ("1f1b", "--ranks", 2, "--micro-batches", 2, "--json")
    done = run(*arguments, "--forward", "2ms", "--transfer", "500us")
    assert json.loads(done.stdout)["schedules"][0]["step_time_s"] == pytest.approx(13e-3)
    assert "time" in run(*arguments, "--forward", "2").stderr


def test_memory_that_the_first_half_frees_makes_zb_2p_better():
    """Table 5's first row of Qi et al. 2024 has a bubble of 4.3 %."""
    times = ("--forward", "18.522ms", "--input-gradient", "18.086ms", "--weight-gradient", "9.337ms")
    arguments = ("zb-2p", "--ranks", 8, "--micro-batches", 24, *times, "--transfer", "0.601ms", "--json")
    keeping, freeing = (
        json.loads(run(*arguments, "--kept-share", share).stdout)["schedules"][0]["bubble_rate"]
        for share in (1, 32 / (34 + 5 * 24 * 1024 / 2304))
    )
    assert freeing == pytest.approx(0.0433, abs=1e-4)
    assert keeping > freeing


def test_a_small_schedule_is_drawn():
    lines = run("1f1b", "--ranks", 2, "--micro-batches", 2).stdout.splitlines()
    assert lines[-2:] == ["rank  0 F0F1····B0--··B1--", "rank  1 ··F0B0--F1B1--····"]


def test_csv_and_png_are_written(tmp_path):
    csv_file, png_file = tmp_path / "order.csv", tmp_path / "order.png"
    done = run("zbv", "--ranks", 3, "--micro-batches", 6, "--csv", csv_file, "--png", png_file)
    assert done.exit_code == 0
    assert read_schedule_csv(csv_file) == schedule("zbv", 3, 2, 6)
    assert png_file.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    "arguments",
    [
        ("zbv", "--ranks", 2, "--micro-batches", 2, "--virtual-stages", 3),
        ("dualpipev", "--ranks", 4, "--micro-batches", 4),
        ("all", "--ranks", 2, "--micro-batches", 2, "--csv", "x.csv"),
        ("1f1b", "--ranks", 4096, "--micro-batches", 65536),
        ("1f1b", "--ranks", 2, "--micro-batches", 2, "--forward", "0s", "--input-gradient", "0s",
         "--weight-gradient", "0s"),
        ("1f1b", "--ranks", 2, "--micro-batches", 2, "--forward", "-1s"),
        ("nonsense", "--ranks", 2, "--micro-batches", 2),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(arguments):
    assert run(*arguments).exit_code != 0
