"""What runs corrected of a calibration, and what that is worth on plans of other families."""

from __future__ import annotations

from typing import TextIO

from ..sim.calibration.residuals import Correction
from . import formats
from .table import Table, show


def print_correction(correction: Correction, file: TextIO | None = None) -> None:
    """Print the factors, then every run with its error as calibrated and with the factors of all other
    families; to standard output where no ``file`` is given."""
    show(factor_table(correction), file)
    print(file=file)
    show(worth_table(correction), file)


def factor_table(correction: Correction) -> Table:
    """A row a phase."""
    rows = tuple((phase, f"{factor:.3f}") for phase, factor in correction.factors.items())
    return Table(title="", columns=("phase", "measured over predicted"), rows=rows)


def worth_table(correction: Correction) -> Table:
    """A row a run."""
    title = (
        f"step time off by {correction.before_pct:.1f} % in the median as calibrated,"
        f" {correction.after_pct:.1f} % with factors from other families"
    )
    rows = tuple(
        (
            one.label,
            formats.seconds(one.measured_s),
            formats.error(one.before_pct),
            formats.error(one.after_pct),
        )
        for one in correction.shown
    )
    return Table(title=title, columns=("strategy", "measured", "before", "after"), rows=rows)
