"""Collectives as nccl-tests prints them: bytes, microseconds and GB/s."""

from __future__ import annotations

from ..sim.api.collective import Collectives
from .formats import DASH
from .table import Table


def collective_table(found: Collectives) -> Table:
    """A line for every number of ranks and size."""
    cells = tuple(
        (
            str(row["ranks"]),
            f"{row['size_bytes']:.0f}",
            f"{row['time_s'] * 1e6:.2f}",
            *(f"{row[key] / 1e9:.2f}" if row[key] else DASH for key in ("algbw", "busbw")),
            row["algorithm"],
            row["protocol"] or DASH,
        )
        for row in found.rows
    )
    columns = ("ranks", "size (B)", "time (us)", "algbw (GB/s)", "busbw (GB/s)", "algorithm", "protocol")
    title = f"{found.operation} on {found.cluster.name}"
    return Table(title=title, columns=columns, rows=cells, text_columns=(5, 6))
