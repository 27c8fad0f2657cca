"""End to end on this machine: calibrate, rank, run the best of each kind, compare.

Calibration and measurement take turns, since a shared machine changes its speed from minute to minute;
predictions come from the calibration alone, never from the runs that judge them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..executor.calibrate.calibrate import Measurements, merge
from ..sim.api.inputs import ModelLike
from ..sim.display import draw
from ..sim.files.writer import check_places
from ..sim.hardware.cluster import Cluster
from ..sim.plan.job import Job
from ..sim.plan.plan import Plan
from ..sim.plan.strategy import Strategy
from ..sim.predict.prediction import Prediction
from ..sim.search.accuracy import Accuracy, accuracy_of
from ..sim.search.found import Search
from ..sim.search.planner import search
from ..sim.search.result import write_result
from ..sim.search.result_layout import prepare_directory
from ..sim.search.space import strategies
from ..sim.trace.trace import Trace, merge_traces
from .calibrate import Titled, fitted, measure_round, silent
from .needs import needs, usual_needs

MICRO_BATCHES = (1, 2, 4, 8, 16)
"""Sizes whose layers are profiled."""
FIRST_S = 10.0
"""Seconds in which layers are profiled before anything is ranked."""
TOP = 10
"""Best plans that are written, whether they were run or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstration:
    """What was predicted and what was measured of it."""

    search: Search
    measured: dict[int, Trace]
    """By place in the ranking."""
    result: dict[str, Any]
    """What result.json holds."""

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
    rounds: int = 3,
    minutes: float = 6.5,
    steps: int = 8,
    output: str | os.PathLike[str] = "out",
    force: bool = False,
    seed: int = 0,
    progress: Titled = silent,
    announce: Callable[[str], None] = lambda text: None,
) -> Demonstration:
    """Calibrate this machine, rank the ways to train ``model`` on it, run the best of each kind, compare.

    ``ranks`` are processes at most; ``rounds`` are turns of calibration and runs, of which none begins that
    would not end within ``minutes``; each run measures ``steps`` steps. All is written to ``output``. Needs
    torch, and some minutes.

    >>> import traincast as tc
    >>> tc.demo(output="out").accuracy.median_abs_pct  # doctest: +SKIP
    3.4

    Raises:
        UsageError: ``output`` holds results and ``force`` is not given, or cannot be written.
        RunError, HangError: a run failed.
    """
    directory = Path(output)
    job = Job(model, global_batch=global_batch, seq_len=seq_len, precision="fp32")
    prepare_directory(directory, force, plans=TOP, measured=True)
    sizes = tuple(size for size in MICRO_BATCHES if size <= global_batch)
    began = time.monotonic()
    usual = usual_needs([job.model], seq_len, sizes, range(2, ranks + 1))
    measurements = [measure_round(usual, 0, 1, progress, seconds=FIRST_S)]
    chosen = choose(rank(job, fitted(measurements, ranks), seed, progress))
    wanted = needs(chosen)
    announce(f"running {len(chosen)} plans, {steps} steps each in up to {rounds} turns")
    runs: dict[Strategy, list[Trace]] = {plan.strategy: [] for plan in chosen}
    for number in range(rounds):
        turns_s = time.monotonic() - began
        if number and turns_s * (number + 1) / number > minutes * 60:
            break
        if number:
            measurements.append(measure_round(wanted, number, rounds, progress))
        for plan in chosen:
            runs[plan.strategy].append(run_plan(plan, steps, directory, seed, progress))
    found = rank(job, fitted(measurements, ranks), seed, progress)
    return _written(directory, found, runs, measurements, seed=seed, force=force)


def _written(
    directory: Path,
    found: Search,
    runs: dict[Strategy, list[Trace]],
    measurements: list[Measurements],
    *,
    seed: int,
    force: bool,
) -> Demonstration:
    """Join the prediction with what was measured, and write both."""
    found.plans = keep(found, runs)
    measured = {
        place: merge_traces(runs[one.plan.strategy])
        for place, one in enumerate(found.plans)
        if one.plan.strategy in runs
    }
    result = write_result(
        directory,
        found,
        seed=seed,
        measured=measured,
        measurements=merge(measurements).to_dict(),
        page=lambda results, path: draw("page", results, path),
        force=force,
    )
    return Demonstration(search=found, measured=measured, result=result)


def rank(job: Job, cluster: Cluster, seed: int, progress: Titled) -> Search:
    """Every strategy that the demo shows, simulated."""
    space = [strategy for strategy in strategies(job, cluster) if is_shown(strategy, job)]
    with progress("plan") as say:
        return search(job, cluster, space, top=len(space), seed=seed, progress=say)


def is_shown(strategy: Strategy, job: Job) -> bool:
    """What runs here and has a point: several workers to a server, several micro-batches to a pipeline."""
    if strategy.tp > 1 or strategy.recompute != "none" or (strategy.servers and strategy.dp == 1):
        return False
    return strategy.pp == 1 or strategy.micro_batches(job) > 1


def kind(strategy: Strategy) -> tuple:
    """What kind of strategy it is: the best of each kind is run."""
    schedule = strategy.schedule if strategy.pp > 1 else ""
    exchange = (strategy.gradient_exchange, strategy.synchrony) if strategy.dp > 1 else ()
    return (strategy.dp > 1, strategy.pp > 1, schedule, exchange)


def choose(found: Search) -> list[Plan]:
    """The best plan of each kind, in order of rank."""
    best: dict[tuple, Plan] = {}
    for one in found.plans:
        best.setdefault(kind(one.plan.strategy), one.plan)
    return list(best.values())


def keep(found: Search, runs: dict[Strategy, list[Trace]]) -> list[Prediction]:
    """The ten best plans and all that were run."""
    return [one for place, one in enumerate(found.plans) if place < TOP or one.plan.strategy in runs]


def run_plan(plan: Plan, steps: int, output: Path, seed: int, progress: Titled = silent) -> Trace:
    """Execute one plan for real."""
    from ..executor.run.launcher import execute

    name = plan.strategy.label.replace(" ", "-")
    logs = [f"logs/{name}/rank{rank}.log" for rank in range(plan.world_size)]
    check_places(output, logs, replaces=logs)
    with progress(plan.strategy.label) as say:
        return execute(
            plan,
            steps=steps,
            warmup=2,
            out_dir=output / "logs" / name,
            seed=seed,
            timeout_s=60,
            on_progress=say,
        )
