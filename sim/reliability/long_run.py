"""A job of days to months among failures: steps, checkpoints and recoveries, for many samples at once.

Training does steps; after every so many it stands still for a checkpoint, which may be written on in the
background and counts once that is done. A failure throws the job back to the last checkpoint that counts: it
is detected, waited out until a healthy node is there, the job starts again. A failure during recovery begins
the recovery anew. All arithmetic is in whole microseconds and therefore exact: from failure to failure whole
cycles of steps and checkpoint are divided, not counted; still the sums are those of `long_run_reference.py`,
which counts them one by one, to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from ..errors import InputError
from .failures import TICK_S, Failures, FailureTimes, spare_nodes, ticks


@dataclass(frozen=True, slots=True, kw_only=True)
class LongJob:
    """What is done between failures, and after one. Times in seconds."""

    step_s: float | tuple[float, ...]
    """Seconds of one step: the same for all runs, or one for each. A prediction that errs, errs for all steps
    of a run; the jitter of single steps averages out over the thousands of a run."""
    interval_steps: int
    """Steps from checkpoint to checkpoint."""
    stall_s: float
    """For how long a checkpoint stops training."""
    write_s: float = 0.0
    """For how long it is then written in the background before it counts; 0 where writing blocks."""
    detection_s: float = 0.0
    restart_s: float = 0.0
    repair_s: float = 0.0
    spare_nodes: int = 0
    """Healthy nodes at the start that stand in for broken ones; with none a repair is waited for."""
    steps: int | None = None
    """Where the job ends; None trains for as long as the failures reach."""


CAUSES = ("checkpoint", "lost", "detection", "waiting", "restart")
"""What time goes to that is not useful steps, as `Runs` names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """What became of each sample, int64[samples]; times in ticks of `TICK_S`.

    ``wall = useful + checkpoint + lost + detection + waiting + restart``, exactly.
    """

    wall: np.ndarray
    useful: np.ndarray
    """Steps that were not done again."""
    checkpoint: np.ndarray
    """Training stood still for checkpoints that were kept."""
    lost: np.ndarray
    """Work since the last checkpoint that counted, when a failure came."""
    detection: np.ndarray
    waiting: np.ndarray
    """For a node to be repaired, where no spare was left."""
    restart: np.ndarray
    steps: np.ndarray
    """Whole steps that were kept."""
    failures: np.ndarray
    """Failures during the run."""
    finished: np.ndarray
    """bool: the run made all its steps before the failures' horizon."""

    @property
    def goodput(self) -> np.ndarray:
        """float64[samples]: share of the wall time that went to steps that were kept."""
        return self.useful / np.maximum(self.wall, 1)

    def seconds(self, name: str) -> np.ndarray:
        """One of the times in seconds, float64[samples]."""
        return getattr(self, name) * TICK_S

    def shares(self) -> dict[str, float]:
        """By cause: its mean share of the wall time."""
        whole = max(int(self.wall.sum()), 1)
        return {cause: float(getattr(self, cause).sum() / whole) for cause in CAUSES}


def long_job(
    failures: Failures,
    nodes: int,
    step_s: float | Sequence[float],
    interval_s: float,
    *,
    steps: int | None = None,
) -> LongJob:
    """A job on ``nodes`` nodes that checkpoints every ``interval_s`` seconds of training.

    The interval is rounded to whole steps, and no shorter than a checkpoint is written in the background.
    """
    pace = step_s if isinstance(step_s, int | float) else tuple(step_s)
    stall = min(failures.checkpoint_stall_s, failures.checkpoint_s)
    write = failures.checkpoint_s - stall
    least = math.ceil(round(write / float(np.min(pace)), 9))
    return LongJob(
        step_s=pace,
        interval_steps=max(1, least, round(interval_s / float(np.median(pace)))),
        stall_s=stall,
        write_s=write,
        detection_s=failures.detection_s,
        restart_s=failures.restart_s,
        repair_s=failures.repair_s,
        spare_nodes=spare_nodes(failures, nodes),
        steps=steps,
    )


