"""`traincast converge`: loss against seconds of update protocols, predicted and, if asked, run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import json_option, png_option, seed_option
from .output import echo_json, note

if TYPE_CHECKING:
    from ..reports.convergence_figure import Convergence


@click.command("converge", short_help="Loss against seconds of update protocols: predicted, and run.")
@click.option("--workers", type=click.IntRange(1, 64), default=4, show_default=True)
@click.option("--slow", multiple=True, metavar="W=FACTOR", help="A worker that is slower; 1=3.0, may repeat.")
@click.option(
    "--protocols",
    default="sync,async,stale:2,backup:1,local:8",
    show_default=True,
    help="Separated by commas.",
)
@click.option("--target-loss", type=click.FloatRange(min=0, min_open=True), default=0.5, show_default=True)
@click.option(
    "--seconds", type=click.FloatRange(0.1, 600), default=4.0, show_default=True, help="Of each protocol."
)
@click.option(
    "--pace",
    "pace_ms",
    type=click.FloatRange(0.1, 10_000),
    default=20.0,
    show_default=True,
    help="Milliseconds that a worker's accelerator is said to take for a gradient.",
)
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), default=0.5, show_default=True)
@click.option("--run", "really", is_flag=True, help="Also train for real: processes on this machine.")
@png_option("Draw the curves.")
@seed_option
@json_option
def command(
    workers: int,
    slow: tuple[str, ...],
    protocols: str,
    target_loss: float,
    seconds: float,
    pace_ms: float,
    rate: float,
    really: bool,
    png: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """Train a small network on handwritten digits under each protocol, in virtual time.

    With --run it is trained for real too. The times of the prediction then come from a short run before,
    with other batches; never from the runs that it is compared with.

    \b
    Example:
      traincast converge --slow 1=3.0 --run --png curves.png
    """
    from .. import converge

    found = converge(
        workers=workers,
        slow=slow,
        protocols=protocols,
        target_loss=target_loss,
        seconds=seconds,
        pace=pace_ms / 1e3,
        rate=rate,
        run=really,
        seed=seed,
        announce=note,
    )
    if png:
        from ..reports.convergence_figure import convergence_png

        convergence_png(found, png)
        note(f"wrote {png}")
    if as_json:
        echo_json(found.to_dict())
    else:
        show_rows(found)


def show_rows(found: Convergence) -> None:
    """Print the table."""
    from ..reports.formats import DASH, seconds

    rows, target = found.rows, found.target_loss
    sides = [side for side in ("predicted", "measured") if rows[0][side]]
    header = f"{'protocol':<12}" + "".join(f"{f'{s} to {target:g}':>20}{'staleness':>11}" for s in sides)
    click.echo(header)
    for row in rows:
        cells = ""
        for side in sides:
            at = row[side]["time_to_target_s"]
            text = DASH if at is None else seconds(at)
            cells += f"{text:>20}{row[side]['mean_staleness']:>11.2f}"
        click.echo(f"{row['protocol']:<12}{cells}")
    if found.order_agrees is not None:
        verdict = "agrees" if found.order_agrees else "does NOT agree"
        click.echo(f"order by time to the target {verdict} with the runs")
