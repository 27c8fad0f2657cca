"""Convergence for real: update protocols on this machine, with worker processes and a server over gloo.

All phases (one protocol each) run one after the other in the same processes. What they measured comes back
as losses against seconds, every update's staleness, and the seconds that a prediction needs.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...sim.errors import HangError, RunError
from ...sim.files.writer import write_json_atomic
from ..run.process import worker_environment

PROCESS = "traincast.executor.converge.worker"
START_S = 90.0
"""What the processes may take to start, beyond the time of the phases."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One protocol for some seconds."""

    protocol: tuple[str, int]
    """Name and number, as ("stale", 2)."""
    horizon_s: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class MeasuredPhase:
    """What one phase came to."""

    times_s: tuple[float, ...]
    losses: tuple[float, ...]
    staleness: tuple[int, ...]
    """Of every gradient applied, in order."""
    dropped: int
    compute_s: tuple[tuple[float, ...], ...]
    """By worker: seconds of each gradient."""
    message_s: float
    """Median of a message from its send to its arrival."""
    send_s: float
    """Median of what an answer holds the server up."""
    apply_s: float
    """Median of one update on the server."""


def run_phases(
    phases: Sequence[Phase],
    arrays: dict[str, np.ndarray],
    *,
    hidden: int,
    batch: int,
    rate: float,
    factors: Sequence[float],
    pace_s: float,
) -> list[MeasuredPhase]:
    """Run ``phases`` with one worker for each of ``factors``, and a server.

    ``arrays`` are `pictures` (float64[n, d]), `classes` (int64[n]) and `initial` (float64[p], a network of
    ``hidden`` units). A worker's gradient takes ``pace_s`` seconds times its factor, or longer where this
    machine is slower than that.

    Raises:
        RunError: a process failed.
        HangError: the processes did not end in their time.
    """
    directory = Path(tempfile.mkdtemp(prefix="traincast-converge-"))  # 0700
    spec = {
        "workers": len(factors),
        "hidden": hidden,
        "batch": batch,
        "rate": rate,
        "factors": list(factors),
        "pace_s": pace_s,
        "phases": [{"protocol": p.protocol, "horizon_s": p.horizon_s, "seed": p.seed} for p in phases],
    }
    try:
        np.savez(directory / "problem.npz", **arrays)  # type: ignore[arg-type]
        write_json_atomic(directory / "spec.json", spec)
        _run(directory, len(factors) + 1, START_S + 2 * sum(phase.horizon_s for phase in phases))
        return _collect(directory, len(factors), len(phases))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _run(directory: Path, ranks: int, patience_s: float) -> None:
    """Start all processes and wait; none is left when this returns."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        processes += [_start(directory, rank) for rank in range(ranks)]
        deadline = time.monotonic() + patience_s
        while any(process.poll() is None for process in processes):
            if any(process.poll() not in (None, 0) for process in processes):
                break
            if time.monotonic() > deadline:
                raise HangError(f"the convergence run did not end within {patience_s:.0f} s")
            time.sleep(0.05)
        failed = [rank for rank, process in enumerate(processes) if process.poll() not in (None, 0)]
        if failed:
            log = (directory / f"rank{failed[0]}.log").read_text(errors="replace").strip()
            cause = log.splitlines()[-1] if log else f"exit code {processes[failed[0]].poll()}"
            raise RunError(f"rank {failed[0]} of the convergence run failed: {cause}")
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()


def _start(directory: Path, rank: int) -> subprocess.Popen[bytes]:
    with (directory / f"rank{rank}.log").open("wb") as log:
        return subprocess.Popen(  # noqa: S603 - our own module, no shell
            [sys.executable, "-m", PROCESS, str(directory), str(rank)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=worker_environment(),
            cwd=directory,
            start_new_session=True,
        )


def _collect(directory: Path, workers: int, phases: int) -> list[MeasuredPhase]:
    parts = [
        json.loads((directory / f"part.{rank}.json").read_text())["phases"] for rank in range(workers + 1)
    ]
    return [_phase([part[number] for part in parts]) for number in range(phases)]


def _phase(parts: list[dict[str, Any]]) -> MeasuredPhase:
    *workers, server = parts
    pulls = [seconds for worker in workers for seconds in worker["pull_s"]]
    return MeasuredPhase(
        times_s=tuple(server["times_s"]),
        losses=tuple(server["losses"]),
        staleness=tuple(place - version for _, _, version, place, _ in server["updates"]),
        dropped=server["dropped"],
        compute_s=tuple(tuple(worker["compute_s"]) for worker in workers),
        message_s=float(np.median(server["arrival_s"] + pulls)),
        send_s=float(np.median(server["send_s"])),
        apply_s=float(np.median(server["apply_s"])),
    )
