"""`traincast goodput`: how often to save, and what failures leave of the time."""

from __future__ import annotations

from pathlib import Path

import click

from .. import parse_quantity
from .options import (
    cluster_options,
    given,
    job_options_optional,
    json_option,
    png_option,
    seed_option,
    strategy_options,
)
from .output import echo_json, note


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
    from .. import cluster, goodput

    found = goodput(
        cluster(cluster_name, nodes=nodes), what, interval=interval, steps=steps, **given(**options)
    )
    if png:
        from ..reports.goodput_figure import goodput_png

        goodput_png(found, png)
        note(f"wrote {png}")
    if as_json:
        echo_json(found.to_dict())
        return
    from ..reports.goodput_table import goodput_table
    from ..reports.table import show

    show(goodput_table(found))
