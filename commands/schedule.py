"""`traincast schedule`: what an order of passes costs, and how it looks."""

from __future__ import annotations

from pathlib import Path

import click

from .. import UsageError, parse_quantity, schedule_names
from .options import NameNow, OutputFile, Read, json_option, png_option
from .output import echo_json, note

ALL = "all"


def _seconds(text: str) -> float:
    seconds = parse_quantity(text, "time")
    if seconds < 0:
        raise UsageError(f"{text}: less than nothing")
    return seconds


TIME = Read("TIME", _seconds)


def _time(name: str, default: str, text: str):
    return click.option(name, type=TIME, default=default, show_default=True, help=text)


@click.command("schedule", short_help="Step time, bubble and memory of pipeline schedules.")
@click.argument("name", type=NameNow(lambda: (*schedule_names("flushed"), ALL)))
@click.option("--ranks", type=click.IntRange(1, 4096), required=True, help="Pipeline ranks.")
@click.option("--micro-batches", type=click.IntRange(1, 65536), required=True, help="Of one step.")
@click.option(
    "--virtual-stages",
    type=click.IntRange(1, 1024),
    help="Stages of each rank.  [default: what the schedule needs]",
)
@_time("--forward", "1ms", "Of one micro-batch through all stages of a rank.")
@_time("--input-gradient", "1ms", "First half of its backward.")
@_time("--weight-gradient", "1ms", "Second half of its backward.")
@_time("--transfer", "0s", "From one rank to the next.")
@click.option(
    "--kept-share",
    type=click.FloatRange(0, 1),
    default=1.0,
    show_default=True,
    help="Of activations, what stays between the halves of a backward"
    f" ({', '.join(schedule_names('arranged'))}).",
)
@click.option("--csv", "csv_file", type=OutputFile(), help="Write the order in PyTorch's format.")
@png_option("Draw it.", "png_file")
@json_option
def command(
    name: str,
    ranks: int,
    micro_batches: int,
    virtual_stages: int | None,
    csv_file: Path | None,
    png_file: Path | None,
    as_json: bool,
    **seconds: float,
) -> None:
    """The pipeline schedule NAME, or all side by side, on ranks that are alike.

    \b
    Example:
      traincast schedule zb-h1 --ranks 4 --micro-batches 8 --forward 18.5ms --csv zb-h1.csv
    """
    from .. import schedules, write_schedule_csv

    if name == ALL and (csv_file or png_file):
        raise UsageError("--csv and --png need one schedule, not all")
    found = schedules(
        name, ranks=ranks, micro_batches=micro_batches, virtual_stages=virtual_stages, **seconds
    )
    for each, why in found.left_out.items():
        note(f"left out {each}: {why}")
    if csv_file:
        write_schedule_csv(found[name].orders, csv_file)
        note(f"wrote {csv_file}")
    if png_file:
        found.picture(name).save(png_file)
        note(f"wrote {png_file}")
    if as_json:
        echo_json(found.to_dict())
        return
    from ..reports.schedule_table import schedule_drawing, schedule_table
    from ..reports.table import show

    show(schedule_table(found))
    lines = schedule_drawing(found)
    if lines:
        click.echo("\n".join(["", *lines]))
