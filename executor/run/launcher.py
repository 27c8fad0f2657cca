"""Start a plan's ranks on this machine, watch them, and collect what they measured.

Ranks are plain child processes rather than torchrun's: its agent reports every cause as exit code 1, may
leave workers behind when it is killed, and waits for minutes on a link that was cut. Here a worker that
dies or raises ends the run at once with rank, host and cause; a rank that makes no step within the timeout
is named; and whatever happens, every process is gone before `execute` returns. Ranks meet through a file in
a private directory and talk over the loopback interface alone.
"""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ...sim.errors import HangError, RunError, TraincastError
from ...sim.files.writer import copy_file, make_directory, write_json_atomic
from ...sim.plan.plan import Plan
from ...sim.plan.plan_file import write_plan
from ...sim.trace.trace import Trace
from ..measure.heartbeat import NOT_STARTED, Beat, read_beat
from .collect import collect
from .environment import check_environment
from .process import worker_environment
from .walks import walks

WORKER = "traincast.executor.run.worker"
POLL_S = 0.05
START_S = 60.0
"""What a process may take, beyond the timeout, to import torch before it gives its first sign of life."""
SETTLE_S = 0.5
"""After the first failure, how long others may take to say theirs: the earliest is the root cause."""

Progress = Callable[[str, float], None]


def execute(
    plan: Plan,
    *,
    steps: int = 10,
    warmup: int = 2,
    out_dir: Path | None = None,
    seed: int = 0,
    timeout_s: float = 60.0,
    force: bool = False,
    on_progress: Progress | None = None,
    keep_state: bool = False,
    import_from: Path | None = None,
) -> Trace:
    """Train ``steps`` steps by ``plan`` on this machine, after ``warmup`` steps that do not count.

    ``timeout_s`` is how long no rank may come to the end of a step. Logs of the ranks stay in ``out_dir``;
    with ``keep_state`` their final parameters and last gradients do too.

    Raises:
        EnvironmentMismatchError: this machine cannot run the plan; nothing was started.
        RunError: a rank died or raised; has attributes `rank`, `host`, `cause` and `step`.
        HangError: no rank made progress; the same attributes.
        UsageError: ``out_dir`` cannot be made or written.
    """
    check_environment(plan, force=force)
    if out_dir is not None:
        make_directory(out_dir)
    directory = Path(tempfile.mkdtemp(prefix="traincast-run-"))  # 0700
    try:
        write_plan(plan, directory / "plan.json")
        spec = {
            "steps": steps,
            "warmup": warmup,
            "seed": seed,
            "keep_state": keep_state,
            "import_from": None if import_from is None else str(import_from),
        }
        write_json_atomic(directory / "spec.json", spec)
        with _Ranks(plan, directory) as ranks:
            total = walks(plan, warmup) + walks(plan, steps)
            ranks.watch(total, timeout_s, on_progress or (lambda text, fraction: None))
        return collect(plan, directory, warmup=walks(plan, warmup), seed=seed)
    finally:
        try:
            if out_dir is not None:
                _keep_logs(directory, out_dir, keep_state)
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def _keep_logs(directory: Path, out_dir: Path, keep_state: bool) -> None:
    for pattern in ("*.log", "error.*.json", *(["state.*.pt"] if keep_state else [])):
        for path in directory.glob(pattern):
            copy_file(path, out_dir / path.name)


