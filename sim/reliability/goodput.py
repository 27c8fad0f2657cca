"""How often to save, and what share of the time trains: closed forms, and the same by simulated runs.

Young and Daly take failures as exponential and checkpoints as blocking. The simulation takes neither: it
plays `long_run.py` through drawn failures, the same ones for every interval, and looks for the interval
that leaves the most useful steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..errors import InputError
from ..variability.random_streams import Stream, uniforms
from .failures import Failures, FailureTimes, draw_failures, machine, mtbf_by_kind_s, system_mtbf_s
from .long_run import Runs, long_job, play

CURVE_POINTS = 25
CURVE_REACH = 16.0
"""The curve of goodput goes from Young's interval over this to so many times of it."""

MAX_STRETCH = 100.0
"""A job that would take so many times as long as its steps does not end in practice."""

GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


def young_interval_s(checkpoint_s: float, mtbf_s: float) -> float:
    """Seconds of work between checkpoints that lose least, to first order: sqrt(2 C M).

    Young 1974, "A first order approximation to the optimum checkpoint interval". ``checkpoint_s`` is how
    long one stops the work, ``mtbf_s`` the mean time between failures of the whole machine.
    """
    _positive(checkpoint_s, mtbf_s)
    return math.sqrt(2.0 * checkpoint_s * mtbf_s)


def daly_interval_s(checkpoint_s: float, mtbf_s: float) -> float:
    """The same to higher order (Daly 2006, "A higher order estimate of the optimum checkpoint interval for
    restart dumps", eq. 37): sqrt(2 C M) (1 + x / 3 + x^2 / 9) - C with x = sqrt(C / 2M), or M where C >= 2M.
    """
    _positive(checkpoint_s, mtbf_s)
    if checkpoint_s >= 2.0 * mtbf_s:
        return mtbf_s
    if math.isinf(mtbf_s):
        return math.inf
    x = math.sqrt(checkpoint_s / (2.0 * mtbf_s))
    return young_interval_s(checkpoint_s, mtbf_s) * (1.0 + x / 3.0 + x * x / 9.0) - checkpoint_s


def expected_wall_s(
    work_s: float, interval_s: float, checkpoint_s: float, mtbf_s: float, restart_s: float
) -> float:
    """Expected seconds for ``work_s`` of steps: M exp(R / M) (exp((tau + C) / M) - 1) work / tau.

    Daly's complete model (2006): failures come while working, saving and restarting alike.
    ``restart_s`` is all that follows a failure before work goes on. Infinite where numbers overflow.
    """
    _positive(checkpoint_s, mtbf_s)
    if math.isinf(mtbf_s):
        return work_s * (1.0 + checkpoint_s / interval_s)
    try:
        segment = mtbf_s * math.exp(restart_s / mtbf_s) * math.expm1((interval_s + checkpoint_s) / mtbf_s)
    except OverflowError:
        return math.inf
    return segment * work_s / interval_s


def expected_goodput(interval_s: float, checkpoint_s: float, mtbf_s: float, restart_s: float) -> float:
    """Expected share of useful work in a long run, by `expected_wall_s`."""
    return 1.0 / expected_wall_s(1.0, interval_s, checkpoint_s, mtbf_s, restart_s)


def _positive(checkpoint_s: float, mtbf_s: float) -> None:
    if not (checkpoint_s >= 0.0 and math.isfinite(checkpoint_s) and mtbf_s > 0.0):
        found = f"checkpoint of {checkpoint_s!r} s, mean time between failures {mtbf_s!r} s"
        raise InputError(f"{found}; expected 0 or more, and more than 0")


