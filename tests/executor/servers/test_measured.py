"""What a measured run comes to is what the simulator says of the same moments."""

from __future__ import annotations

import numpy as np
import pytest
from served import served_plan

pytest.importorskip("torch")

from traincast.executor.servers.measured import MeasuredRounds
from traincast.sim.trace.trace import Span
from traincast.sim.updates.engine import run_updates
from traincast.sim.updates.model import UpdateModel
from traincast.sim.updates.record import UpdateRecord

WORKERS, TURNS = 4, 16


def record_of(synchrony: str, jitter: float) -> UpdateRecord:
    local = 2 if synchrony.startswith("local") else 1
    compute = np.random.default_rng(1).uniform(1.0, 1.0 + jitter, (WORKERS, TURNS * local))
    return run_updates(
        UpdateModel(
            synchrony=synchrony,
            compute_s=compute * np.array([[1.0], [1.2], [1.5], [2.0]]),
            shard_bytes=[0.1, 0.2],
            apply_s=[0.01, 0.02],
            shard_server=[0, 0],
            bandwidth=[1.0] * (WORKERS + 1),
        )
    )


def parts_of(record: UpdateRecord) -> list[dict]:
    """The parts that ranks would have written of ``record``, which began at second 5."""
    portions = {}
    for shard in range(2):
        place = record.place[:, :, shard]
        updates = [np.argwhere(place == number).tolist() for number in range(int(place.max()) + 1)]
        applied = [5.0 + record.applied_s[w, t, shard] for (w, t), *_ in updates]
        reads = [[int(v) for v in own if v >= 0] for own in record.version[:, :, shard]]
        portions[str(shard)] = {
            "rounds": TURNS, "reads": reads, "updates": updates, "applied_s": applied,
            "staleness": record.staleness.tolist(), "dropped": record.dropped,
        }  # fmt: skip
    found = []
    for worker in range(WORKERS):
        turns = int(np.count_nonzero(~np.isnan(record.compute_end_s[worker])))
        ends = [5.0, *(5.0 + record.compute_end_s[worker, :turns])]
        part = {"rank": worker, "ends": ends, "steps": [*range(turns)], "losses": [[1.0]] * turns}
        found.append({**part, "portions": {}})
    return [*found, {"rank": WORKERS, "ends": [5.0], "steps": [], "losses": [], "portions": portions}]


@pytest.mark.parametrize("synchrony", ["sync", "backup:1", "local:2"])
def test_joint_steps_are_the_simulators(synchrony):
    """The mean of all steps but the first, to rounding; local steps share one."""
    record, plan = record_of(synchrony, 0.5), served_plan(synchrony, dp=WORKERS)
    measured = MeasuredRounds(plan, parts_of(record), 1).step_times_s()
    assert len(measured) == TURNS - 1
    per_step = 2 if synchrony == "local:2" else 1
    assert np.mean(measured) == pytest.approx(record.step_time_s / per_step)


@pytest.mark.parametrize("synchrony", ["async", "stale:2"])
def test_updates_of_all_workers_together_are_the_simulators(synchrony):
    """Of steady workers; nobody is counted after the first has ended."""
    record = record_of(synchrony, 0.0)
    measured = MeasuredRounds(served_plan(synchrony, dp=WORKERS), parts_of(record), 4).step_times_s()
    assert 2 < len(measured) <= TURNS - 4
    assert np.mean(measured) == pytest.approx(record.step_time_s, rel=0.05)


def test_few_updates_still_make_a_step_time():
    """One round after the warm-up, in which the fastest worker is alone before it ends."""
    parts = parts_of(record_of("async", 0.0))
    (time_s,) = MeasuredRounds(served_plan("async", dp=WORKERS), parts, TURNS - 1).step_times_s()
    assert time_s > 0


def test_spans_count_from_where_their_step_began():
    """A pull of what was updated first is ahead of the update that ends the step before."""
    parts = parts_of(record_of("sync", 0.0))
    rounds = MeasuredRounds(served_plan("sync", dp=4), parts, 1)
    ends = [5.0, *rounds._updates()]
    late = Span(0, "compute", "0F0", 0, 0, ends[2] + 0.5, ends[2] + 1.0, step=2)
    early = Span(1, "ps", "0PULL.0", 0, 0, ends[3] - 0.1, ends[3] + 1.0, step=3)
    begins = rounds.begins([late, early])
    assert begins == {(2, 0): ends[2], (3, 1): ends[3] - 0.1}


def test_the_metadata_tells_losses_staleness_and_order():
    parts = parts_of(record_of("async", 0.0))
    found = MeasuredRounds(served_plan("async", dp=4), parts, 1).metadata()
    assert found["losses"] == [1.0] * TURNS
    assert found["rounds"] == [TURNS] * WORKERS
    assert isinstance(found["applied_order"], dict)
    assert set(found["applied_order"]["1"]) == {"rounds", "reads", "updates"}
