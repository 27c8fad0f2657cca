"""Calibration of the machine the tests run on, small: what comes out can be simulated with."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import pytest

from traincast.executor.calibrate import calibrate
from traincast.executor.calibrate.calibrate import Measurements, Series, measure, merge
from traincast.executor.measure.load import Reading
from traincast.lab.needs import usual_needs
from traincast.sim.calibration.fit import fit_cluster
from traincast.sim.calibration.needs import OPERATIONS
from traincast.sim.errors import RunError
from traincast.sim.plan.job import Job
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.strategy import Strategy
from traincast.sim.predict.simulate import simulate


def round_of(*seconds: float, cpu: tuple[float, ...] = (), size: int = 1) -> Measurements:
    series = Series(what="memory", parameters={"bytes": size}, seconds=seconds, cpu_seconds=cpu)
    return Measurements(machine={"kind": "cpu"}, series=(series,))


def test_rounds_are_pooled_by_what_they_measured():
    """Samples of the same thing become one series, in order; others stay."""
    merged = merge([round_of(1.0, 2.0, cpu=(0.5, 0.6)), round_of(7.0, size=2), round_of(3.0, cpu=(0.7,))])
    assert [(s.parameters, s.seconds, s.cpu_seconds) for s in merged.series] == [
        ({"bytes": 1}, (1.0, 2.0, 3.0), (0.5, 0.6, 0.7)),
        ({"bytes": 2}, (7.0,), ()),
    ]
    assert merged.rounds == 3
    assert merge([merged]) == merged


def test_measurements_survive_json():
    merged = merge([round_of(1.0, 2.0, cpu=(0.5, 0.6)), round_of(7.0, size=2)])
    assert Measurements.from_dict(json.loads(json.dumps(merged.to_dict()))) == merged


@pytest.fixture(scope="module")
def said():
    return []


@pytest.fixture(scope="module")
def measured(tiny_model, said):
    wanted = usual_needs([tiny_model], seq_len=16, micro_batches=(1, 2), ranks=(2,))
    return measure(wanted, lambda text, fraction: said.append((text, fraction)), seconds=1.0)


@pytest.mark.slow
def test_a_round_is_a_cluster(measured, tiny_model, said):
    """Everything is positive and finite, curves rise, two ranks have their transport."""
    cluster = fit_cluster(measured.to_dict(), name="here", date="2026-11-21")
    accelerator = cluster.accelerator
    kinds = {(p.kind, p.micro_batch) for p in accelerator.layer_profiles}
    assert kinds == {(kind, size) for kind in ("embedding", "block", "head") for size in (1, 2)}
    times = [t for p in accelerator.layer_profiles for t in (p.forward_s, p.backward_s)]
    factors = [accelerator.framework_factor, cluster.host.time_slice_s, *accelerator.peak_flops.values()]
    factors += [factor for _, factor in cluster.host.concurrency]
    assert all(math.isfinite(x) and x > 0.0 for x in [*times, *factors, *cluster.residuals.values()])
    assert {(t.operation, t.ranks) for t in cluster.transports} == {
        (name, 2) for name in (*OPERATIONS, "send_recv")
    }
    assert all(p.kept_bytes > 0 for p in accelerator.layer_profiles)
    assert accelerator.reserved_bytes > 1e8, "the libraries alone take more"
    assert [place for place, _ in accelerator.allocator_loss] == [1.0, 2.0]
    for curve in (c for t in cluster.transports for c in (t.times_s, t.cpu_times_s)):
        assert all(a[0] < b[0] and a[1] <= b[1] for a, b in pairwise(curve))
        assert len(curve) == 8
    assert set(accelerator.optimizer_costs) == {"adamw", "sgd", "momentum"}
    fractions = [fraction for _, fraction in said]
    assert fractions == sorted(fractions)
    assert said[-1] == ("done", 1.0)


@pytest.mark.slow
def test_a_plan_can_be_simulated_on_it(measured, tiny_model):
    """One rank takes what the profiles of its layers say, and the optimizer."""
    cluster = fit_cluster(measured.to_dict(), name="here", date="2026-11-21")
    job = Job(model=tiny_model, global_batch=8, seq_len=16, precision="fp32")
    alone = simulate(make_plan(job, Strategy(micro_batch=2)), cluster)
    profiles = {p.kind: p for p in cluster.accelerator.layer_profiles if p.micro_batch == 2}
    layers = sum(profiles[x.kind].forward_s + profiles[x.kind].backward_s for x in tiny_model.layers)
    factor = cluster.host.concurrency[0][1]
    step = sum(s.duration for s in alone.spans if s.kind == "STEP")
    assert alone.step_time_s == pytest.approx(4 * layers * factor + step, rel=1e-6)


@pytest.mark.slow
def test_a_rank_that_cannot_is_reported(tiny_model):
    """A micro-batch longer than the learned positions fails in the process, and says so here."""
    from dataclasses import replace

    decoder = replace(tiny_model.decoder, positions="learned", max_positions=8)
    with pytest.raises(RunError, match="calibration failed on rank 0: layers"):
        measure(usual_needs([replace(tiny_model, decoder=decoder)], 16, (1,), ()), again=True)


class Crowded:
    """Ranks that answer with how often they were asked; others take so many of two cores meanwhile."""

    def __init__(self, others: list[float]):
        self.others, self.asked, self.clock, self.taken = others, 0, 0.0, 0.0

    def load(self) -> Reading:
        return Reading(self.clock, self.clock + self.taken, self.clock)

    def ask(self, ranks, name, arguments):
        self.clock += 1.0
        self.taken += self.others[min(self.asked, len(self.others) - 1)]
        self.asked += 1
        return [self.asked for _ in ranks]


@pytest.mark.parametrize(
    ("others", "kept", "asked"),
    [([0.0], 1, 1), ([0.5, 0.6, 0.02], 3, 3), ([0.5, 0.3, 0.4, 0.9], 2, 4)],
)
def test_what_others_disturb_is_measured_again(monkeypatch, others, kept, asked):
    """Until they leave the cores alone, or time for it is used up; then the least disturbed counts."""
    ticks = iter(range(0, 1000, 5))
    monkeypatch.setattr(calibrate.time, "perf_counter", lambda: float(next(ticks)))
    crew, asking = Crowded(others), calibrate._Asking()
    task = calibrate.Task("a step", (0, 1), "step", {})
    assert asking.undisturbed(crew, task) == [kept, kept]
    assert crew.asked == asked
