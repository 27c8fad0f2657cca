"""`traincast validate`: predictions scored on published measurements."""

from __future__ import annotations

from pathlib import Path

import click

from .options import OutputDirectory, json_option, png_option, seed_option
from .output import echo_json, note, progress


@click.command("validate", short_help="Score predictions on published measurements.")
@click.argument("tables", metavar="[TABLE.csv[.gz]]...", nargs=-1)
@click.option(
    "-o",
    "output",
    type=OutputDirectory(),
    help="Directory for rows.csv, summary.json, scatter.png and validation.html.",
)
@png_option("Draw predicted against measured.")
@click.option(
    "--samples",
    type=click.IntRange(2, 10_000),
    default=32,
    show_default=True,
    help="Steps drawn for p5 to p95.",
)
@click.option(
    "--worst", type=click.IntRange(min=0), default=5, show_default=True, help="Rows named as worst."
)
@click.option(
    "--leave-one-out",
    is_flag=True,
    help="Errors of each source with constants fitted without it; takes six times as long.",
)
@seed_option
@json_option
def command(
    tables: tuple[str, ...],
    output: Path | None,
    png: Path | None,
    samples: int,
    worst: int,
    leave_one_out: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Predict every run of the tables, and say by source how far off the predictions are.

    A TABLE is a CSV file or the name of one that comes with traincast; none is all of those. What a row does
    not say, or what is not modelled, is not guessed: the row is left out and counted by reason.

    \b
    Example:
      traincast validate korthikanti_recompute -o accuracy
    """
    from .. import validate
    from ..reports.validation_files import prepare_validation, write_validation

    if output:
        prepare_validation(output)
    found = validate(*tables, samples=samples, seed=seed, leave_one_out=leave_one_out, progress=progress)
    if output or png:
        write_validation(found, output, png)
        note(f"wrote {output or png}")
    if as_json:
        echo_json(found.to_dict())
        return
    from ..reports.table import show
    from ..reports.validation_tables import validation_tables

    for table in validation_tables(found, worst):
        show(table)
        click.echo()