def best_interval_s(
    goodput: Callable[[float], float], low_s: float, high_s: float, tolerance: float = 0.01
) -> float:
    """The interval of the most ``goodput`` between two bounds, to a relative ``tolerance``.

    Golden section (Kiefer 1953) on the logarithm; ``goodput`` must rise to one summit and fall.
    """
    low, high = math.log(low_s), math.log(max(low_s, high_s))
    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_left, at_right = goodput(math.exp(left)), goodput(math.exp(right))
    while high - low > tolerance:
        if at_left >= at_right:
            high, right, at_right = right, left, at_left
            left = high - GOLDEN * (high - low)
            at_left = goodput(math.exp(left))
        else:
            low, left, at_left = left, right, at_right
            right = low + GOLDEN * (high - low)
            at_right = goodput(math.exp(right))
    return math.exp((low + high) / 2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What is trained where, for as long as one asks about."""

    failures: Failures
    nodes: int
    accelerators_per_node: int
    step_times_s: tuple[float, ...]
    """One step's seconds, or samples of its distribution; each run draws one for all its steps."""
    horizon_s: float
    """How long runs last."""
    samples: int = 500
    seed: int = 0

    @property
    def mtbf_s(self) -> float:
        """Of the whole machine; infinite where nothing fails."""
        return system_mtbf_s(self.failures, machine(self.failures, self.nodes, self.accelerators_per_node))

    @property
    def stall_s(self) -> float:
        """For how long a checkpoint stops training."""
        return min(self.failures.checkpoint_stall_s, self.failures.checkpoint_s)

    @property
    def recovery_s(self) -> float:
        """What a failure costs beside the work since the last checkpoint, to first order: what is being
        written in the background is lost as well."""
        failures = self.failures
        return failures.detection_s + failures.restart_s + failures.checkpoint_s - self.stall_s


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """Goodput at one interval: simulated quantiles and mean, and Daly's expectation."""

    interval_s: float
    p5: float
    p50: float
    p95: float
    mean: float
    expected: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Goodput:
    """What becomes of a training's time."""

    mtbf_s: float
    failures: dict[str, float]
    """Failures expected within the horizon, by kind."""
    young_s: float
    daly_s: float
    simulated_s: float
    """Interval of the most mean goodput over the drawn runs."""
    interval_s: float
    """The one that the rest is about: asked for, or `simulated_s`."""
    runs: Runs
    curve: tuple[CurvePoint, ...]

    def quantile(self, q: float) -> float:
        """Quantile ``q`` of the runs' goodput."""
        return float(np.quantile(self.runs.goodput, q))


def study(training: Training, interval_s: float | None = None) -> Goodput:
    """Goodput of ``training`` with a checkpoint every ``interval_s``, or the best interval.

    Raises:
        InputError: times that are not sensible, or more failures than can be drawn.
    """
    job = machine(training.failures, training.nodes, training.accelerators_per_node)
    times = draw_failures(
        training.failures,
        job,
        horizon_s=training.horizon_s,
        samples=training.samples,
        seed=training.seed,
    )
    low, middle, high = _bounds(training)
    best = best_interval_s(lambda s: _mean(_runs(training, times, s)), low, high)
    used = best if interval_s is None else interval_s
    points = np.geomspace(max(low, middle / CURVE_REACH), min(high, middle * CURVE_REACH), CURVE_POINTS)
    means = mtbf_by_kind_s(training.failures, job)
    return Goodput(
        mtbf_s=training.mtbf_s,
        failures={kind: training.horizon_s / mean for kind, mean in means.items()},
        young_s=young_interval_s(training.stall_s, training.mtbf_s),
        daly_s=daly_interval_s(training.stall_s, training.mtbf_s),
        simulated_s=best,
        interval_s=used,
        runs=_runs(training, times, used),
        curve=tuple(_point(training, times, float(interval)) for interval in points),
    )


def _bounds(training: Training) -> tuple[float, float, float]:
    """Least interval that can be kept, the middle of what is looked at, and the longest, in seconds."""
    step = float(np.median(training.step_times_s))
    low = max(step, training.failures.checkpoint_s - training.stall_s)
    if low > training.horizon_s:
        raise InputError(f"{training.horizon_s:g} s are too short for a step and a checkpoint of {low:g} s")
    middle = min(max(low, young_interval_s(max(training.stall_s, step), training.mtbf_s)), training.horizon_s)
    return low, middle, training.horizon_s


def _point(training: Training, times: FailureTimes, interval_s: float) -> CurvePoint:
    goodput = _runs(training, times, interval_s).goodput
    p5, p50, p95 = (float(q) for q in np.quantile(goodput, (0.05, 0.5, 0.95)))
    expected = expected_goodput(interval_s, training.stall_s, training.mtbf_s, training.recovery_s)
    return CurvePoint(
        interval_s=interval_s, p5=p5, p50=p50, p95=p95, mean=float(goodput.mean()), expected=expected
    )


def _runs(training: Training, times: FailureTimes, interval_s: float, steps: int | None = None) -> Runs:
    pace = paces(training)
    return play(long_job(training.failures, training.nodes, pace, interval_s, steps=steps), times)


def _mean(runs: Runs) -> float:
    return float(runs.goodput.mean())


def paces(training: Training) -> tuple[float, ...]:
    """Seconds of a step in each run: drawn from the step times given."""
    places = uniforms(Stream.PACE, training.seed, np.arange(training.samples), np.arange(1))[:, 0]
    return tuple(float(s) for s in np.quantile(np.array(training.step_times_s), places))


def time_to_train(training: Training, steps: int, interval_s: float) -> Runs:
    """Runs of ``steps`` steps to their end, however long that takes; ``horizon_s`` does not matter.

    Raises:
        InputError: fewer than 1 in `MAX_STRETCH` of the time would train, so the job would not end.
    """
    work = steps * max(training.step_times_s)
    stretch = expected_wall_s(1.0, interval_s, training.stall_s, training.mtbf_s, training.recovery_s)
    if stretch > MAX_STRETCH:
        raise InputError(
            f"a failure every {training.mtbf_s:.3g} s leaves less than 1 % of the time for steps with a"
            f" checkpoint every {interval_s:.3g} s; the job would not end"
        )
    horizon = 1.25 * stretch * work + 10.0 * min(training.mtbf_s, work)
    while True:
        job = machine(training.failures, training.nodes, training.accelerators_per_node)
        times = draw_failures(
            training.failures, job, horizon_s=horizon, samples=training.samples, seed=training.seed
        )
        runs = _runs(replace(training, horizon_s=horizon), times, interval_s, steps)
        if runs.finished.all():
            return runs
        horizon *= 2.0
