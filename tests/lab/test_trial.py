"""What turns of calibration and runs say: errors and regret, for the machine as each run met it."""

from __future__ import annotations

import pytest

from traincast.lab.trial import Tried, Turns, quantile
from traincast.sim.plan.job import Job
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.strategy import Strategy
from traincast.sim.trace.trace import Trace

CALIBRATED_S = 0.04
"""Of the speed probe."""


@pytest.fixture
def job(tiny_model):
    return Job(model=tiny_model, global_batch=8, seq_len=16, precision="fp32")


def tried(job: Job, strategy: Strategy, predicted_s: float, measured_s: float, speed: float = 1.0) -> Tried:
    """A plan that ran while the processor was ``speed`` times as fast as when it was calibrated."""
    common = {"world_size": strategy.world_size, "peak_memory_bytes": {0: 1e8}}
    known = {"probe_s": CALIBRATED_S, "core_seconds": 0.0, "deterministic_step_time_s": predicted_s}
    met = {"cores": 2.0, "own": 1.0, "others": 0.0, "probe_s": CALIBRATED_S / speed}
    return Tried(
        plan=make_plan(job, strategy),
        predicted=Trace.of([], source="predicted", step_times_s=(predicted_s,), metadata=known, **common),
        measured=Trace.of(
            [], source="measured", step_times_s=(measured_s,), metadata={"load": met}, **common
        ),
    )


def test_a_prediction_is_for_the_speed_that_the_run_met(job):
    """A second predicted is two at half the speed; untold it is half of what was measured."""
    one = tried(job, Strategy(dp=2), 1.0, 2.0, speed=0.5)
    assert one.expected.step_time_s == 2.0
    assert (one.error_pct, one.untold_error_pct) == (0.0, -50.0)
    assert one.told_s == 1.0
    assert one.memory_error_pct == 0.0


def test_regret_is_at_one_speed_of_the_machine_and_among_synchronous_plans(job, host_cluster):
    """The second was quicker by the clock alone, since it met a fast machine; the last is asynchronous."""
    servers = Strategy(dp=2, gradient_exchange="parameter_server", servers=1, synchrony="async")
    found = Turns(
        cluster=host_cluster,
        measurements=(),
        tried=(
            tried(job, Strategy(dp=2), 1.0, 1.1),
            tried(job, Strategy(pp=2), 1.2, 0.9, speed=1.5),
            tried(job, Strategy(dp=4), 1.3, 1.0),
            tried(job, servers, 0.1, 0.1),
        ),
    )
    assert found.regret_pct == pytest.approx(10.0)


def test_quantiles_lie_between_values():
    assert quantile([1.0, 2.0, 3.0], 0.5) == 2.0
    assert quantile(list(range(11)), 0.9) == pytest.approx(9.0)
