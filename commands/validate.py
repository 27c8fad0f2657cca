"""`traincast validate`: predictions scored on published measurements."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import json_option, png_option, seed_option
from .output import echo_json, note, progress

if TYPE_CHECKING:
    from ..sim.published.leave_one_out import LeftOneOut
    from ..sim.published.prediction import Predictor
    from ..sim.published.score import Score
    from ..sim.published.validation import Judged


FILES = ("rows.csv", "summary.json", "scatter.png", "validation.html")
"""What `-o` writes into its directory."""


@click.command("validate", short_help="Score predictions on published measurements.")
@click.argument("tables", metavar="[TABLE.csv[.gz]]...", nargs=-1)
@click.option(
    "-o",
    "output",
    type=click.Path(file_okay=False, path_type=Path),
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
    from ..sim.files.writer import check_places, make_directory
    from ..sim.published.prediction import Predictor
    from ..sim.published.validation import scores

    if output:
        check_places(make_directory(output), FILES, replaces=FILES)
    predictor = Predictor(samples=samples, seed=seed)
    judged = judged_tables(tables, predictor)
    found = scores(judged)
    unseen = _unseen(judged, samples) if leave_one_out else ()
    if output or png:
        write(judged, found, output, png, unseen)
    if as_json:
        echo_json(as_dict(found, unseen))
        return
    show_tables(judged, found, worst, unseen)


def _unseen(judged: Sequence[Judged], samples: int) -> tuple[LeftOneOut, ...]:
    from ..sim.published.fit import SustainedFit
    from ..sim.published.leave_one_out import leave_one_out

    with progress("leave one source out") as say:
        return leave_one_out(judged, SustainedFit(samples=samples), say)


def show_tables(
    judged: Sequence[Judged], found: Sequence[Score], worst: int, unseen: Sequence[LeftOneOut] = ()
) -> None:
    """Print errors by source, with those of sources left out of a fit where there are any, and the rest."""
    from ..reports.table import show
    from .tables_validation import left_out_table, score_table, unseen_table, worst_table

    tables = (score_table(found), unseen_table(unseen), left_out_table(found), worst_table(judged, worst))
    for table in tables:
        if table.rows:
            show(table)
            click.echo()


def judged_tables(tables: Sequence[str], predictor: Predictor) -> list[Judged]:
    """Every row of the tables, judged."""
    from ..sim.published.table import read_table, shipped_tables
    from ..sim.published.validation import judge

    rows = [row for table in tables or shipped_tables() for row in read_table(table)]
    with progress("validate") as say:
        return judge(rows, predictor, say)


def as_dict(found: Sequence[Score], unseen: Sequence[LeftOneOut] = ()) -> dict:
    """What `--json` prints and summary.json holds."""
    whole = {"schema": "traincast.validation/1", "sources": [score.to_dict() for score in found]}
    return {**whole, "left_one_out": [one.to_dict() for one in unseen]} if unseen else whole


def write(
    judged: Sequence[Judged],
    found: Sequence[Score],
    output: Path | None,
    png: Path | None,
    unseen: Sequence[LeftOneOut] = (),
) -> None:
    """The files that are asked for."""
    from ..reports.validation_scatter import scatter_png
    from ..sim.files.writer import replaced_together, write_json_atomic
    from ..sim.published.rows_file import write_rows

    if output:
        with replaced_together(output, replaces=FILES) as new:
            write_rows(judged, new / "rows.csv")
            write_json_atomic(new / "summary.json", as_dict(found, unseen))
            _write_page(judged, found, unseen, new / "validation.html")
            scatter_png(_pairs(judged), new / "scatter.png")
    if png:
        scatter_png(_pairs(judged), png)
    note(f"wrote {output or png}")


def _write_page(
    judged: Sequence[Judged], found: Sequence[Score], unseen: Sequence[LeftOneOut], path: Path
) -> None:
    from ..reports.validation_page import write_validation_page
    from . import validation_views

    sources = validation_views.sources(judged, found)
    write_validation_page(sources, path, validation_views.unseen(unseen))


def _pairs(judged: Sequence[Judged]) -> dict[str, list[tuple[float, float]]]:
    """Measured and predicted seconds by source."""
    pairs: dict[str, list[tuple[float, float]]] = {}
    for one in judged:
        if one.case and one.prediction and one.case.step_s is not None:
            pairs.setdefault(one.row.source, []).append((one.case.step_s, one.prediction.step_s))
    return pairs
