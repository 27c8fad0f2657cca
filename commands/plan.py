"""`traincast plan`: rank the ways to train a model on a cluster."""

from __future__ import annotations

from pathlib import Path

import click

from .options import cluster_from, cluster_options, job_from, job_options, json_option, seed_option
from .output import echo_json, note, progress


@click.command("plan", short_help="Rank the ways to train a model on a cluster.")
@click.argument("model")
@cluster_options
@job_options
@click.option(
    "--top", type=click.IntRange(min=1, max=1000), default=10, show_default=True, help="Plans to rank."
)
@click.option(
    "--samples", type=click.IntRange(min=1), default=32, show_default=True, help="Steps drawn for p5 to p95."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
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
    """Rank the ways to train MODEL (a preset or a Hugging Face config.json) on a cluster.

    \b
    Example:
      traincast plan llama3-70b --cluster hgx-h100 --nodes 16 --global-batch 1024 --seq-len 8192
    """
    from ..sim.search.planner import search
    from ..sim.search.result import plans_to_dict, write_result
    from ..sim.search.result_layout import prepare_directory
    from ..sim.search.space import strategies

    cluster = cluster_from(cluster_name, nodes)
    job = job_from(model, cluster, **job_arguments)
    if output:
        prepare_directory(output, force, plans=top)
    with progress("plan") as say:
        found = search(
            job, cluster, strategies(job, cluster), top=top, samples=samples, seed=seed, progress=say
        )
    if output:
        from ..reports.report import write_report

        write_result(output, found, job, cluster, seed=seed, page=write_report, force=force)
        note(f"wrote {output}/result.json and report.html")
    if as_json:
        echo_json(plans_to_dict(found, job, cluster))
        return
    from ..reports.table import show
    from .tables import ranking

    show(ranking(found))
