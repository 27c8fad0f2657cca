"""`traincast goodput`: how often to save, and what failures leave of the time."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..sim.errors import UsageError
from ..sim.hardware.cluster import Cluster
from ..sim.reliability.failures import DAY_S, Failures
from ..sim.units import parse_quantity
from .options import (
    cluster_from,
    cluster_options,
    job_options_optional,
    json_option,
    png_option,
    seed_option,
    strategy_options,
)
from .output import echo_json, note

if TYPE_CHECKING:
    from ..sim.plan.plan import Plan
    from ..sim.reliability.goodput import Goodput, Training
    from ..sim.reliability.long_run import Runs

SIMULATED_STEPS = 32
"""Samples of the step time where a model or plan gives it."""


class Time(click.ParamType):
    """A time with its unit, as seconds."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = value if isinstance(value, float) else parse_quantity(value, "time")
        if seconds < 0:
            self.fail(f"{value} is negative", param, ctx)
        return seconds


TIME = Time()


@click.command("goodput", short_help="How often to save, and what failures leave of the time.")
@click.argument("what", metavar="[MODEL|PLAN]", required=False)
@cluster_options
@click.option("--step-time", type=TIME, help="Of one step, as '10 s', where no MODEL or PLAN gives it.")
@click.option("--days", type=click.FloatRange(min=0, min_open=True), default=54.0, show_default=True)
@click.option("--steps", type=click.IntRange(min=1), help="Also say how long so many steps take.")
@click.option("--interval", type=TIME, help="Training between checkpoints.  [default: the best]")
@click.option("--checkpoint", type=TIME, help="Until a checkpoint is on storage, as '30 s'.")
@click.option("--checkpoint-stall", type=TIME, help="For how long of that training stops.  [default: all]")
@click.option("--mtbf", type=TIME, help="Of one accelerator with all that goes with it, as '5 years'.")
@click.option("--shape", type=float, help="Weibull shape of the gaps between failures; 1 is exponential.")
@click.option("--detection", type=TIME, help="Until a failure is seen and diagnosed.")
@click.option("--restart", type=TIME, help="Until training goes on after that.")
@click.option("--repair", type=TIME, help="Until a broken node is whole again.")
@click.option("--spare-nodes", type=click.IntRange(min=0), help="Healthy nodes kept aside.")
@click.option(
    "--samples", type=click.IntRange(1, 100_000), default=500, show_default=True, help="Runs drawn."
)
@png_option("Draw goodput against the interval.")
@job_options_optional
@strategy_options
@seed_option
@json_option
def command(
    what: str | None,
    cluster_name: str,
    nodes: int | None,
    interval: float | None,
    steps: int | None,
    png: Path | None,
    as_json: bool,
    **options,
) -> None:
    """Failures, the best interval between checkpoints, and the share of time that trains.

    What neither the options nor the cluster's file say of failures is as published for the largest runs.

    \b
    Example:
      traincast goodput --cluster hgx-h100 --nodes 2048 --step-time '10 s' --days 54
    """
    from ..sim.reliability.goodput import study, time_to_train

    cluster = cluster_from(cluster_name, nodes)
    training = training_from(what, cluster, options)
    found = study(training, interval)
    ends = time_to_train(training, steps, found.interval_s) if steps else None
    if png:
        draw(training, found, png, cluster.name)
        note(f"wrote {png}")
    if as_json:
        echo_json(as_dict(training, found, ends))
        return
    from ..reports.table import show
    from .tables_goodput import goodput_table

    show(goodput_table(training, found, ends, cluster.name))


