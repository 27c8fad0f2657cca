"""`traincast memory`: memory of every pipeline rank, by what fills it."""

from __future__ import annotations

from dataclasses import asdict

import click

from ..sim.plan import Plan
from .options import cluster_from, cluster_options, job_options_optional, json_option, strategy_options
from .output import echo_json
from .simulate import plan_from


@click.command("memory", short_help="Memory of every pipeline rank, by what fills it.")
@click.argument("what", metavar="MODEL|PLAN")
@cluster_options
@job_options_optional
@strategy_options
@json_option
def command(what: str, cluster_name: str, nodes: int | None, as_json: bool, **options) -> None:
    """Peak memory of MODEL under the strategy of the options, or of a PLAN file.

    \b
    Example:
      traincast memory llama3-8b --cluster hgx-h100 --tp 8 --global-batch 64 --seq-len 8192
    """
    from ..sim.assumptions import assumptions
    from ..sim.memory import memory

    cluster = cluster_from(cluster_name, nodes)
    plan = plan_from(what, cluster, options)
    places = memory(plan, cluster)
    names = place_names(plan)
    assumed = assumptions(plan.job, plan.strategy)
    if as_json:
        rows = [
            {"ranks": name, **asdict(place), "total_bytes": place.total_bytes, "fits": place.fits}
            for name, place in zip(names, places, strict=True)
        ]
        echo_json({"schema": "traincast.memory/1", "places": rows, "assumes": assumed})
        return
    from ..reports.table import show
    from .tables import memory_table

    show(memory_table(places, cluster.accelerator.memory_bytes, names))
    click.echo("\n".join(["", *(f"assumes: {text}" for text in assumed)]))


def place_names(plan: Plan) -> list[str]:
    """Names of the pipeline stages with their ranks, then of the servers."""
    names = []
    for stage, grid in enumerate(plan.grid):
        first, last = int(grid.min()), int(grid.max())
        names.append(f"stage {stage} (rank {first}{f' to {last}' if last > first else ''})")
    return names + [f"server {i} (rank {rank})" for i, rank in enumerate(plan.server_ranks)]
