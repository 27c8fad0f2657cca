"""`traincast run`: train by a plan with torch.distributed and measure it."""

from __future__ import annotations

from pathlib import Path

import click

from .. import Plan
from .options import OutputDirectory, json_option, seed_option
from .output import echo_json, note, progress


@click.command("run", short_help="Train by a plan with torch.distributed and measure it.")
@click.argument("plan_path", metavar="PLAN", type=click.Path(path_type=Path))
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
@click.option("--dry-run", is_flag=True, help="Show what every rank would do, start nothing.")
@seed_option
@json_option
def command(
    plan_path: Path,
    steps: int,
    warmup: int,
    nproc_per_node: int | None,
    log_dir: Path,
    timeout: float,
    force: bool,
    dry_run: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Execute PLAN on this machine and write what was measured to LOG_DIR/measured.trace.json.gz.

    \b
    Example:
      traincast run out/plans/1.json --steps 20 --log-dir logs
    """
    from .. import check_output, execute, plan_to_run, write_trace

    plan = plan_to_run(plan_path, nproc_per_node)
    if dry_run:
        show_ranks(plan)
        return
    path = log_dir / "measured.trace.json.gz"
    check_output(path, parents_are_made=True)
    with progress(plan.strategy.label) as say:
        trace = execute(
            plan,
            steps=steps,
            warmup=warmup,
            out_dir=log_dir,
            seed=seed,
            timeout_s=timeout,
            force=force,
            on_progress=say,
        )
    write_trace(trace, path)
    note(f"wrote {path}")
    losses = trace.metadata.get("losses", [])
    if as_json:
        echo_json(
            {
                "schema": "traincast.run/1",
                "step_time_s": trace.quantiles,
                "losses": losses,
                "trace": str(path),
            }
        )
        return
    from ..reports.formats import seconds

    low, high = seconds(trace.quantile(0.05)), seconds(trace.quantile(0.95))
    click.echo(f"{plan.strategy.label}: {seconds(trace.step_time_s)} a step ({low} – {high})")
    if isinstance(losses, list) and losses:
        click.echo(f"loss {losses[0]:.4f} → {losses[-1]:.4f} over {len(losses)} steps")


def show_ranks(plan: Plan) -> None:
    """Print every rank's role and actions."""
    click.echo(f"{plan.strategy.label}: {plan.world_size} ranks, {plan.micro_batches} micro-batches")
    for rank in range(plan.world_size):
        place = "" if plan.is_server(rank) else "stage {} dp {} cp {} tp {}".format(*plan.coordinates(rank))
        role = place or "server"
        click.echo(f"rank {rank} ({role}): {' '.join(map(str, plan.rank_actions(rank)))}")
