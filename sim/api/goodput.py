"""Failures, the best interval between checkpoints, and the share of time that trains, of one machine."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..display import Shown
from ..errors import UsageError
from ..hardware.cluster import Cluster
from ..memory.parameters import state_bytes
from ..plan.plan import Plan
from ..plan.strategy import Strategy
from ..predict.simulate import simulate
from ..reliability.failures import DAY_S, Failures
from ..reliability.goodput import Goodput, Training, study, time_to_train
from ..reliability.long_run import QUANTILES, Runs, time_quantiles_s
from ..units import parse_quantity
from . import inputs
from .inputs import ClusterLike, check_counts, check_numbers
from .plans import PlanLike, plan_on

if TYPE_CHECKING:
    from pandas import DataFrame

SIMULATED_STEPS = 32
"""Samples of the step time where a model or plan gives it."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class LongTraining(Shown):
    """What becomes of a training's time on a cluster."""

    cluster: Cluster
    training: Training
    found: Goodput
    ends: Runs | None = None
    """Runs to the end of the steps that were asked about."""

    def __repr__(self) -> str:
        share, saved = self.found.quantile(0.5), f"saved every {self.found.interval_s:.0f} s"
        return f"LongTraining({self.accelerators:,} accelerators: goodput {share:.1%}, {saved})"

    @property
    def accelerators(self) -> int:
        return self.training.nodes * self.training.accelerators_per_node

    @property
    def goodput(self) -> dict[str, float]:
        """Share of time that trains: p5, p50 and p95 of the drawn runs."""
        return {name: self.found.quantile(q) for name, q in QUANTILES.items()}

    @property
    def time_to_train_s(self) -> dict[str, float] | None:
        """Seconds until the steps are done; None where none were asked about."""
        return None if self.ends is None else time_quantiles_s(self.ends)

    def frame(self) -> DataFrame:
        """Goodput against the interval between checkpoints."""
        from pandas import DataFrame

        return DataFrame(self._curve())

    def _curve(self) -> list[dict[str, float]]:
        return [
            {"interval_s": p.interval_s, "p5": p.p5, "p50": p.p50, "p95": p.p95, "expected": p.expected}
            for p in self.found.curve
        ]

    def to_dict(self) -> dict[str, Any]:
        """What `goodput --json` prints; null where a number is infinite."""
        training, found = self.training, self.found
        result: dict[str, Any] = {
            "schema": "traincast.goodput/1",
            "nodes": training.nodes,
            "accelerators": self.accelerators,
            "horizon_s": training.horizon_s,
            "mtbf_s": _finite(found.mtbf_s),
            "failures_expected": {**found.failures, "total": sum(found.failures.values())},
            "interval_s": {
                "young": _finite(found.young_s),
                "daly": _finite(found.daly_s),
                "simulated": found.simulated_s,
                "used": found.interval_s,
            },
            "goodput": self.goodput,
            "lost_share": found.runs.shares(),
            "curve": self._curve(),
        }
        return result if self.ends is None else {**result, "time_to_train_s": self.time_to_train_s}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def goodput(
    cluster: ClusterLike,
    what: PlanLike | None = None,
    strategy: Strategy | None = None,
    *,
    step_time: float | str | None = None,
    days: float = 54.0,
    steps: int | None = None,
    interval: float | str | None = None,
    samples: int = 500,
    seed: int = 0,
    mtbf: float | str | None = None,
    checkpoint: float | str | None = None,
    checkpoint_stall: float | str | None = None,
    shape: float | None = None,
    detection: float | str | None = None,
    restart: float | str | None = None,
    repair: float | str | None = None,
    spare_nodes: int | None = None,
    schedule_csv: str | os.PathLike[str] | None = None,
    **fields: Any,
) -> LongTraining:
    """How often to save on ``cluster``, and what failures leave of the time, over ``days``.

    A step takes ``step_time``, or as long as ``what`` (a plan, job or model, as in `simulate`) is predicted
    to. Times are seconds or texts with a unit. ``mtbf`` is one accelerator's with all that goes with it;
    ``interval`` is the training between checkpoints, the best one where not given. What is said neither here
    nor in the cluster's file is as published for the largest runs.

    >>> import traincast as tc
    >>> cluster = tc.cluster("hgx-h100", nodes=2048)
    >>> found = tc.goodput(cluster, step_time="10 s", days=54, samples=50)
    >>> 0.9 < found.goodput["p50"] < 1, round(found.to_dict()["failures_expected"]["total"])
    (True, 419)

    Raises:
        InputError: times that are not sensible, or as `simulate`.
        UsageError: not exactly one of ``what`` and ``step_time``.
    """
    if (step_time is None) == (what is None):
        raise UsageError("one of MODEL, PLAN and --step-time says how long a step takes")
    check_counts(1, samples=samples, steps=steps)
    check_counts(0, seed=seed, spare_nodes=spare_nodes)
    check_numbers(days=days, shape=shape)
    machine, plan = inputs.cluster(cluster), None
    times, nodes = (_seconds(step_time) or 0.0,), machine.nodes
    if what is not None:
        plan = plan_on(machine, what, strategy, schedule_csv=schedule_csv, **fields)
        times = simulate(plan, machine, samples=SIMULATED_STEPS, seed=seed).step_times_s
        nodes = math.ceil(plan.world_size / machine.accelerators_per_node)
    changes = {
        "checkpoint_stall_s": _seconds(checkpoint_stall),
        "shape": shape,
        "detection_s": _seconds(detection),
        "restart_s": _seconds(restart),
        "repair_s": _seconds(repair),
        "spare_nodes": spare_nodes,
    }
    training = Training(
        failures=_failures(machine, plan, _seconds(mtbf), _seconds(checkpoint), changes),
        nodes=nodes,
        accelerators_per_node=machine.accelerators_per_node,
        step_times_s=tuple(times),
        horizon_s=days * DAY_S,
        samples=samples,
        seed=seed,
    )
    found = study(training, _seconds(interval))
    ends = time_to_train(training, steps, found.interval_s) if steps else None
    return LongTraining(cluster=machine, training=training, found=found, ends=ends)


def _seconds(value: float | str | None) -> float | None:
    seconds = parse_quantity(value, "time") if isinstance(value, str) else value
    if seconds is not None and seconds < 0:
        raise UsageError(f"{value} is negative")
    return seconds


def _failures(
    cluster: Cluster,
    plan: Plan | None,
    mtbf_s: float | None,
    checkpoint_s: float | None,
    changes: dict[str, Any],
) -> Failures:
    """The cluster's failures, or the published ones, with what is said otherwise."""
    failures = cluster.failures or Failures()
    if plan is not None and failures.storage_bandwidth:
        failures = replace(failures, checkpoint_s=checkpoint_bytes(plan) / failures.storage_bandwidth)
    if mtbf_s is not None:
        failures = replace(
            failures,
            accelerator_mtbf_s=mtbf_s,
            node_mtbf_s=0.0,
            switch_mtbf_s=0.0,
            software_mtbf_s=0.0,
        )
    if checkpoint_s is not None:
        failures = replace(failures, checkpoint_s=checkpoint_s, checkpoint_stall_s=checkpoint_s)
    return replace(failures, **{name: value for name, value in changes.items() if value is not None})


def checkpoint_bytes(plan: Plan) -> float:
    """Bytes of one checkpoint: every parameter's weight and optimizer states, once."""
    weight, _, states = state_bytes(plan.job)
    return plan.job.model.parameters * (weight + states)
