"""Young, Daly and simulated runs agree where they should; the published run comes out as published."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import lambertw

from traincast.sim.errors import InputError
from traincast.sim.reliability.failures import Failures
from traincast.sim.reliability.goodput import (
    Training,
    best_interval_s,
    daly_interval_s,
    expected_goodput,
    expected_wall_s,
    paces,
    study,
    time_to_train,
    young_interval_s,
)

MTBF, CHECKPOINT, RECOVERY = 20_000.0, 100.0, 300.0

BLOCKING = Failures(
    accelerator_mtbf_s=8 * MTBF,
    node_mtbf_s=0.0,
    switch_mtbf_s=0.0,
    software_mtbf_s=0.0,
    detection_s=200.0,
    restart_s=100.0,
    repair_s=0.0,
    spare_nodes=0,
    checkpoint_s=CHECKPOINT,
    checkpoint_stall_s=CHECKPOINT,
)
"""One node of 8 accelerators that fails as a whole every `MTBF` seconds."""


def training(failures: Failures = BLOCKING, **changes) -> Training:
    values = {
        "failures": failures,
        "nodes": 1,
        "accelerators_per_node": 8,
        "step_times_s": (5.0,),
        "horizon_s": 100 * MTBF,
        "samples": 1000,
        "seed": 1,
    }
    return Training(**{**values, **changes})


def exact_interval_s(checkpoint_s: float, mtbf_s: float) -> float:
    """Where the derivative of Daly's complete model is 0: M (1 + W(-exp(-1 - C / M)))."""
    return float(mtbf_s * (1 + lambertw(-math.exp(-1 - checkpoint_s / mtbf_s)).real))


@pytest.mark.parametrize("ratio", [1e-6, 1e-4, 1e-2, 0.1])
def test_daly_is_nearer_to_the_exact_optimum_than_young(ratio: float):
    """Daly's interval is within 1 % of the complete model's optimum up to C = M / 10."""
    exact = exact_interval_s(ratio * MTBF, MTBF)
    daly, young = daly_interval_s(ratio * MTBF, MTBF), young_interval_s(ratio * MTBF, MTBF)
    assert daly == pytest.approx(exact, rel=0.01)
    assert abs(daly - exact) < abs(young - exact)


def test_limits():
    """No time to save, no failures, failures all the time."""
    assert young_interval_s(0.0, MTBF) == daly_interval_s(0.0, MTBF) == 0.0
    assert young_interval_s(1.0, math.inf) == daly_interval_s(1.0, math.inf) == math.inf
    assert daly_interval_s(3 * MTBF, MTBF) == MTBF
    assert expected_wall_s(100.0, 10.0, 1.0, math.inf, 5.0) == pytest.approx(110.0)
    assert expected_wall_s(100.0, 10.0, 1.0, 1e-3, 5.0) == math.inf
    with pytest.raises(InputError, match="between failures 0"):
        young_interval_s(1.0, 0.0)


def test_golden_section_finds_the_exact_optimum():
    """On the complete model itself."""
    found = best_interval_s(
        lambda s: expected_goodput(s, CHECKPOINT, MTBF, RECOVERY), 10.0, 1e6, tolerance=1e-6
    )
    assert found == pytest.approx(exact_interval_s(CHECKPOINT, MTBF), rel=1e-4)


@pytest.mark.parametrize("interval_s", [500.0, 2000.0, 8000.0])
def test_expected_runtime_is_that_of_simulated_runs(interval_s: float):
    """Within 1 %, recoveries that fail included."""
    steps = 200_000
    runs = time_to_train(training(samples=500), steps, interval_s)
    assert runs.finished.all()
    assert (runs.steps == steps).all()
    expected = expected_wall_s(5.0 * steps, interval_s, CHECKPOINT, MTBF, RECOVERY)
    assert runs.seconds("wall").mean() == pytest.approx(expected, rel=0.01)


def test_the_simulated_optimum_is_dalys():
    """Goodput at Daly's interval is within its sampling error of the best, and so is the closed form."""
    found = study(training())
    at_daly = study(training(), found.daly_s).runs.goodput
    error = at_daly.std() / math.sqrt(len(at_daly))
    assert abs(at_daly.mean() - found.runs.goodput.mean()) < 2 * error
    assert found.simulated_s == pytest.approx(found.daly_s, rel=0.25)
    for point in found.curve:
        assert point.mean == pytest.approx(point.expected, rel=0.01)
        assert point.p5 <= point.p50 <= point.p95


