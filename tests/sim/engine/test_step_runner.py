"""A step as arrays gives the bits of the same step built operation by operation, on either engine."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import pytest
from generators import drawn_stragglers, jobs_and_strategies
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import gpu_cluster, llama
from machines import job as small_job

from traincast.sim.engine import compiled as engine_compiled
from traincast.sim.engine.walk import walk
from traincast.sim.errors import InputError
from traincast.sim.hardware.cluster import Cluster
from traincast.sim.plan.action import Kind
from traincast.sim.plan.job import Job
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.plan import Plan
from traincast.sim.plan.strategy import Strategy
from traincast.sim.predict.simulate import simulate
from traincast.sim.program.build import build_program
from traincast.sim.program.step_arrays import step_arrays

PATH = "traincast.sim.predict.simulate._step"


def as_arrays(plan: Plan, cluster: Cluster, **options: Any):
    """The trace from arrays, however little repeats itself; and whether there were arrays."""
    repeat = mock.Mock(side_effect=partial(step_arrays, always=True))
    with mock.patch(PATH, repeat):
        return simulate(plan, cluster, **options)


def one_by_one(plan: Plan, cluster: Cluster, **options: Any):
    """The trace from operations that were built one by one."""
    with mock.patch(PATH, return_value=None):
        return simulate(plan, cluster, **options)


def assert_alike(one, other) -> None:
    assert one.spans == other.spans
    assert one.step_times_s == other.step_times_s
    assert one.peak_memory_bytes == other.peak_memory_bytes
    assert {**one.metadata, "engine": ""} == {**other.metadata, "engine": ""}


@settings(max_examples=200, deadline=None)
@given(jobs_and_strategies(), st.data())
def test_arrays_give_the_trace_of_operations(drawn: tuple[Job, Strategy], data: st.DataObject) -> None:
    """Spans, samples, memory and metadata, whoever is slow, whatever jitter there is; and the reference's."""
    job, strategy = drawn
    cluster = gpu_cluster(nodes=32, per_node=4, jitter=data.draw(st.sampled_from([0.0, 0.1])))
    if data.draw(st.booleans()):
        cluster = replace(cluster, stragglers=data.draw(drawn_stragglers(strategy.workers, cluster.nodes)))
    options = {"samples": 2, "seed": 3, "stepwise": data.draw(st.booleans())}
    plan = make_plan(job, strategy)
    found = as_arrays(plan, cluster, **options)
    assert_alike(found, one_by_one(plan, cluster, **options))
    assert_alike(found, one_by_one(plan, cluster, engine="simpy", **options))


@settings(max_examples=150, deadline=None)
@given(jobs_and_strategies())
def test_operations_are_walked_in_the_order_in_which_they_are_built(drawn: tuple[Job, Strategy]) -> None:
    """So jitter, which is drawn by number, falls on the same operation in either form."""
    plan, cluster = make_plan(*drawn), gpu_cluster(nodes=32, per_node=4)
    step = step_arrays(plan, cluster, always=True)
    if step is None:
        return
    program = build_program(plan, cluster).program
    walked = walk(step)
    assert step.durations[walked.order].tolist() == [op.duration for op in program.operations]
    assert step.sync.size == step.rank.size == len(program.operations)
    starts, ends = engine_compiled.run(program)
    assert walked.starts[walked.order].tolist() == starts
    assert walked.ends[walked.order].tolist() == ends
    again = walk(step, compiled=True)
    assert all(np.array_equal(getattr(again, name), getattr(walked, name)) for name in ("ends", "order"))


def test_a_step_without_spans_is_the_same_step() -> None:
    """Step times, memory and metadata are those of the trace with spans."""
    plan = make_plan(small_job(global_batch=64), Strategy(dp=2, pp=2, tp=2))
    cluster = gpu_cluster(jitter=0.05)
    whole, bare = (simulate(plan, cluster, samples=4, spans=spans) for spans in (True, False))
    assert len(whole.spans) > len(bare.spans) == 0
    assert bare.step_times_s == whole.step_times_s
    assert (bare.peak_memory_bytes, bare.metadata) == (whole.peak_memory_bytes, whole.metadata)


@pytest.mark.parametrize(
    "fields",
    [
        {"pp": 4},
        {"pp": 2, "vp": 2, "schedule": "interleaved", "dp": 2},
        {"pp": 2, "dp": 2, "schedule": "zb-h1"},
        {"pp": 2, "vp": 2, "schedule": "dualpipev", "tp": 2},
        {"pp": 4, "dp": 2, "sharding": "zero1"},
    ],
)
def test_many_micro_batches_are_repeated(fields: dict[str, Any]) -> None:
    """These plans take the arrays without being asked to."""
    job = small_job(llama(layers=8), global_batch=64 * fields.get("dp", 1))
    step = step_arrays(make_plan(job, Strategy(**fields)), gpu_cluster())
    assert step is not None
    assert step.operations > 64 * 2 * fields["pp"]


@pytest.mark.parametrize(
    "fields",
    [
        {"dp": 4, "sharding": "fsdp"},
        {"dp": 2, "gradient_exchange": "parameter_server", "servers": 1},
        {"pp": 2, "offload": "activations"},
        {"pp": 2},
    ],
)
def test_other_plans_are_built_operation_by_operation(fields: dict[str, Any]) -> None:
    """Gathering by passes, servers, offload, and what has too few micro-batches to repeat."""
    job = small_job(global_batch=2 * fields.get("dp", 1))
    assert step_arrays(make_plan(job, Strategy(**fields)), gpu_cluster()) is None


def test_ranks_that_wait_for_each_other_are_refused() -> None:
    """A plan whose first rank waits for the last before it has sent anything."""
    plan = make_plan(small_job(global_batch=64), Strategy(pp=2))
    first, second = plan.actions
    waits = next(place for place, action in enumerate(first) if action.kind is Kind.RECV_B)
    turned = replace(plan, actions=((first[waits], *first[:waits], *first[waits + 1 :]), second))
    for engine in ("compiled", "simpy"):
        with pytest.raises(InputError, match="wait for each other"):
            simulate(turned, gpu_cluster(), engine=engine)
    step = step_arrays(plan, gpu_cluster())
    assert step is not None
    swapped = replace(step, entries=np.concatenate([step.entries[step.entries < 0][-1:], step.entries[:-1]]))
    with pytest.raises(InputError, match="wait for each other"):
        walk(swapped)
