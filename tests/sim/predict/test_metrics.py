"""A step divides into compute, exposed communication and bubble, and nothing is left over."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traincast.sim.kernels.flops import model_flops_per_token
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.strategy import Strategy
from traincast.sim.predict.metrics import divide, metrics
from traincast.sim.predict.simulate import simulate
from traincast.sim.trace.spans import merge, total
from traincast.sim.trace.trace import Span, Trace

intervals = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)).map(lambda t: (min(t), max(t))))


@given(intervals)
def test_merged_intervals_cover_the_same_points_once(pairs):
    merged = merge(pairs)
    covered = {x for start, end in pairs for x in range(start, end)}
    assert total(merged) == len(covered)
    assert all(a[1] < b[0] for a, b in pairwise(merged))


def test_parts_add_up_to_the_step(tiny_job, round_cluster):
    plan = make_plan(tiny_job, Strategy(dp=2, tp=2, pp=2))
    trace = simulate(plan, round_cluster)
    _, bubble, exposed = divide(trace, plan)
    compute = sum(s.duration for s in trace.spans if s.stream == "compute") / len(trace.ranks)
    assert compute + sum(exposed.values()) + bubble * trace.step_time_s == pytest.approx(trace.step_time_s)


def test_hidden_communication_is_not_exposed(tiny_job):
    plan = make_plan(tiny_job, Strategy(dp=2))
    spans = [
        Span(0, "compute", "0F0", 0, 0, 0.0, 6.0),
        Span(0, "dp", "0REDUCE_GRAD0", 0, 0, 4.0, 9.0),
        Span(0, "compute", "0STEP", 0, -1, 9.0, 10.0),
    ]
    trace = Trace.of(spans, source="predicted", world_size=2, step_times_s=(10.0,))
    assert divide(trace, plan) == (7.0, 0.0, {"dp": pytest.approx(3.0)})


def test_utilisation_counts_the_models_flops(tiny_job, round_cluster):
    """MFU is model FLOPs over what all workers could have done in the step (PaLM, appendix B)."""
    plan = make_plan(tiny_job, Strategy(dp=2, recompute="full"))
    numbers = metrics(plan, round_cluster, simulate(plan, round_cluster))
    flops = model_flops_per_token(tiny_job.model, tiny_job.seq_len) * tiny_job.tokens_per_step
    assert numbers.mfu == pytest.approx(flops / (numbers.step_time_s["p50"] * 2 * 50e12))
    assert numbers.hfu > numbers.mfu
    assert numbers.tokens_per_s == pytest.approx(numbers.samples_per_s * tiny_job.seq_len)