def training_from(what: str | None, cluster: Cluster, options: dict) -> Training:
    """What the options ask about: step times by simulation, or as given."""
    from ..sim.reliability.goodput import Training

    given, plan = options["step_time"], None
    if (given is None) == (what is None):
        raise UsageError("one of MODEL, PLAN and --step-time says how long a step takes")
    times, nodes = (given or 0.0,), cluster.nodes
    if what is not None:
        from ..sim.predict.simulate import simulate
        from .simulate import plan_from

        plan = plan_from(what, cluster, options)
        times = simulate(plan, cluster, samples=SIMULATED_STEPS, seed=options["seed"]).step_times_s
        nodes = math.ceil(plan.world_size / cluster.accelerators_per_node)
    return Training(
        failures=failures_from(cluster, options, plan),
        nodes=nodes,
        accelerators_per_node=cluster.accelerators_per_node,
        step_times_s=tuple(times),
        horizon_s=options["days"] * DAY_S,
        samples=options["samples"],
        seed=options["seed"],
    )


def failures_from(cluster: Cluster, options: dict, plan: Plan | None) -> Failures:
    """The cluster's failures, or the published ones, with what the options change."""
    failures = cluster.failures or Failures()
    if plan is not None and failures.storage_bandwidth:
        failures = replace(failures, checkpoint_s=checkpoint_bytes(plan) / failures.storage_bandwidth)
    if options["mtbf"] is not None:
        failures = replace(
            failures,
            accelerator_mtbf_s=options["mtbf"],
            node_mtbf_s=0.0,
            switch_mtbf_s=0.0,
            software_mtbf_s=0.0,
        )
    if options["checkpoint"] is not None:
        written = options["checkpoint"]
        failures = replace(failures, checkpoint_s=written, checkpoint_stall_s=written)
    names = {
        "checkpoint_stall": "checkpoint_stall_s",
        "shape": "shape",
        "detection": "detection_s",
        "restart": "restart_s",
        "repair": "repair_s",
        "spare_nodes": "spare_nodes",
    }
    changed = {field: options[name] for name, field in names.items() if options[name] is not None}
    return replace(failures, **changed)


def checkpoint_bytes(plan: Plan) -> float:
    """Bytes of one checkpoint: every parameter's weight and optimizer states, once."""
    from ..sim.memory.parameters import state_bytes

    weight, _, states = state_bytes(plan.job)
    return plan.job.model.parameters * (weight + states)


def as_dict(training: Training, found: Goodput, ends: Runs | None) -> dict[str, object]:
    """The result as JSON; null where a number is infinite."""
    from ..sim.reliability.long_run import QUANTILES, time_quantiles_s

    result: dict[str, object] = {
        "schema": "traincast.goodput/1",
        "nodes": training.nodes,
        "accelerators": training.nodes * training.accelerators_per_node,
        "horizon_s": training.horizon_s,
        "mtbf_s": _finite(found.mtbf_s),
        "failures_expected": {**found.failures, "total": sum(found.failures.values())},
        "interval_s": {
            "young": _finite(found.young_s),
            "daly": _finite(found.daly_s),
            "simulated": found.simulated_s,
            "used": found.interval_s,
        },
        "goodput": {name: found.quantile(q) for name, q in QUANTILES.items()},
        "lost_share": found.runs.shares(),
        "curve": [
            {"interval_s": p.interval_s, "p5": p.p5, "p50": p.p50, "p95": p.p95, "expected": p.expected}
            for p in found.curve
        ],
    }
    if ends is not None:
        result["time_to_train_s"] = time_quantiles_s(ends)
    return result


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def draw(training: Training, found: Goodput, path: Path, name: str) -> None:
    """The picture of goodput against the interval."""
    from ..reports.formats import duration
    from ..reports.goodput_figure import goodput_png

    points = [(p.interval_s, p.p5, p.p50, p.p95, p.expected) for p in found.curve]
    marks = {"Young": found.young_s, "Daly": found.daly_s, "best simulated": found.simulated_s}
    accelerators = training.nodes * training.accelerators_per_node
    title = f"{accelerators:,} accelerators of {name}, a failure every {duration(found.mtbf_s)}"
    goodput_png(points, marks, path, title)
