"""`traincast demo`: end to end on this machine, with one command.

Calibration and measurement take turns, since a shared machine changes its speed from minute to minute;
predictions come from the calibration alone, never from the runs that judge them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import click

from ..sim.hardware.cluster import Cluster
from ..sim.plan.job import Job
from ..sim.plan.plan import Plan
from ..sim.plan.strategy import Strategy
from ..sim.search.planner import Search
from ..sim.trace.trace import Trace
from .calibrate import machine_name, measure_round
from .options import json_option, seed_option
from .output import echo_json, note, progress

MICRO_BATCHES = (1, 2, 4, 8, 16)
"""Sizes whose layers are profiled."""
TOP = 10
"""Best plans that are written, whether they were run or not."""


@click.command("demo", short_help="End to end on this machine: calibrate, plan, run, compare, report.")
@click.option("--model", default="tiny-llama-bytes", show_default=True, help="Preset or config.json.")
@click.option("--global-batch", type=click.IntRange(min=1), default=16, show_default=True)
@click.option("--seq-len", type=click.IntRange(min=1), default=128, show_default=True)
@click.option(
    "--ranks", type=click.IntRange(min=2, max=64), default=4, show_default=True, help="Processes at most."
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Turns of calibration and runs, at most.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0),
    default=6.5,
    show_default=True,
    help="No further turn begins that would not end within these.",
)
@click.option(
    "--steps", type=click.IntRange(min=2), default=8, show_default=True, help="Measured steps of each run."
)
@click.option(
    "-o", "--output", type=click.Path(file_okay=False, path_type=Path), default=Path("out"), show_default=True
)
@click.option(
    "--force", is_flag=True, help="Replace earlier results in the directory; other files in it stay."
)
@seed_option
@json_option
def command(
    model: str,
    global_batch: int,
    seq_len: int,
    ranks: int,
    rounds: int,
    minutes: float,
    steps: int,
    output: Path,
    force: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Calibrate this machine, rank the ways to train MODEL on it, run the best of each kind, compare.

    \b
    Example:
      traincast demo -o out
    """
    from ..executor.calibrate.calibrate import merge
    from ..reports.report import write_report
    from ..sim.model.hf_config import read_model
    from ..sim.search.result import accuracy_of, write_result
    from ..sim.search.result_layout import prepare_directory
    from ..sim.trace.trace import merge_traces

    job = Job(model=read_model(model), global_batch=global_batch, seq_len=seq_len, precision="fp32")
    prepare_directory(output, force, plans=TOP, measured=True)
    sizes = tuple(size for size in MICRO_BATCHES if size <= global_batch)
    began = time.monotonic()
    measurements = [measure_round([job.model], seq_len, sizes, 0, rounds)]
    chosen = choose(rank(job, fit(measurements, ranks), seed))
    note(f"running {len(chosen)} plans, {steps} steps each in up to {rounds} turns")
    runs: dict[Strategy, list[Trace]] = {plan.strategy: [] for plan in chosen}
    for number in range(rounds):
        turns_s = time.monotonic() - began
        if number and turns_s * (number + 1) / number > minutes * 60:
            break
        if number:
            measurements.append(measure_round([job.model], seq_len, sizes, number, rounds))
        for plan in chosen:
            runs[plan.strategy].append(run(plan, steps, output, seed))
    cluster = fit(measurements, ranks)
    search = rank(job, cluster, seed)
    search.ranked = keep(search, runs)
    measured = {
        place: merge_traces(runs[ranked.plan.strategy])
        for place, ranked in enumerate(search.ranked)
        if ranked.plan.strategy in runs
    }
    raw = merge(measurements).to_dict()
    result = write_result(
        output,
        search,
        job,
        cluster,
        seed=seed,
        measured=measured,
        measurements=raw,
        page=write_report,
        force=force,
    )
    if as_json:
        echo_json(result)
    else:
        from ..reports.table import show
        from .tables import measured_table, ranking

        show(ranking(search))
        click.echo()
        show(measured_table(search.ranked, measured, accuracy_of(search.ranked, measured)))
        click.echo(f"\n{result['verdict']}")
    note(f"wrote {output}/report.html")


def fit(measurements: Sequence, ranks: int) -> Cluster:
    """This machine as a cluster, on which up to ``ranks`` processes may be placed."""
    from dataclasses import replace

    from ..executor.calibrate.calibrate import merge
    from ..sim.calibration.fit import fit_cluster

    merged = merge(measurements).to_dict()
    cluster = fit_cluster(merged, name=machine_name(), date=date.today().isoformat())
    return replace(cluster, accelerators_per_node=max(ranks, cluster.accelerators_per_node))


def rank(job: Job, cluster: Cluster, seed: int) -> Search:
    """Every strategy that the demo shows, simulated."""
    from ..sim.search.planner import search
    from ..sim.search.space import strategies

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


def choose(search: Search) -> list[Plan]:
    """The best plan of each kind, in order of rank."""
    best: dict[tuple, Plan] = {}
    for ranked in search.ranked:
        best.setdefault(kind(ranked.plan.strategy), ranked.plan)
    return list(best.values())


def keep(search: Search, runs: dict[Strategy, list[Trace]]) -> list:
    """The ten best plans and all that were run."""
    return [
        ranked for place, ranked in enumerate(search.ranked) if place < TOP or ranked.plan.strategy in runs
    ]


def run(plan: Plan, steps: int, output: Path, seed: int) -> Trace:
    """Execute one plan for real."""
    from ..executor.run.launcher import execute
    from ..sim.files.writer import check_places

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
