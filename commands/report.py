"""`traincast report`: one self-contained HTML report of a directory of results."""

from __future__ import annotations

from pathlib import Path

import click

from .output import note


@click.command("report", short_help="Write one self-contained HTML report of a directory of results.")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="[default: DIRECTORY/report.html]"
)
def command(directory: Path, output: Path | None) -> None:
    """Write the report of what `plan -o`, `run` or `demo` left in DIRECTORY.

    \b
    Example:
      traincast report out -o report.html
    """
    from ..reports.report import write_report

    path = output or directory / "report.html"
    write_report(directory, path)
    note(f"wrote {path}")
