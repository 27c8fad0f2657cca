"""`traincast plan`: rank the ways to train a model on a cluster."""

from __future__ import annotations

from pathlib import Path

import click

from .options import (
    OutputDirectory,
    cluster_options,
    given,
    job_options,
    json_option,
    model_of,
    seed_option,
)
from .output import echo_json, note, progress


@click.command("plan", short_help="Rank the ways to train a model on a cluster.")
@click.argument("model")
@cluster_options
@job_options
@click.option(
    "--top",
    type=click.IntRange(min=1, max=1000),
    default=10,
    show_default=True,
    help="Plans to rank; as many asynchronous ones at most come after them, if they are faster.",
)
@click.option(
    "--samples",
    type=click.IntRange(1, 100_000),
    default=32,
    show_default=True,
    help="Steps drawn for p5 to p95.",
)
@click.option(
    "-o",
    "--output",
    type=OutputDirectory(),
    help="Directory for plans, traces and report.",
)
@click.option(
    "--force", is_flag=True, help="Replace earlier results in the directory; other files in it stay."
)
@seed_option
@json_option
def command(
    model: str,
    cluster_name: str,
    nodes: int | None,
    top: int,
    samples: int,
    output: Path | None,
    force: bool,
    seed: int,
    as_json: bool,
    **job_arguments,
) -> None:
    """Rank the ways to train MODEL (a preset, a Hugging Face config.json, or a torch module of your own as
    module:function) on a cluster.

    \b
    Example:
      traincast plan llama3-70b --cluster hgx-h100 --nodes 16 --global-batch 1024 --seq-len 8192
    """
    from .. import cluster, plan

    with progress("plan") as say:
        found = plan(
            model_of(model, **job_arguments),
            cluster(cluster_name, nodes=nodes),
            top=top,
            samples=samples,
            seed=seed,
            progress=say,
            output=output,
            force=force,
            **given(**job_arguments),
        )
    if output:
        note(f"wrote {output}/result.json and report.html")
    if as_json:
        echo_json(found.to_dict())
        return
    from ..reports.plan_tables import rankings
    from ..reports.table import show_all

    show_all(rankings(found))
