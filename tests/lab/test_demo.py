"""The demo end to end, with a calibration and runs that are injected."""

import json
from contextlib import contextmanager

import pytest

from traincast.executor.calibrate.calibrate import Measurements
from traincast.lab import demo as demo_module
from traincast.lab.demo import NOT_HERE, demo
from traincast.lab.trial import Tried, Turns
from traincast.reports.result_file import read_result
from traincast.sim.errors import RunError
from traincast.sim.plan.synchrony import is_synchronous
from traincast.sim.predict.simulate import simulate
from traincast.sim.trace.trace import Trace

CALIBRATION = Measurements(machine={"kind": "cpu"})


def run(plan, cluster, factor):
    """As predicted, but ``factor`` times as long and as large."""
    trace = simulate(plan, cluster, samples=1)
    return Trace.of(
        trace.spans,
        source="measured",
        world_size=trace.world_size,
        step_times_s=tuple(factor * seconds for seconds in trace.step_times_s),
        peak_memory_bytes={rank: factor * size for rank, size in trace.peak_memory_bytes.items()},
        metadata={"losses": [4.0, 3.0]},
    )


@pytest.fixture
def injected(monkeypatch, host_cluster, tiny_job):
    """Nothing is measured; tensor parallelism does not run here, and local SGD fails when it is run."""
    asked = {}

    def take_turns(plans, **options):
        asked.update(options, plans=plans)
        failed = {p.strategy.label: "went away" for p in plans if p.strategy.protocol[0] == asked["fails"]}
        tried = [
            Tried(
                plan=plan,
                predicted=simulate(plan, host_cluster),
                measured=run(plan, host_cluster, 1.0 + 0.01 * number),
            )
            for number, plan in enumerate(plans)
            if plan.strategy.label not in failed
        ]
        measurements = (*options["before"], CALIBRATION)
        return Turns(cluster=host_cluster, measurements=measurements, tried=tuple(tried), failed=failed)

    monkeypatch.setattr(demo_module, "measure_round", lambda *arguments, **options: CALIBRATION)
    monkeypatch.setattr(demo_module, "fitted", lambda measurements, ranks: host_cluster)
    monkeypatch.setattr(demo_module, "take_turns", take_turns)
    monkeypatch.setattr(
        demo_module, "runnable", lambda job, every, say: [one for one in every if one.tp == 1]
    )
    asked["fails"] = "local"
    return asked


def arguments(tiny_job, tmp_path):
    return {
        "model": tiny_job.model,
        "global_batch": tiny_job.global_batch,
        "seq_len": tiny_job.seq_len,
        "ranks": 2,
        "output": tmp_path / "out",
    }


def test_the_demo_ranks_runs_and_compares(injected, tiny_job, tmp_path):
    """As many plans as asked, of as many families; what cannot be run is counted, what fails is told; all
    that ran is in the result, synchronous plans before the others."""
    titles, said = [], []

    @contextmanager
    def progress(title):
        titles.append(title)
        yield lambda text, fraction: None

    found = demo(**arguments(tiny_job, tmp_path), plans=12, progress=progress, announce=said.append)
    assert len(injected["plans"]) == 12
    assert (injected["rounds"], injected["steps"]) == (3, 8)
    assert injected["minutes"] < 6.5
    assert injected["before"] == [CALIBRATION]
    assert found.search.refusals[NOT_HERE] > 0
    assert found.search.counts["refused"] >= found.search.refusals[NOT_HERE]
    assert found.accuracy.runs == len(found.measured) == 11
    assert list(found.failed.values()) == ["went away"]
    kinds = [is_synchronous(one.plan.strategy) for one in found.search.plans]
    assert kinds == sorted(kinds, reverse=True)
    assert titles == ["what runs here", "plan", "plan", "plan"]
    assert said == [f"running 12 of {found.search.considered - found.search.refusals[NOT_HERE]} plans,"
                    " 8 steps each in up to 3 turns"]  # fmt: skip
    result = read_result(tmp_path / "out")
    assert result.failed == found.failed
    assert result.verdict == found.result["verdict"]
    ran = [entry for entry in result.plans if entry.measured]
    assert len(ran) == 11
    assert all(entry.memory_error_pct == pytest.approx(entry.error_pct, abs=0.01) for entry in ran)
    assert "did not run" in (tmp_path / "out/report.html").read_text()
    assert json.loads((tmp_path / "out/measurements.json").read_text())["rounds"] == 2


def test_no_run_at_all_is_an_error(injected, tiny_job, tmp_path):
    """With the reason of each; no result is left behind."""
    injected["fails"] = "sync"
    with pytest.raises(RunError, match="no plan ran: single mb8: went away"):
        demo(**arguments(tiny_job, tmp_path), plans=1)
    assert not (tmp_path / "out/result.json").exists()
