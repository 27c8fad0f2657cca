"""Both engines give the same bits on the Programs of real plans, whole traces included."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from machines import cpu_cluster, gpu_cluster
from strategies import jobs_and_strategies

from traincast.sim import engine_compiled, engine_simpy
from traincast.sim.build import COMPUTE, build_program
from traincast.sim.cluster import Cluster
from traincast.sim.engine import simulate
from traincast.sim.job import Job
from traincast.sim.lowering import make_plan
from traincast.sim.strategy import Strategy

small = settings(max_examples=250, deadline=None)


def agree(job: Job, strategy: Strategy, cluster: Cluster, rounds: int) -> None:
    """The same starts and ends; and nothing busier than there is time."""
    program = build_program(make_plan(job, strategy), cluster, rounds).program
    starts, ends = engine_compiled.run(program)
    assert (starts, ends) == engine_simpy.run(program)
    for (_, name), stream in program.streams.items():
        if name == COMPUTE:
            busy = sum(op.duration for op in program.operations if stream in op.streams)
            assert busy <= max(ends) * (1 + 1e-12)


@given(jobs_and_strategies())
def test_drawn_strategies_are_lawful(drawn: tuple[Job, Strategy]) -> None:
    """What the other tests draw breaks no rule."""
    job, strategy = drawn
    assert [*job.faults(), *strategy.faults(job, strategy.world_size)] == []


@small
@given(jobs_and_strategies(), st.integers(1, 3))
def test_engines_agree_on_gpus(drawn: tuple[Job, Strategy], rounds: int) -> None:
    """Ranks folded, transfers between stages, servers' cards shared."""
    agree(*drawn, gpu_cluster(nodes=8, per_node=8), rounds)


@small
@given(jobs_and_strategies(max_degree=2), st.integers(1, 3))
def test_engines_agree_on_shared_cores(drawn: tuple[Job, Strategy], rounds: int) -> None:
    """Every rank built, cores shared in time slices, where ties are the norm."""
    agree(*drawn, cpu_cluster(ranks=drawn[1].world_size, cores=2), rounds)


@settings(max_examples=25, deadline=None)
@given(jobs_and_strategies(max_degree=2))
def test_simulate_gives_one_trace_on_both_engines(drawn: tuple[Job, Strategy]) -> None:
    """Only the name of the engine differs."""
    job, strategy = drawn
    plan = make_plan(job, strategy)
    cluster = cpu_cluster(ranks=strategy.world_size)
    compiled, simpy = (simulate(plan, cluster, engine=engine) for engine in ("compiled", "simpy"))
    assert compiled.spans == simpy.spans
    assert compiled.step_times_s == simpy.step_times_s
    assert {**compiled.metadata, "engine": ""} == {**simpy.metadata, "engine": ""}


@settings(max_examples=25, deadline=None)
@given(jobs_and_strategies(max_degree=2), st.integers(0, 2**32))
def test_samples_repeat(drawn: tuple[Job, Strategy], seed: int) -> None:
    """The same seed gives the same numbers, another one others."""
    job, strategy = drawn
    plan = make_plan(job, strategy)
    cluster = cpu_cluster(ranks=strategy.world_size, jitter=0.05)
    first, again = (simulate(plan, cluster, samples=5, seed=seed).step_times_s for _ in range(2))
    assert first == again
    assert len(set(first)) == 5
    assert set(first).isdisjoint(simulate(plan, cluster, samples=5, seed=seed + 1).step_times_s)