def test_the_largest_published_run_trained_over_90_percent_of_its_time():
    """Llama 3 405B: 419 failures in 54 days on 16,384 accelerators, effective training time over 90 %
    (arXiv 2407.21783, section 3.3.4). Nothing is fitted: recovery and checkpoints are other papers'."""
    run = training(Failures(), nodes=2048, step_times_s=(10.0,), horizon_s=54 * 86400.0, samples=200)
    found = study(run)
    assert sum(found.failures.values()) == pytest.approx(419)
    assert abs(found.runs.failures.mean() - 419) < 5 * math.sqrt(419 / 200)
    assert 0.90 < found.quantile(0.05) < found.quantile(0.95) < 0.95
    assert found.runs.shares()["waiting"] == 0.0


def test_too_few_spares_cost_more_than_all_else():
    """The same run with four spare nodes waits for repairs most of the time."""
    run = training(
        Failures(spare_nodes=4), nodes=2048, step_times_s=(10.0,), horizon_s=20 * 86400.0, samples=50
    )
    shares = study(run).runs.shares()
    assert shares["waiting"] > sum(share for cause, share in shares.items() if cause != "waiting")


def test_writing_in_the_background_pays():
    """The same checkpoint that stalls less leaves more time, the less the better."""
    found = [
        study(training(replace(BLOCKING, checkpoint_stall_s=stall), samples=200)).runs.goodput.mean()
        for stall in (100.0, 20.0, 1.0)
    ]
    assert found == sorted(found)
    assert found[-1] - found[0] > 0.05


def test_the_same_seed_gives_the_same_runs():
    first, again, other = (study(training(samples=50, seed=seed), 2000.0) for seed in (3, 3, 4))
    assert first.runs.useful.tolist() == again.runs.useful.tolist() != other.runs.useful.tolist()
    assert first.simulated_s == again.simulated_s


def test_a_run_draws_its_pace():
    """From the quantiles of the step times: within them, and about as their mean."""
    drawn = paces(training(step_times_s=(1.0, 2.0, 3.0), samples=2000))
    assert 1.0 <= min(drawn) < 1.1
    assert 2.9 < max(drawn) <= 3.0
    assert np.mean(drawn) == pytest.approx(2.0, abs=5 * 0.6 / math.sqrt(2000))


def test_a_job_that_would_not_end_is_refused():
    with pytest.raises(InputError, match="would not end"):
        time_to_train(training(replace(BLOCKING, accelerator_mtbf_s=8 * 60.0)), 1000, 500.0)


def command(*arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "traincast", "goodput", *arguments], capture_output=True, text=True
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout or done.stderr


SMALL = ("--cluster", "hgx-h100", "--samples", "50", "--days", "10")


def test_the_command_says_what_the_study_found(tmp_path):
    """JSON, picture and time to train in one go."""
    text = command(
        *(*SMALL, "--nodes", "128", "--step-time", "10 s", "--checkpoint", "30 s", "--mtbf", "5 years"),
        *("--steps", "10000", "--png", str(tmp_path / "g.png"), "--json"),
    )
    result = json.loads(text)
    mtbf = 5 * 31_557_600 / 1024
    assert result["mtbf_s"] == pytest.approx(mtbf)
    assert result["failures_expected"]["total"] == pytest.approx(10 * 86400 / mtbf)
    assert result["interval_s"]["young"] == pytest.approx(math.sqrt(60 * mtbf))
    goodput = result["goodput"]
    assert 0.9 < goodput["p5"] <= goodput["p50"] <= goodput["p95"] < 1
    assert result["time_to_train_s"]["mean"] > 1e5
    assert (tmp_path / "g.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_takes_a_model():
    """The step time is the simulated one; a table by default."""
    text = command(
        *("llama3-8b", *SMALL, "--nodes", "1", "--tp", "8", "--global-batch", "8", "--seq-len", "2048")
    )
    assert "best interval by Daly" in text
    assert "8 accelerators of hgx-h100" in text


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "one of MODEL, PLAN and --step-time"),
        (("--step-time", "10"), 3, "without a unit"),
        (("--step-time", "10 s", "--shape", "-1"), 3, "Weibull shape is -1.0"),
        (("--step-time", "30 d"), 3, "too short"),
    ],
)
def test_bad_input_is_refused(arguments, code, message):
    assert message in command(*SMALL, *arguments, code=code)