class _Ranks:
    """The processes of a run: a context that leaves none behind."""

    def __init__(self, plan: Plan, directory: Path):
        self.plan, self.directory = plan, directory
        self.processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> _Ranks:
        try:
            for rank in range(self.plan.world_size):
                self.processes.append(self._start(rank))
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _start(self, rank: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", WORKER, str(self.directory), str(rank)]
        with (self.directory / f"rank{rank}.log").open("wb") as log:
            return subprocess.Popen(  # noqa: S603 - our own module, no shell
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=worker_environment(),
                cwd=self.directory,
                start_new_session=True,
            )

    def kill(self) -> None:
        """End every process that is left, stopped ones too."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
        for process in self.processes:
            process.wait()

    def watch(self, steps: int, timeout_s: float, on_progress: Progress) -> None:
        """Return when all ranks have ended well. Raises RunError or HangError."""
        beats, last_beat = self._beats(), time.monotonic()
        while any(process.poll() is None for process in self.processes):
            if any(process.poll() not in (None, 0) for process in self.processes):
                break
            now = self._beats()
            if [beat.step for beat in now] != [beat.step for beat in beats]:
                last_beat = time.monotonic()
                done = max(0, min(beat.step for beat in now) + 1)
                on_progress(f"step {done} of {steps}", done / steps)
            elif time.monotonic() - last_beat > _patience(now, timeout_s):
                raise self._hung(now, timeout_s)
            beats = now
            time.sleep(POLL_S)
        if any(process.poll() != 0 for process in self.processes):
            raise self._failed()

    def _beats(self) -> list[Beat]:
        return [read_beat(self.directory / f"heartbeat.{rank}") for rank in range(self.plan.world_size)]

    def _hung(self, beats: list[Beat], timeout_s: float) -> TraincastError:
        """A stopped process is the cause; else who waits for nobody; else who is furthest behind."""
        stopped = [rank for rank, process in enumerate(self.processes) if _is_stopped(process.pid)]
        working = [rank for rank, beat in enumerate(beats) if not beat.waits]
        behind = max(-1, min(beat.step for beat in beats))
        late = stopped or working or [rank for rank, beat in enumerate(beats) if beat.step <= behind]
        names = ", ".join(map(str, late))
        cause = "stopped by a signal" if stopped else "made no step"
        text = f"no rank made a step for {timeout_s:g} s: rank {names} on {socket.gethostname()} {cause}"
        return _attach_details(HangError(f"{text} after step {behind}"), late[0], cause, behind)

    def _failed(self) -> TraincastError:
        """The root cause: a process killed by a signal, else the error that was first."""
        time.sleep(SETTLE_S)
        for rank, process in enumerate(self.processes):
            code = process.poll()
            if code is not None and code < 0:
                name = signal.Signals(-code).name
                return self._error(rank, socket.gethostname(), f"killed by {name}", self._beats()[rank].step)
        errors = [json.loads(path.read_text()) for path in self.directory.glob("error.*.json")]
        if errors:
            first = min(errors, key=lambda error: error["time"])
            return self._error(first["rank"], first["host"], first["cause"], first["step"])
        rank = next(r for r, process in enumerate(self.processes) if process.poll() not in (None, 0))
        log = (self.directory / f"rank{rank}.log").read_text(errors="replace").strip()
        cause = f"exit code {self.processes[rank].poll()}: {log.splitlines()[-1] if log else 'no message'}"
        return self._error(rank, socket.gethostname(), cause, self._beats()[rank].step)

    def _error(self, rank: int, host: str, cause: str, step: int) -> TraincastError:
        role = "server" if self.plan.is_server(rank) else "worker"
        text = f"{role} rank {rank} on {host} failed at step {max(step, 0)}: {cause}"
        return _attach_details(RunError(text), rank, cause, step)


def _patience(beats: list[Beat], timeout_s: float) -> float:
    """Seconds without progress that are not yet a hang."""
    starting = any(beat.step == NOT_STARTED for beat in beats)
    return timeout_s + START_S if starting else timeout_s


def _attach_details(error: TraincastError, rank: int, cause: str, step: int) -> TraincastError:
    """The facts of a failure as attributes, for who handles it in a program."""
    error.rank, error.host, error.cause, error.step = rank, socket.gethostname(), cause, step  # type: ignore[attr-defined]
    return error


def _is_stopped(pid: int) -> bool:
    """Whether the kernel says that a process is stopped (`T`)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] == "T"
