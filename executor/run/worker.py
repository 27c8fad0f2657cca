"""One rank of a run: ``python -m traincast.executor.run.worker DIRECTORY RANK``.

The directory holds what the launcher says (`spec.json`, `plan.json`) and what the ranks answer: a heartbeat
after every step, and in the end `part.RANK.json`, or `error.RANK.json` with the cause.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import FileStore

from ...sim.files.writer import write_json_atomic
from ...sim.plan.plan import Plan
from ...sim.plan.plan_file import read_plan
from ..measure.heartbeat import Heartbeat
from ..measure.load import Reading, read_load, usable_cores
from ..measure.memory import peak_memory_bytes, reset_peak_memory
from ..measure.recorder import CpuClock, CudaClock, Recorder
from ..measure.speed import SpeedWatch
from ..model.references import look_in
from ..model.workload import Workload
from ..parallel.process_groups import device_kind, join, make_groups
from ..servers.server_rank import ServerRank, paces
from ..train.trainer import Trainer
from .process import die_with_parent, pin
from .walks import walks

BRACKET = 8
"""Looks at the speed before and after a run with servers, whose workers come to no end together between."""


class Rank:
    """What one rank does from its first step to its last."""

    def __init__(self, directory: Path, rank: int):
        self.directory, self.rank = directory, rank
        self.spec: dict[str, Any] = json.loads((directory / "spec.json").read_text())
        self.plan: Plan = read_plan(directory / "plan.json")
        if self.spec.get("import_from"):
            look_in(self.spec["import_from"])
        if device_kind(self.plan) == "cpu":
            pin(rank)
        self.warmup = walks(self.plan, self.spec["warmup"])
        self.walks = self.warmup + walks(self.plan, self.spec["steps"])
        """Times through the plan's actions."""
        self.begins: list[float] = []
        """When each walk began: after the one before and a look at the processor's speed."""
        self.ends: list[float] = []
        """When the first walk could begin, then when each ended."""
        self.losses: list[float] = []
        self.step = -1
        self.cores = usable_cores()
        self.load: list[Reading] = []
        """How busy the machine was when the first step began."""

    def run(self) -> None:
        plan, seed = self.plan, self.spec["seed"]
        self.heartbeat = Heartbeat(self.directory / f"heartbeat.{self.rank}", paces(plan, self.rank))
        store = FileStore(str(self.directory / "store"), plan.world_size)
        self.device = join(plan, self.rank, store)
        on_cpu = self.device.type == "cpu"
        clock = CpuClock() if on_cpu else CudaClock()
        self.speed = SpeedWatch() if on_cpu else None
        self.recorder = Recorder(self.rank, clock, self.heartbeat)
        if plan.strategy.servers:
            workload = Workload(job=plan.job, seed=seed)
            self.actor: ServerRank | Trainer = ServerRank(
                plan, self.rank, self.device, self.recorder, workload, self.walks, on_failure=self.fail
            )
            reset_peak_memory(self.device)
            self._start()
            self.actor.run(self._served)
            self._look_at_speed(times=BRACKET)
        else:
            groups = make_groups(plan, self.rank)
            keeps = self.spec["keep_state"]
            self.actor = Trainer(
                plan,
                self.rank,
                self.device,
                groups,
                self.recorder,
                workload=Workload(job=plan.job, seed=seed, ep=plan.strategy.ep),
                keeps_gradients=keeps,
            )
            reset_peak_memory(self.device)
            self._start()
            for walk in range(self.walks):
                self._begin(walk)
                self._end(self.actor.walk(walk))
            self._look_at_speed()
        self._write()
        with self.heartbeat.waiting():
            dist.barrier()
        dist.destroy_process_group()

    def _served(self, step: int) -> None:
        """A worker of parameter servers has ended a round of its own."""
        self.step = step
        self._end([])

    def _start(self) -> None:
        """Wait for each other once, and note when the first step began."""
        with self.heartbeat.waiting():
            dist.barrier()
        if self.plan.strategy.servers:
            self._look_at_speed(times=BRACKET)
        self.ends.append(self.recorder.settle())
        self.load = [read_load(self.cores)]

    def _begin(self, step: int) -> None:
        self.step = self.recorder.step = step
        if self.speed is not None and step == max(1, self.warmup):
            with self.heartbeat.waiting():
                self.speed.agree(self.ends[-1] - self.begins[-1])
        self._look_at_speed(step)
        self.begins.append(self.recorder.settle())

    def _look_at_speed(self, walk: int = 0, times: int = 1) -> None:
        if self.speed is not None:
            self.speed.look(walk, times)

    def _end(self, losses: list[float]) -> None:
        self.ends.append(self.recorder.settle())
        self.losses += losses
        self.heartbeat.ended(self.step)

    def _write(self) -> None:
        served = self.actor if isinstance(self.actor, ServerRank) else None
        marks = served.marks if served else self.recorder.marks
        part = {
            "rank": self.rank,
            "cores": len(self.cores),
            "load": [*self.load, read_load(self.cores)],
            "probes": self.speed.seconds if self.speed else [],
            "begins": self.begins,
            "ends": self.ends,
            "losses": self.losses,
            "peak_memory_bytes": peak_memory_bytes(self.device),
            "expert_loads": self.actor.expert_loads() if isinstance(self.actor, Trainer) else {},
            "marks": [mark for mark in marks if mark.step >= self.warmup],
            **(served.part() if served else {}),
        }
        if self.spec["keep_state"]:
            torch.save(self.actor.kept_state(), self.directory / f"state.{self.rank}.pt")
        write_json_atomic(self.directory / f"part.{self.rank}.json", part)

    def fail(self, error: BaseException) -> None:
        """Say why this rank cannot go on, and leave: peers may wait in a collective, and see a closed
        connection."""
        _say_why(self.directory, self.rank, self.step, error)
        os._exit(1)


def _say_why(directory: Path, rank: int, step: int, error: BaseException) -> None:
    cause = {
        "rank": rank,
        "host": socket.gethostname(),
        "time": time.time(),
        "step": step,
        "cause": f"{type(error).__name__}: {error}",
        "traceback": "".join(traceback.format_exception(error)),
    }
    write_json_atomic(directory / f"error.{rank}.json", cause)


def main(directory: Path, rank: int) -> int:
    """Run one rank; its exit code is 0, or 1 with `error.RANK.json` beside it."""
    die_with_parent()
    one = None
    try:
        one = Rank(directory, rank)
        one.run()
    except BaseException as error:
        _say_why(directory, rank, one.step if one else -1, error)
        # Peers may wait in a collective; leaving at once lets them see a closed connection.
        os._exit(1)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
