"""Both engines give the same bits on the Programs of real plans, whole traces included."""

from __future__ import annotations

from dataclasses import replace

from generators import any_strategies, drawn_stragglers, jobs_and_strategies, models
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import cpu_cluster, gpu_cluster

from traincast.sim.engine import compiled as engine_compiled
from traincast.sim.engine import reference as engine_simpy
from traincast.sim.errors import InputError
from traincast.sim.hardware.cluster import Cluster
from traincast.sim.memory.peak import memory
from traincast.sim.model.model import Model
from traincast.sim.plan.job import Job
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.soundness import validate
from traincast.sim.plan.strategy import Strategy
from traincast.sim.plan.strategy_rules import strategy_faults
from traincast.sim.predict.simulate import simulate
from traincast.sim.program.build import build_program
from traincast.sim.program.fold import unfold
from traincast.sim.program.placement import COMPUTE

all_reducing = jobs_and_strategies(max_degree=2).filter(lambda drawn: not drawn[1].servers)
"""Without parameter servers, which have engines of their own."""


def agree(job: Job, strategy: Strategy, cluster: Cluster) -> None:
    """The same starts and ends; and nothing busier than there is time."""
    program = build_program(make_plan(job, strategy), cluster).program
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
    assert [*job.faults(), *strategy_faults(strategy, job, strategy.world_size)] == []


@settings(max_examples=400, deadline=None)
@given(jobs_and_strategies().filter(lambda drawn: not drawn[1].servers))
def test_engines_agree_on_gpus(drawn: tuple[Job, Strategy]) -> None:
    """Ranks folded, transfers between stages."""
    agree(*drawn, gpu_cluster(nodes=16, per_node=8))


@settings(max_examples=250, deadline=None)
@given(all_reducing)
def test_engines_agree_on_shared_cores(drawn: tuple[Job, Strategy]) -> None:
    """Every rank built, cores shared in time slices, where ties are the norm."""
    agree(*drawn, cpu_cluster(ranks=drawn[1].world_size, cores=2))


@settings(max_examples=350, deadline=None)
@given(jobs_and_strategies(max_degree=2), st.data())
def test_folded_runs_equal_unfolded_ones(drawn: tuple[Job, Strategy], data: st.DataObject) -> None:
    """Whoever is slow, and whatever is drawn: lanes of the folded program give the bits that the reference
    engine gives for every rank by itself."""
    job, strategy = drawn
    cluster = gpu_cluster(nodes=16, per_node=2, jitter=data.draw(st.sampled_from([0.0, 0.1])))
    cluster = replace(cluster, stragglers=data.draw(drawn_stragglers(strategy.workers, cluster.nodes)))
    plan, stepwise = make_plan(job, strategy), data.draw(st.booleans())
    lanes, written_out = (
        simulate(plan, cluster, engine=engine, samples=2, seed=5, stepwise=stepwise)
        for engine in ("compiled", "simpy")
    )
    assert lanes.spans == written_out.spans
    assert lanes.step_times_s == written_out.step_times_s
    assert {**lanes.metadata, "engine": ""} == {**written_out.metadata, "engine": ""}


@settings(max_examples=150, deadline=None)
@given(all_reducing)
def test_alike_ranks_fold_to_the_bit(drawn: tuple[Job, Strategy]) -> None:
    """Where nobody is slow, every lane of the program written out is the folded one."""
    program = build_program(make_plan(*drawn), gpu_cluster(nodes=16, per_node=2)).program
    unfolded = unfold(program)
    starts, ends = engine_compiled.run(program)
    all_starts, all_ends = engine_simpy.run(unfolded.program)
    for op, (first, last) in enumerate(zip(unfolded.first, unfolded.last, strict=True)):
        assert {all_starts[one] for one in first.tolist()} == {starts[op]}
        assert {all_ends[one] for one in last.tolist()} == {ends[op]}


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


@settings(max_examples=300, deadline=None)
@given(models(max_layers=4), any_strategies(), st.integers(1, 8))
def test_whatever_is_not_refused_can_be_simulated(
    model: Model, strategy: Strategy, micro_batches: int
) -> None:
    """Fields that go together or not: a strategy is refused with its faults, or it is played."""
    batch = strategy.dp * strategy.micro_batch * micro_batches
    job = Job(model=model, global_batch=batch, seq_len=48, precision="fp32")
    try:
        plan = make_plan(job, strategy)
    except InputError:
        return
    validate(plan)
    assert simulate(plan, gpu_cluster(nodes=64, per_node=4)).step_time_s > 0
    assert all(place.total_bytes > 0 for place in memory(plan, gpu_cluster()))
