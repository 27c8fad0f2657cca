"""What a validation writes into a directory: every row, the scores, a picture and a page."""

from __future__ import annotations

from pathlib import Path

from ..sim.api.validate import Validation
from ..sim.files.writer import check_places, make_directory, replaced_together, write_json_atomic
from ..sim.published.rows_file import write_rows
from . import validation_views
from .validation_page import write_validation_page
from .validation_scatter import scatter_png

FILES = ("rows.csv", "summary.json", "scatter.png", "validation.html")


def prepare_validation(directory: Path) -> None:
    """Make ``directory``, and refuse it now if the files could not be written there later.

    Raises:
        UsageError: it cannot be made, or what is at the places of the files may not be replaced.
    """
    check_places(make_directory(directory), FILES, replaces=FILES)


def write_validation(found: Validation, directory: Path | None, png: Path | None = None) -> None:
    """Write all files into ``directory``, and the picture alone to ``png``, where they are given.

    Raises:
        UsageError: a file cannot be written; then none is.
    """
    if directory:
        with replaced_together(directory, replaces=FILES) as new:
            write_rows(found.judged, new / "rows.csv")
            write_json_atomic(new / "summary.json", found.to_dict())
            sources = validation_views.sources(found.judged, found.scores)
            write_validation_page(sources, new / "validation.html", validation_views.unseen(found.unseen))
            scatter_png(_pairs(found), new / "scatter.png")
    if png:
        scatter_png(_pairs(found), png)


def _pairs(found: Validation) -> dict[str, list[tuple[float, float]]]:
    """Measured and predicted seconds by source."""
    pairs: dict[str, list[tuple[float, float]]] = {}
    for one in found.judged:
        if one.case and one.prediction and one.case.step_s is not None:
            pairs.setdefault(one.row.source, []).append((one.case.step_s, one.prediction.step_s))
    return pairs
