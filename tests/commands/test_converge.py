"""The simulated loss-time curves order the protocols as real runs do, and predict their staleness."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from traincast.sim.api.converge import factors_of, protocols_of
from traincast.sim.convergence.digits import read_digits
from traincast.sim.convergence.forecast import Timing, forecast, order_agrees
from traincast.sim.convergence.virtual_training import Curve
from traincast.sim.errors import UsageError

pytest.importorskip("sklearn")


def converge(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "traincast", "converge", *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


TRIES = 3
"""Other programs on a shared machine can spoil a run of some seconds."""


@pytest.mark.slow
def test_predicted_curves_order_the_protocols_as_the_runs_do(tmp_path):
    """Four workers, one slowed threefold: dropping its gradients or applying them late beats waiting for it,
    and staleness is as predicted."""
    png = tmp_path / "curves.png"
    arguments = ["--slow", "1=3.0", "--protocols", "sync,async,stale:2,backup:1", "--target-loss", "0.9"]
    for left in reversed(range(TRIES)):
        out = json.loads(converge(*arguments, "--seconds", "2.5", "--run", "--json", "--png", str(png)))
        rows = {row["protocol"]: row for row in out["protocols"]}
        at = {
            side: {name: row[side]["time_to_target_s"] for name, row in rows.items()}
            for side in ("predicted", "measured")
        }
        stale = {
            side: {name: row[side]["mean_staleness"] for name, row in rows.items()}
            for side in ("predicted", "measured")
        }
        agrees = order_agrees(at["predicted"], at["measured"], clear=0.5)
        if agrees and stale["predicted"] == pytest.approx(stale["measured"], rel=0.10):
            break
        assert left, (at, stale)
    predicted = at["predicted"]
    assert max(predicted["backup:1"], predicted["async"]) * 1.5 < min(predicted["sync"], predicted["stale:2"])
    assert stale["measured"]["async"] == pytest.approx(3.0, rel=0.05)
    assert stale["measured"]["sync"] == 0.0
    assert png.read_bytes()[:4] == b"\x89PNG"


def test_a_forecast_needs_no_run_and_repeats():
    arguments = ["--slow", "1=3.0", "--protocols", "sync,local:4", "--seconds", "1", "--json"]
    first, second = converge(*arguments), converge(*arguments)
    assert first == second
    rows = json.loads(first)["protocols"]
    assert [row["protocol"] for row in rows] == ["sync", "local:4"]
    assert all(row["measured"] is None for row in rows)
    assert all(row["predicted"]["final_loss"] < 2.0 for row in rows)


def test_the_table_says_what_was_not_reached():
    """A target that nobody comes to is a dash."""
    out = converge("--protocols", "sync", "--seconds", "0.3", "--target-loss", "0.001")
    assert out.splitlines()[1].split() == ["sync", "–", "0.00"]


@pytest.mark.parametrize("text", ["", "gossip", "stale", "backup:4", "local:0"])
def test_protocols_that_are_none_are_refused(text):
    with pytest.raises(UsageError):
        protocols_of(text, 4)


@pytest.mark.parametrize("text", ["1", "4=2", "-1=2", "1=0", "one=3", "1=nan"])
def test_slow_workers_that_are_none_are_refused(text):
    with pytest.raises(UsageError):
        factors_of((text,), 4)


def test_a_slow_worker_sets_the_pace_of_those_who_wait():
    """A round of a bounded-stale run is as long as the slow worker's; drawn times keep their seed."""
    digits = read_digits(hidden=4)
    timing = Timing(compute_s=[[0.01, 0.011], [0.03, 0.031]])
    curves = {
        name: forecast(digits, name, timing, horizon_s=1.0, rate=0.1, seed=4)
        for name in ("sync", "stale:1", "async")
    }
    assert curves["sync"] == forecast(digits, "sync", timing, horizon_s=1.0, rate=0.1, seed=4)
    assert len(curves["sync"].times_s) == pytest.approx(1.0 / 0.031, rel=0.05)
    assert len(curves["stale:1"].staleness) == pytest.approx(2 / 0.031, rel=0.1)
    assert len(curves["async"].staleness) == pytest.approx(1 / 0.0105 + 1 / 0.0305, rel=0.1)
    assert isinstance(curves["async"], Curve)


def test_order_agrees_only_on_what_clearly_differs():
    assert order_agrees({"a": 1.0, "b": 1.05, "c": 2.0}, {"a": 1.2, "b": 1.1, "c": 3.0})
    assert not order_agrees({"a": 1.0, "b": 2.0}, {"a": 2.0, "b": 1.0})
    assert order_agrees({"a": 1.0, "b": 1.4}, {"a": 2.0, "b": 1.0}, clear=0.5)
    assert order_agrees({"a": 1.0, "b": None}, {"a": 2.0, "b": None})
    assert not order_agrees({"a": 1.0, "b": None}, {"a": None, "b": 3.0})
