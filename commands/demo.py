"""`traincast demo`: end to end on this machine, with one command."""

from __future__ import annotations

from pathlib import Path

import click

from .options import OutputDirectory, json_option, seed_option
from .output import echo_json, note, progress


@click.command("demo", short_help="End to end on this machine: calibrate, plan, run, compare, report.")
@click.option("--model", default="tiny-llama-bytes", show_default=True, help="Preset or config.json.")
@click.option("--global-batch", type=click.IntRange(min=1), default=16, show_default=True)
@click.option("--seq-len", type=click.IntRange(min=1), default=128, show_default=True)
@click.option(
    "--ranks", type=click.IntRange(min=2, max=64), default=4, show_default=True, help="Processes at most."
)
@click.option(
    "--plans",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="Plans to run: the best of each family, the most different first.",
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
@click.option("-o", "--output", type=OutputDirectory(), default=Path("out"), show_default=True)
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
    plans: int,
    rounds: int,
    minutes: float,
    steps: int,
    output: Path,
    force: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Calibrate this machine, rank the ways to train MODEL on it, run the best of each family,
    compare.

    \b
    Example:
      traincast demo -o out
    """
    from .. import demo

    found = demo(
        model,
        global_batch=global_batch,
        seq_len=seq_len,
        ranks=ranks,
        plans=plans,
        rounds=rounds,
        minutes=minutes,
        steps=steps,
        output=output,
        force=force,
        seed=seed,
        progress=progress,
        announce=note,
    )
    if as_json:
        echo_json(found.result)
    else:
        from ..reports.plan_tables import measured_tables, rankings
        from ..reports.table import show_all

        measured = measured_tables(found.search.plans, found.measured, found.accuracy)
        show_all([*rankings(found.search), *measured])
        click.echo(f"\n{found.result['verdict']}")
    note(f"wrote {output}/report.html")
