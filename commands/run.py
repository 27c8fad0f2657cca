"""`traincast run`: train by a plan with torch.distributed, measure it, and lay it beside the prediction."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import Plan
from .options import (
    OutputDirectory,
    given,
    job_options_optional,
    json_option,
    model_of,
    seed_option,
    strategy_options,
)
from .output import echo_json, note, progress

if TYPE_CHECKING:
    from .. import Prediction, Trace

NAMES = ("data", "loss")
"""Options that a plan may be given too: they name the code in it that is trusted."""


@click.command("run", short_help="Train by a plan with torch.distributed and measure it.")
@click.argument("plan_path", metavar="[PLAN]", required=False, type=click.Path(path_type=Path))
@click.option("--model", help="Without PLAN: what to train; a preset, or a torch module as module:function.")
@click.option("--cluster", "cluster_name", help="This machine as calibrated; prediction beside measurement.")
@job_options_optional
@strategy_options
@click.option("--steps", type=click.IntRange(min=1), default=10, show_default=True, help="Measured steps.")
@click.option("--warmup", type=click.IntRange(min=0), default=2, show_default=True, help="Steps before them.")
@click.option(
    "--nproc-per-node",
    "--nproc_per_node",
    type=click.IntRange(min=1),
    help="Must be the plan's world size where given.",
)
@click.option(
    "--log-dir",
    "--log_dir",
    type=OutputDirectory(),
    default=Path("logs"),
    show_default=True,
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=60.0,
    show_default=True,
    help="Seconds without a step before a rank counts as hung.",
)
@click.option("--force", is_flag=True, help="Run a plan that was made for another machine.")
@click.option("--trust", is_flag=True, help="Import the modules that PLAN names, which runs their code.")
@click.option("--dry-run", is_flag=True, help="Show what every rank would do, start nothing.")
@seed_option
@json_option
def command(
    plan_path: Path | None,
    model: str | None,
    cluster_name: str | None,
    steps: int,
    warmup: int,
    nproc_per_node: int | None,
    log_dir: Path,
    timeout: float,
    force: bool,
    trust: bool,
    dry_run: bool,
    seed: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Execute PLAN on this machine and write what was measured to LOG_DIR/measured.trace.json.gz.

    Without PLAN it is made of --model, the job and the strategy of the options, for this machine, which is
    measured first unless --cluster is a calibration of it; then the plan and what was predicted of it are
    written to LOG_DIR too, and prediction and measurement laid side by side.

    A plan that names a module, data or loss of somebody's own has their code run, but only with --trust, or
    where the same names are given as --model, --data and --loss.

    \b
    Examples:
      traincast run out/plans/1.json --steps 20 --log-dir logs
      traincast run --model mynet:net --data mynet:batches --loss mynet:loss \\
          --global-batch 64 --micro-batch 8 --dp 2 --pp 2
    """
    from .. import check_output, execute, plan_to_run, predict, write_trace

    path = log_dir / "measured.trace.json.gz"
    if not dry_run:
        check_output(path, parents_are_made=True)
    if plan_path is None:
        plan, machine = _made(model, cluster_name, options, is_dry=dry_run)
    else:
        plan, machine = plan_to_run(_named_alone(plan_path, options)), cluster_name
    plan_to_run(plan, nproc_per_node)
    if dry_run:
        show_ranks(plan)
        return
    found = predict(plan, machine, seed=seed) if machine else None
    names = {name for name in (model, *(options[key] for key in NAMES)) if name}
    with progress(plan.strategy.label) as say:
        trace = execute(
            plan,
            steps=steps,
            warmup=warmup,
            out_dir=log_dir,
            seed=seed,
            timeout_s=timeout,
            force=force,
            trust=trust or names,
            on_progress=say,
        )
    write_trace(trace, path)
    note(f"wrote {path}")
    if found:
        _write_prediction(found, log_dir)
    show(plan, trace, found, path, as_json=as_json)


def _named_alone(plan_path: Path, options: dict[str, Any]) -> Path:
    """``plan_path``, beside which nothing is given that the plan says itself."""
    said = [name for name in given(**options) if name not in NAMES]
    if said:
        raise click.UsageError(f"a plan says its own {', '.join(said)}; leave them out, or the plan")
    return plan_path


def _made(
    model: str | None, cluster_name: str | None, options: dict[str, Any], *, is_dry: bool
) -> tuple[Plan, Any]:
    """The plan of the options, and this machine, measured unless its cluster is given or nothing is run."""
    from .. import calibrate, cluster, make_plan

    if model is None:
        raise click.UsageError("give a PLAN, or --model with the job and the strategy")
    what = model_of(model, **options)
    if cluster_name:
        machine = cluster(cluster_name)
        return make_plan(what, cluster=machine, **given(**options)), machine
    chosen = {"precision": "fp32", **given(**options)}
    plan = make_plan(what, **chosen)
    if is_dry:
        return plan, None
    machine = calibrate(plans=[plan], progress=progress)
    return make_plan(what, cluster=machine, **chosen), machine


def _write_prediction(found: Prediction, log_dir: Path) -> None:
    """The plan, and the trace that was predicted of it."""
    from .. import write_plan, write_trace

    write_plan(found.plan, log_dir / "plan.json")
    write_trace(found.trace, log_dir / "predicted.trace.json.gz")
    note(f"wrote {log_dir}/plan.json and predicted.trace.json.gz")


def show(plan: Plan, trace: Trace, found: Prediction | None, path: Path, *, as_json: bool) -> None:
    """Print what was measured, and beside it what was predicted."""
    from .. import compare

    losses = trace.metadata.get("losses", [])
    comparison = compare(found, trace) if found else None
    if as_json:
        told: dict[str, Any] = {
            "schema": "traincast.run/1",
            "step_time_s": trace.quantiles,
            "losses": losses,
            "trace": str(path),
        }
        echo_json({**told, "comparison": comparison.to_dict()} if comparison else told)
        return
    from ..reports.formats import seconds

    low, high = seconds(trace.quantile(0.05)), seconds(trace.quantile(0.95))
    click.echo(f"{plan.strategy.label}: {seconds(trace.step_time_s)} a step ({low} – {high})")
    if isinstance(losses, list) and losses:
        click.echo(f"loss {losses[0]:.4f} → {losses[-1]:.4f} over {len(losses)} steps")
    if comparison:
        from ..reports.compare import print_comparison

        print_comparison(comparison)


def show_ranks(plan: Plan) -> None:
    """Print every rank's role and actions."""
    click.echo(f"{plan.strategy.label}: {plan.world_size} ranks, {plan.micro_batches} micro-batches")
    for rank in range(plan.world_size):
        place = "" if plan.is_server(rank) else "stage {} dp {} cp {} tp {}".format(*plan.coordinates(rank))
        role = place or "server"
        click.echo(f"rank {rank} ({role}): {' '.join(map(str, plan.rank_actions(rank)))}")
