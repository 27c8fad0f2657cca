"""End to end on this machine: calibrate, rank, run the best of each family, compare.

Calibration and measurement take turns, since a shared machine changes its speed from minute to minute;
predictions come from the calibration alone, never from the runs that judge them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..executor.calibrate.calibrate import merge
from ..sim.api.inputs import ModelLike
from ..sim.display import draw
from ..sim.errors import RunError
from ..sim.hardware.cluster import Cluster
from ..sim.plan.job import Job
from ..sim.plan.strategy import Strategy
from ..sim.search.accuracy import Accuracy, accuracy_of
from ..sim.search.found import Search, in_rank
from ..sim.search.planner import search
from ..sim.search.result import write_result
from ..sim.search.result_layout import prepare_directory
from ..sim.trace.trace import Trace
from .calibrate import Titled, fitted, measure_round, silent
from .choice import choose, runnable
from .families import ways
from .needs import usual_needs
from .trial import Turns, take_turns

FIRST_S = 10.0
"""Seconds in which layers are profiled before anything is ranked."""
TOP = 10
"""Best plans, synchronous and asynchronous, that are written whether they were run or not."""
NOT_HERE = "cannot run here"
"""The rule that refuses what the executor cannot do on this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstration:
    """What was predicted and what was measured of it."""

    search: Search
    measured: dict[int, Trace]
    """By place in the ranking."""
    result: dict[str, Any]
    """What result.json holds."""
    failed: dict[str, str] = field(default_factory=dict)
    """By label of a plan that did not run: why."""

    @property
    def accuracy(self) -> Accuracy:
        """How far off the predictions were."""
        return accuracy_of(self.search.plans, self.measured)


def demo(
    model: ModelLike = "tiny-llama-bytes",
    *,
    global_batch: int = 16,
    seq_len: int = 128,
    ranks: int = 4,
    plans: int = 16,
    rounds: int = 3,
    minutes: float = 6.5,
    steps: int = 8,
    output: str | os.PathLike[str] = "out",
    force: bool = False,
    seed: int = 0,
    progress: Titled = silent,
    announce: Callable[[str], None] = lambda text: None,
) -> Demonstration:
    """Calibrate this machine, rank the ways to train ``model`` on it, run the best of each family, compare.

    ``ranks`` are processes at most; ``plans`` are how many are run, the most different families first;
    ``rounds`` are turns of calibration and runs, of which none begins that would not end within ``minutes``;
    each run measures ``steps`` steps. All is written to ``output``. Needs torch, and some minutes.

    >>> import traincast as tc
    >>> tc.demo(output="out").accuracy.median_abs_pct  # doctest: +SKIP
    3.4

    Raises:
        UsageError: ``output`` holds results and ``force`` is not given, or cannot be written.
        RunError: a process of the calibration died, or none of the plans ran.
    """
    directory = Path(output)
    job = Job(model, global_batch=global_batch, seq_len=seq_len, precision="fp32")
    prepare_directory(directory, force, plans=2 * TOP + plans, measured=True)
    began = time.monotonic()
    every = ways(job, ranks)
    with progress("what runs here") as say:
        space = runnable(job, every, say)
    sizes = sorted({strategy.micro_batch for strategy in space})
    usual = usual_needs([job.model], seq_len, sizes, range(2, ranks + 1))
    first = measure_round(usual, 0, 1, progress, seconds=FIRST_S, visits=1)
    ranked = rank(job, fitted([first], ranks), space, len(space), seed, progress, samples=1)
    chosen = choose((one.plan for one in ranked.plans), plans)
    announce(f"running {len(chosen)} of {len(space)} plans, {steps} steps each in up to {rounds} turns")
    turns = take_turns(
        chosen,
        rounds=rounds,
        steps=steps,
        ranks=ranks,
        minutes=minutes - (time.monotonic() - began) / 60,
        before=[first],
        seed=seed,
        directory=directory,
        progress=progress,
        announce=announce,
    )
    if not turns.tried:
        raise RunError("no plan ran: " + "; ".join(f"{label}: {why}" for label, why in turns.failed.items()))
    found = rank(job, turns.cluster, space, TOP, seed, progress)
    if left_out := len(every) - len(space):
        found.considered += left_out
        found.refusals[NOT_HERE] += left_out
    ran = [one.plan.strategy for one in turns.tried]
    predicted = rank(job, turns.cluster, ran, len(ran), seed, progress).plans
    best = [one for one in found.plans if one.plan.strategy not in ran]
    found.plans = in_rank([*best, *predicted])
    return _written(directory, found, turns, seed=seed, force=force)


def rank(
    job: Job,
    cluster: Cluster,
    space: Sequence[Strategy],
    top: int,
    seed: int,
    progress: Titled,
    samples: int = 32,
) -> Search:
    """The ``top`` best of ``space``, with progress."""
    with progress("plan") as say:
        return search(job, cluster, space, top=top, samples=samples, seed=seed, progress=say)


def _written(directory: Path, found: Search, turns: Turns, *, seed: int, force: bool) -> Demonstration:
    """Join the predictions with what was measured, and write both."""
    runs = {one.plan.strategy: one.measured for one in turns.tried}
    measured = {
        place: runs[one.plan.strategy] for place, one in enumerate(found.plans) if one.plan.strategy in runs
    }
    result = write_result(
        directory,
        found,
        seed=seed,
        measured=measured,
        failed=turns.failed,
        measurements=merge(turns.measurements).to_dict(),
        page=lambda results, path: draw("page", results, path),
        force=force,
    )
    return Demonstration(search=found, measured=measured, result=result, failed=turns.failed)
