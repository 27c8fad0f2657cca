"""`traincast simulate`: predict one step of one strategy or plan."""

from __future__ import annotations

from pathlib import Path

import click

from .. import CHOICES
from .options import (
    OutputFile,
    cluster_options,
    given,
    job_options_optional,
    json_option,
    model_of,
    seed_option,
    strategy_options,
)
from .output import echo_json, note


@click.command("simulate", short_help="Predict one step of one strategy or plan.")
@click.argument("what", metavar="MODEL|PLAN")
@cluster_options
@job_options_optional
@strategy_options
@click.option("--engine", type=click.Choice(CHOICES["engine"]), default="compiled", show_default=True)
@click.option(
    "--samples",
    type=click.IntRange(1, 100_000),
    default=32,
    show_default=True,
    help="Steps drawn for p5 to p95.",
)
@click.option(
    "--trace",
    "trace_path",
    type=OutputFile(),
    help="Write the spans, as Perfetto opens them.",
)
@click.option("--all-ranks", is_flag=True, help="Write like ranks to the trace too, not one for all of them.")
@click.option("--max-slices", type=click.IntRange(min=1), help="Spans of the trace at most.  [default: 1e6]")
@click.option("--slow-rank", multiple=True, metavar="RANK=FACTOR", help="A rank that computes slower.")
@click.option("--slow-node", multiple=True, metavar="NODE=FACTOR", help="A node that computes slower.")
@click.option("--slow-link", multiple=True, metavar="NODE=FRACTION", help="A node with less bandwidth.")
@click.option(
    "--collectives",
    type=click.Choice(["together", "stepwise"]),
    default="together",
    show_default=True,
    help="Members start together, or pass data on as soon as each can.",
)
@click.option(
    "--network",
    type=click.Choice(["closed-form", "flow"]),
    default="closed-form",
    show_default=True,
    help="All groups share links all the time, or messages as they meet, max-min fair.",
)
@click.option("--jitter", type=click.FloatRange(0.0, 10.0), help="Spread of every operation's time.")
@seed_option
@json_option
def command(
    what: str,
    cluster_name: str,
    nodes: int | None,
    all_ranks: bool,
    max_slices: int | None,
    slow_rank: tuple[str, ...],
    slow_node: tuple[str, ...],
    slow_link: tuple[str, ...],
    collectives: str,
    network: str,
    jitter: float | None,
    engine: str,
    samples: int,
    trace_path: Path | None,
    seed: int,
    as_json: bool,
    **options,
) -> None:
    """Predict one step of MODEL by the strategy of the options, or of a PLAN file.

    \b
    Example:
      traincast simulate llama3-8b --cluster hgx-h100 --nodes 2 --tp 8 --pp 2 \\
          --global-batch 64 --seq-len 8192 --recompute selective
    """
    from .. import cluster, predict, write_trace

    found = predict(
        model_of(what, **options),
        cluster(cluster_name, nodes=nodes),
        engine=engine,
        samples=samples,
        seed=seed,
        stepwise=collectives == "stepwise",
        network=network,
        jitter=jitter,
        slow_ranks=slow_rank,
        slow_nodes=slow_node,
        slow_links=slow_link,
        **given(**options),
    )
    if trace_path:
        limit = {"max_slices": max_slices} if max_slices else {}
        left = write_trace(found.trace, trace_path, unfold=all_ranks, **limit)
        note(f"wrote {trace_path}" + (f"; {left:,} ranks are like those in it" if left else ""))
    if as_json:
        echo_json({"schema": "traincast.prediction/1", **found.to_dict()})
        return
    from ..reports.plan_tables import prediction
    from ..reports.table import show

    show(prediction(found))