def play(job: LongJob, times: FailureTimes) -> Runs:
    """Play ``job`` through every row of ``times``.

    Raises:
        InputError: a time is not sensible, or a checkpoint is still being written when the next is due.
    """
    state = _State(whole(job, len(times.ticks)), times.until, len(times.ticks))
    for column in range(times.ticks.shape[1]):
        if not state.running.any():
            break
        state.until_failure(times.ticks[:, column], times.takes_node[:, column])
    return Runs(**{f.name: getattr(state, f.name) for f in fields(Runs)})


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeJob:
    """A `LongJob` in ticks, one step time a sample."""

    step: np.ndarray
    interval_steps: int
    stall: int
    write: int
    detection: int
    restart: int
    repair: int
    spare_nodes: int
    steps: int | None


def whole(job: LongJob, samples: int) -> WholeJob:
    """``job`` in whole ticks, checked.

    Raises:
        InputError: as `play`.
    """
    paces = (job.step_s,) if isinstance(job.step_s, int | float) else job.step_s
    step = np.array([ticks(pace, "step time") for pace in paces], dtype=np.int64)
    if step.size not in (1, samples):
        raise InputError(f"{step.size} step times for {samples} runs; expected one, or one for each")
    if job.steps is not None and job.steps < 1:
        raise InputError(f"{job.steps} steps; expected at least 1")
    if step.min() < 1 or job.interval_steps < 1:
        found = f"step of {int(step.min())} us, checkpoint every {job.interval_steps} steps"
        raise InputError(f"{found}; expected at least 1 of both")
    write = ticks(job.write_s, "checkpoint writing time")
    if write > job.interval_steps * int(step.min()):
        train_s = job.interval_steps * int(step.min()) * TICK_S
        raise InputError(
            f"a checkpoint is written for {job.write_s:g} s, but the next is due after {train_s:g} s of steps"
        )
    return WholeJob(
        step=np.broadcast_to(step, (samples,)),
        interval_steps=job.interval_steps,
        stall=ticks(job.stall_s, "checkpoint stall"),
        write=write,
        detection=ticks(job.detection_s, "detection time"),
        restart=ticks(job.restart_s, "restart time"),
        repair=ticks(job.repair_s, "repair time"),
        spare_nodes=job.spare_nodes,
        steps=job.steps,
    )


