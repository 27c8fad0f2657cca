"""Changes that make a plan fit, each tried by the model itself."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
from machines import gpu, gpu_cluster

from traincast.sim.memory.peak import memory
from traincast.sim.model.hf_config import read_model
from traincast.sim.plan.job import Job
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.strategy import Strategy
from traincast.sim.predict.simulate import simulate
from traincast.sim.search.fit_hints import hints, largest_micro_batch

JOB = Job(model=read_model("llama3-8b"), global_batch=32, seq_len=2048)


def cluster(capacity: float, nodes: int = 1):
    """Nodes of accelerators with so many bytes of memory."""
    return gpu_cluster(nodes, accelerator=gpu(memory_bytes=capacity))


def peak(strategy: Strategy) -> float:
    return max(place.total_bytes for place in memory(make_plan(JOB, strategy), cluster(1e12)))


@pytest.mark.parametrize(
    "strategy", [Strategy(dp=8, micro_batch=4), Strategy(dp=2, tp=2, pp=2), Strategy(dp=4, tp=2)]
)
def test_every_hint_fits_saves_and_costs_what_it_says(strategy: Strategy):
    """Simulated again from the strategy alone; the changes are all that is different; the fastest first."""
    small = cluster(0.93 * peak(strategy))
    plan = make_plan(JOB, strategy)
    found = hints(plan, small)
    assert found
    before = simulate(plan, small, samples=0).step_time_s
    for hint in found:
        assert replace(strategy, **hint.changes) == hint.strategy  # type: ignore[arg-type]
        places = memory(make_plan(JOB, hint.strategy), small)
        assert all(place.fits for place in places)
        assert hint.peak_bytes == max(place.total_bytes for place in places)
        assert hint.saved_bytes == peak(strategy) - hint.peak_bytes > 0
        step = simulate(make_plan(JOB, hint.strategy), small, samples=0).step_time_s
        assert (hint.step_time_s, hint.slower) == (step, step / before - 1)
        assert hint.strategy.world_size <= small.accelerators
    steps = [hint.step_time_s for hint in found]
    assert steps == sorted(steps)


def test_no_hint_has_a_change_too_many():
    """What fits without one of its changes and is no slower so is not listed."""
    strategy = Strategy(dp=8, micro_batch=4)
    found = hints(make_plan(JOB, strategy), cluster(0.8 * peak(strategy)))
    changes = [{c for c in hint.changes.items() if c[0] != "dp"} for hint in found]
    assert not any(a < b for i, b in enumerate(changes) for a in changes[:i])


def test_idle_accelerators_are_used():
    strategy = Strategy()
    found = hints(make_plan(JOB, strategy), cluster(0.8 * peak(strategy)))
    assert any(hint.strategy.world_size > 1 for hint in found)


def test_nothing_helps_where_nothing_can():
    assert hints(make_plan(JOB, Strategy(dp=8)), cluster(1e6)) == ()


def test_text_names_the_options():
    strategy = Strategy(dp=4, tp=2)
    found = hints(make_plan(JOB, strategy), cluster(0.93 * peak(strategy)))
    fields = {name.replace("_", "-") for name in asdict(strategy)}
    for hint in found:
        assert {part.split()[0] for part in hint.text.split(", ")} <= fields


def test_the_largest_micro_batch_is_the_last_that_fits():
    """Of 1, 2, 4 and 8 samples a replica, whose peaks rise."""
    peaks = {size: peak(Strategy(dp=4, micro_batch=size)) for size in (1, 2, 4, 8)}
    plan = make_plan(JOB, Strategy(dp=4))
    assert largest_micro_batch(plan, cluster((peaks[4] + peaks[8]) / 2)) == (4, peaks[4])
    assert largest_micro_batch(plan, cluster(2 * peaks[8])) == (8, peaks[8])
    assert largest_micro_batch(plan, cluster((peaks[1] + peaks[2]) / 2)) == (1, peaks[1])
