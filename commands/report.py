"""`traincast report`: one self-contained HTML report of a directory of results."""

from __future__ import annotations

from pathlib import Path

import click

from .options import OutputDirectory, OutputFile
from .output import note


@click.command("report", short_help="Write one self-contained HTML report of a directory of results.")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=OutputFile(), help="[default: DIRECTORY/report.html]")
@click.option(
    "--png",
    "pictures",
    type=OutputDirectory(),
    help="Also write PNG pictures there.",
)
def command(directory: Path, output: Path | None, pictures: Path | None) -> None:
    """Write the report of what `plan -o`, `run` or `demo` left in DIRECTORY.

    \b
    Example:
      traincast report out -o report.html --png pictures
    """
    from .. import report

    for path in report(directory, output, pictures=pictures):
        note(f"wrote {path}")
