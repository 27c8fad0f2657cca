"""Runs whose updates are not those of one process on the global batch, against what their rules say.

A pipeline that is never drained computes with weights that later updates do not touch (PipeDream: Narayanan
et al. 2019, section 3.3); replicas that average now and then drift apart between (local SGD: Stich 2019).
"""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from agreement import assert_runs_and_agrees  # noqa: E402

from traincast.sim.plan.make_plan import make_plan  # noqa: E402
from traincast.sim.plan.strategy import Strategy  # noqa: E402

pytestmark = pytest.mark.slow

UNFLUSHED = {
    "pipedream": Strategy(pp=2, micro_batch=2, schedule="pipedream"),
    "pipedream, 4 stages": Strategy(pp=4, micro_batch=2, schedule="pipedream"),
    "pipedream-2bw": Strategy(pp=2, micro_batch=2, schedule="pipedream-2bw"),
    "pipedream × dp": Strategy(pp=2, dp=2, micro_batch=2, schedule="pipedream"),
    "pipedream, computed again": Strategy(pp=2, micro_batch=2, schedule="pipedream", recompute="full"),
    "pipedream, one message at a time": Strategy(
        pp=2, micro_batch=2, schedule="pipedream", overlap_transfers=False
    ),
}


@pytest.fixture
def sgd_job(tiny_job):
    """Plain SGD: an update is a gradient."""
    return replace(tiny_job, optimizer="sgd", learning_rate=0.1)


@pytest.mark.parametrize("name", UNFLUSHED)
def test_each_backward_uses_the_weights_of_its_forward(sgd_job, tmp_path, name):
    plan = make_plan(sgd_job, UNFLUSHED[name])
    trace = assert_runs_and_agrees(plan, tmp_path)
    assert len(trace.step_times_s) == 1


def test_tied_embeddings_of_a_pipeline_that_is_never_drained(sgd_job, tmp_path):
    """Both copies get the whole gradient; each stage has versions of its own."""
    tied = replace(sgd_job.model, decoder=replace(sgd_job.model.decoder, tied_embeddings=True))
    plan = make_plan(replace(sgd_job, model=tied), UNFLUSHED["pipedream"])
    assert_runs_and_agrees(plan, tmp_path)


@pytest.mark.parametrize(
    "strategy",
    [
        Strategy(dp=2, micro_batch=2, synchrony="local:2"),
        Strategy(dp=2, pp=2, micro_batch=2, synchrony="local:3", schedule="zb-h1"),
        Strategy(dp=2, tp=2, micro_batch=2, synchrony="local:2", sequence_parallel=True),
    ],
    ids=lambda strategy: strategy.label,
)
def test_local_steps_drift_and_are_averaged(sgd_job, tmp_path, strategy):
    assert_runs_and_agrees(make_plan(sgd_job, strategy), tmp_path, steps=4)
