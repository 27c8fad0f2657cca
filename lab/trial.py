"""Plans run here in turns with calibration, and what was predicted of them from the calibration alone.

A shared machine changes its speed from minute to minute, so both are done again and again, a part at a time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from ..executor.calibrate.calibrate import Measurements
from ..sim.errors import TraincastError
from ..sim.files.writer import check_places
from ..sim.hardware.cluster import Cluster
from ..sim.plan.family import family
from ..sim.plan.plan import Plan
from ..sim.plan.synchrony import is_synchronous
from ..sim.predict.simulate import simulate
from ..sim.trace.load import beside, slowdown
from ..sim.trace.trace import Trace, merge_traces
from .calibrate import Titled, fitted, measure_round, silent
from .needs import needs

WARMUP = 2
SAMPLES = 32
"""Steps drawn with the machine's jitter, whose median is what is predicted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One plan, predicted and measured."""

    plan: Plan
    predicted: Trace
    """On the machine as it was calibrated."""
    measured: Trace

    @property
    def expected(self) -> Trace:
        """The prediction for the cores that were left while the plan ran, and for their speed."""
        return beside(self.predicted, self.measured)

    @property
    def family(self) -> str:
        return family(self.plan.strategy)

    @property
    def is_synchronous(self) -> bool:
        return is_synchronous(self.plan.strategy)

    @property
    def error_pct(self) -> float:
        """Of the step time, expected over measured."""
        return 100 * (self.expected.step_time_s / self.measured.step_time_s - 1)

    @property
    def told_s(self) -> float:
        """The measured step time, told for the speed of the calibration and cores that nobody else takes."""
        return self.measured.step_time_s / slowdown(self.predicted, self.measured)

    @property
    def untold_error_pct(self) -> float:
        """The same of the prediction that knows nothing of what the machine did meanwhile."""
        return 100 * (self.predicted.step_time_s / self.measured.step_time_s - 1)

    @property
    def memory_error_pct(self) -> float:
        """Of the peak of the fullest rank."""
        predicted, measured = (max(t.peak_memory_bytes.values()) for t in (self.predicted, self.measured))
        return 100 * (predicted / measured - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """What some turns of calibration and runs gave."""

    cluster: Cluster
    measurements: tuple[Measurements, ...]
    tried: tuple[Tried, ...]
    failed: dict[str, str] = field(default_factory=dict)
    """By label of a plan that did not run: why."""

    @property
    def regret_pct(self) -> float:
        """How much slower the plan predicted fastest is than the fastest measured, of those whose steps are
        one update with the gradients of the whole batch: each told for the machine as it was calibrated."""
        alike = [one for one in self.tried if one.is_synchronous]
        first = min(alike, key=lambda one: one.predicted.step_time_s)
        return 100 * (first.told_s / min(one.told_s for one in alike) - 1)


def take_turns(
    plans: Sequence[Plan],
    *,
    rounds: int,
    steps: int,
    ranks: int = 0,
    minutes: float = float("inf"),
    before: Sequence[Measurements] = (),
    seed: int = 0,
    directory: Path | None = None,
    progress: Titled = silent,
    announce: Callable[[str], None] = lambda text: None,
    alongside: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Turns:
    """Calibrate for ``plans`` and run each ``steps`` steps, ``rounds`` times over; no round begins that would
    not end within ``minutes``. What was measured ``before`` counts for predictions too. Logs of ranks go to
    ``directory``. ``alongside`` holds while plans run, not while the machine is calibrated.

    Raises:
        RunError: a process of the calibration died or raised.
    """
    wanted, began = needs(plans), time.monotonic()
    measurements = list(before)
    runs: dict[int, list[Trace]] = {number: [] for number in range(len(plans))}
    failed: dict[str, str] = {}
    for turn in range(rounds):
        spent_s = time.monotonic() - began
        if turn and spent_s * (turn + 1) / turn > minutes * 60:
            break
        measurements.append(measure_round(wanted, turn, rounds, progress))
        announce(f"turn {turn + 1} of at most {rounds}: {len(plans) - len(failed)} plans")
        with alongside():
            for number, plan in enumerate(plans):
                label = plan.strategy.label
                if label in failed:
                    continue
                try:
                    title = f"{number + 1}/{len(plans)} {label}"
                    runs[number].append(run_plan(plan, steps, directory, seed, progress, title))
                except TraincastError as error:
                    failed[label] = str(error)
                    announce(f"{label} did not run: {error}")
    cluster = fitted(measurements, max([ranks, *(plan.world_size for plan in plans)]))
    tried = [
        Tried(
            plan=plan,
            predicted=simulate(plan, cluster, samples=SAMPLES, seed=seed),
            measured=merge_traces(runs[number]),
        )
        for number, plan in enumerate(plans)
        if plan.strategy.label not in failed
    ]
    return Turns(cluster=cluster, measurements=tuple(measurements), tried=tuple(tried), failed=failed)


def run_plan(
    plan: Plan, steps: int, directory: Path | None, seed: int, progress: Titled = silent, title: str = ""
) -> Trace:
    """Execute one plan for real; logs of its ranks go to ``directory``. Progress has ``title``, or the plan's
    label."""
    from ..executor.run.launcher import execute

    name = plan.strategy.label.replace(" ", "-")
    if directory is not None:
        logs = [f"logs/{name}/rank{rank}.log" for rank in range(plan.world_size)]
        check_places(directory, logs, replaces=logs)
    with progress(title or plan.strategy.label) as say:
        return execute(
            plan,
            steps=steps,
            warmup=WARMUP,
            out_dir=None if directory is None else directory / "logs" / name,
            seed=seed,
            timeout_s=60,
            on_progress=say,
        )


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which a ``share`` of ``values`` lie."""
    ordered = sorted(values)
    return statistics.quantiles(ordered, n=100, method="inclusive")[round(share * 100) - 1]