class _State:
    """All samples side by side, each just after its last failure. Arrays are indexed by sample."""

    def __init__(self, job: WholeJob, until: int, samples: int):
        self.job, self.until = job, until
        self.wall, self.useful, self.steps, self.failures = np.zeros((4, samples), dtype=np.int64)
        self.checkpoint, self.lost = np.zeros((2, samples), dtype=np.int64)
        self.detection, self.waiting, self.restart = np.zeros((3, samples), dtype=np.int64)
        self.finished = np.zeros(samples, dtype=bool)
        self.running = np.ones(samples, dtype=bool)
        # The recovery under way: failed, detected, node there, training again.
        self.failed, self.detected, self.healthy, self.resumed = np.zeros((4, samples), dtype=np.int64)
        # Ticks at which each spare node is healthy; the last column is the node that has just failed.
        self.spares = np.zeros((samples, job.spare_nodes + 1), dtype=np.int64)
        self.cycle = job.interval_steps * job.step + job.stall

    def until_failure(self, moments: np.ndarray, takes_node: np.ndarray) -> None:
        """Go on from the last failure to the next, at ``moments``, or to the end."""
        end = np.minimum(moments, self.until)
        trained = np.maximum(end - self.resumed, 0)
        done = self.running & self._finishes(trained)
        end = np.where(done, self.resumed + self._needed(), end)
        self._account_recovery(end)
        failed = self.running & ~done & (moments < self.until)
        self._account_failed(failed, trained)
        self._account_finished(done)
        self._account_ended(self.running & ~done & ~failed, trained)
        self.wall = np.where(self.running, end, self.wall)
        self.finished |= done
        self.failures += failed
        self.running = failed
        self._recover(end, failed, failed & takes_node)

    def _needed(self) -> np.ndarray:
        """Ticks of training to the last step; after it no checkpoint is awaited."""
        left = (self.job.steps or 0) - self.steps
        return left * self.job.step + (np.maximum(left - 1, 0) // self.job.interval_steps) * self.job.stall

    def _finishes(self, trained: np.ndarray) -> np.ndarray:
        if self.job.steps is None:
            return np.zeros(len(trained), dtype=bool)
        return self._needed() <= trained

    def _account_recovery(self, end: np.ndarray) -> None:
        """Share out the time from the last failure until training went on, or until ``end``."""
        run = self.running
        self.detection += run * (np.minimum(end, self.detected) - self.failed)
        self.waiting += run * np.maximum(np.minimum(end, self.healthy) - self.detected, 0)
        self.restart += run * np.maximum(np.minimum(end, self.resumed) - self.healthy, 0)

    def _account_failed(self, rows: np.ndarray, trained: np.ndarray) -> None:
        """Keep what checkpoints hold; the rest is lost."""
        kept = rows * np.maximum((trained - self.job.write) // self.cycle, 0)
        steps = kept * self.job.interval_steps
        self.steps += steps
        self.useful += steps * self.job.step
        self.checkpoint += kept * self.job.stall
        self.lost += rows * trained - kept * self.cycle

    def _account_finished(self, rows: np.ndarray) -> None:
        if self.job.steps is None:
            return
        left = rows * (self.job.steps - self.steps)
        self.checkpoint += rows * (self._needed() - (self.job.steps - self.steps) * self.job.step)
        self.steps += left
        self.useful += left * self.job.step

    def _account_ended(self, rows: np.ndarray, trained: np.ndarray) -> None:
        """The horizon is no failure: what is done by then is kept, a step half done counts by half."""
        job = self.job
        cycles, rest = np.divmod(trained, self.cycle)
        stalled = cycles * job.stall + np.maximum(rest - job.interval_steps * job.step, 0)
        steps = cycles * job.interval_steps + np.minimum(rest // job.step, job.interval_steps)
        self.steps += rows * steps
        self.checkpoint += rows * stalled
        self.useful += rows * (trained - stalled)

    def _recover(self, moment: np.ndarray, failed: np.ndarray, takes_node: np.ndarray) -> None:
        """Begin a recovery of the rows that ``failed`` at ``moment``."""
        healthy = np.maximum(self.healthy, moment + self.job.detection)
        node_there = self._replaced(moment, takes_node)
        healthy = np.where(takes_node, np.maximum(healthy, node_there), healthy)
        self.failed = np.where(failed, moment, self.failed)
        self.detected = np.where(failed, moment + self.job.detection, self.detected)
        self.healthy = np.where(failed, healthy, self.healthy)
        self.resumed = np.where(failed, healthy + self.job.restart, self.resumed)

    def _replaced(self, moment: np.ndarray, takes_node: np.ndarray) -> np.ndarray:
        """When a healthy node stands in: the spare that is healthy first, or the broken one itself."""
        rows = np.flatnonzero(takes_node)
        there = np.zeros(len(moment), dtype=np.int64)
        if rows.size:
            self.spares[rows, -1] = moment[rows] + self.job.repair
            first = self.spares[rows].argmin(axis=1)
            there[rows] = self.spares[rows, first]
            self.spares[rows, first] = self.spares[rows, -1]
        return there


QUANTILES = {"p5": 0.05, "p50": 0.5, "p95": 0.95}


def time_quantiles_s(ends: Runs) -> dict[str, float]:
    """Seconds until the last step, over the runs: quantiles and mean."""
    walls = ends.seconds("wall")
    return {"mean": float(walls.mean())} | {
        name: float(np.quantile(walls, q)) for name, q in QUANTILES.items()
    }
