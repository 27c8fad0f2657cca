"""Gradients are reduced while the rest of the backward that completes them runs, halved or not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

torch = pytest.importorskip("torch")

from ranks import run_ranks  # noqa: E402

from traincast.executor.measure.heartbeat import Heartbeat  # noqa: E402
from traincast.executor.measure.recorder import CpuClock, Mark, Recorder  # noqa: E402
from traincast.executor.model.workload import Workload  # noqa: E402
from traincast.executor.parallel.process_groups import make_groups  # noqa: E402
from traincast.executor.train.trainer import Trainer  # noqa: E402
from traincast.sim.plan.blocks import reduced_backwards  # noqa: E402
from traincast.sim.plan.make_plan import make_plan  # noqa: E402
from traincast.sim.plan.plan import Plan  # noqa: E402
from traincast.sim.plan.strategy import Strategy  # noqa: E402

pytestmark = pytest.mark.slow


def marks_of(rank: int, plan: Plan) -> list[Mark]:
    """What one rank notes in a step."""
    with TemporaryDirectory() as directory:
        recorder = Recorder(rank, CpuClock(), Heartbeat(Path(directory) / "beat"))
        trainer = Trainer(
            plan,
            rank,
            torch.device("cpu"),
            make_groups(plan, rank),
            recorder,
            workload=Workload(job=plan.job),
        )
        trainer.walk(0)
        recorder.settle()
    return recorder.marks


@pytest.mark.parametrize("overlaps", [True, False], ids=["meanwhile", "afterwards"])
@pytest.mark.parametrize("sharding", ["ddp", "zero1", "fsdp"])
@pytest.mark.parametrize("schedule", ["1f1b", "zb-h1"])
def test_all_buckets_but_the_last_are_reduced_meanwhile(tiny_job, schedule, sharding, overlaps):
    """As the simulator has it: each when the gradients of its layers are there."""
    strategy = Strategy(
        dp=2, pp=2, schedule=schedule, sharding=sharding, bucket_bytes=1, overlap_gradients=overlaps
    )
    plan = make_plan(replace(tiny_job, optimizer="sgd"), strategy)
    for rank, marks in enumerate(run_ranks(plan.world_size, marks_of, plan)):
        actions = plan.rank_actions(rank)
        (last,) = (str(actions[place]) for place in reduced_backwards(actions))
        ended = max(m.end for m in marks if m.stream == "compute" and m.action == last and m.end)
        reduced = [mark for mark in marks if "REDUCE_GRAD" in mark.action]
        early = {mark.action for mark in reduced if mark.issued < ended}
        buckets = {mark.action for mark in reduced}
        assert len(buckets) == len(plan.stages[plan.coordinates(rank)[0]].buckets) > 2
        assert len(buckets - early) <= 1 if overlaps else not early
