"""The processes that calibration measures in: one to a rank, alive for a round, idle until asked.

They are told what to do by one JSON line on standard input and answer with one on standard output; waiting
for a line takes no processor time, so whoever is not asked does not disturb. They meet through a file in a
private directory and talk over the loopback interface only.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ...sim.errors import RunError
from ..measure.load import Reading, busy_seconds
from ..run.process import worker_environment
from .needs import MemoryNeed

WORKER = "traincast.executor.calibrate.worker"
MEMORY = "traincast.executor.calibrate.memory"
GRACE_S = 10.0
"""How long a process may take to end after its input was closed."""


def machine() -> dict[str, Any]:
    """What this machine is: plain values, nothing private."""
    gpu = torch.cuda.is_available()
    properties = torch.cuda.get_device_properties(0) if gpu else None
    return {
        "kind": "gpu" if gpu else "cpu",
        "device": properties.name if properties else _processor(),
        "devices": torch.cuda.device_count() if gpu else 1,
        "multiprocessors": properties.multi_processor_count if properties else 0,
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": properties.total_memory if properties else _memory_bytes(),
        "precision": "bf16" if gpu else "fp32",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _memory_bytes() -> float:
    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def probe_memory(needs: Sequence[MemoryNeed]) -> list[dict[str, Any]]:
    """The series of `memory.py` for each of ``needs``, in processes that run at once: they are not timed.

    Raises:
        RunError: one of them failed.
    """
    command = [sys.executable, "-m", MEMORY]
    processes = [
        subprocess.Popen(  # noqa: S603 - our own module, no shell
            [*command, json.dumps(asdict(need))],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=worker_environment(),
            start_new_session=True,
        )
        for need in needs
    ]
    answers = [process.communicate() for process in processes]
    for process, (_, said) in zip(processes, answers, strict=True):
        if process.returncode:
            raise RunError(f"a calibration process (memory) failed: {said[-1000:].strip() or 'no message'}")
    return [item for answer, _ in answers for item in json.loads(answer)]


class Crew:
    """A context: processes of ranks 0 to ``world_size`` - 1."""

    def __init__(self, world_size: int, kind: str):
        self.world_size, self.kind = world_size, kind
        self.reserved_bytes = 0.0
        """Memory of a process before it holds a model: the largest of the ranks."""
        self.processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Crew:
        self.directory = Path(tempfile.mkdtemp(prefix="traincast-calibrate-"))  # 0700
        try:
            self.processes = [self._start(rank) for rank in range(self.world_size)]
            self.reserved_bytes = max(self._answer(rank) for rank in range(self.world_size))
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self, rank: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", WORKER, str(rank), str(self.world_size), str(self.directory)]
        with (self.directory / f"log.{rank}").open("w") as log:
            return subprocess.Popen(  # noqa: S603 - our own module, no shell
                [*command, self.kind],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=worker_environment(),
                cwd=self.directory,
                start_new_session=True,
            )

    def ask(self, ranks: Sequence[int], task: str, arguments: Mapping[str, Any]) -> list[Any]:
        """What ``ranks`` answer to one task that they begin together.

        Raises:
            RunError: one of them raised or died.
        """
        line = json.dumps({"task": task, "ranks": list(ranks), "arguments": dict(arguments)})
        for rank in ranks:
            stdin = self.processes[rank].stdin
            assert stdin is not None
            try:
                stdin.write(line + "\n")
                stdin.flush()
            except BrokenPipeError:
                raise self._dead(rank) from None
        return [self._answer(rank) for rank in ranks]

    def load(self) -> Reading:
        """How busy the cores are, and how much of it the ranks are; the difference of two is a load."""
        cores = os.sched_getaffinity(0)
        return Reading(time.perf_counter(), busy_seconds(cores), sum(map(self._processor_s, self.processes)))

    @staticmethod
    def _processor_s(process: subprocess.Popen[str]) -> float:
        """Of all its threads so far; 0 where the system does not say (Linux, proc_pid_stat)."""
        try:
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _answer(self, rank: int) -> Any:
        stdout = self.processes[rank].stdout
        assert stdout is not None
        line = stdout.readline()
        if not line:
            raise self._dead(rank)
        answer = json.loads(line)
        if "error" in answer:
            raise RunError(f"calibration failed on rank {rank}: {answer['error']}")
        return answer["result"]

    def _dead(self, rank: int) -> RunError:
        log = (self.directory / f"log.{rank}").read_text(errors="replace")
        return RunError(f"a calibration process (rank {rank}) died: {log[-1000:].strip() or 'no message'}")

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            if process.stdin:
                process.stdin.close()
        for process in self.processes:
            try:
                process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout:
                process.stdout.close()
        shutil.rmtree(self.directory, ignore_errors=True)
