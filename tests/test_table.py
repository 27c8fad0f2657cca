"""Terminal tables: plain for programs, boxed for people, harmless whatever the names are."""

from __future__ import annotations

import io

from traincast.reports.compare import Comparison, Row
from traincast.reports.table import (
    Table,
    comparison_tables,
    memory_table,
    plain,
    plans_table,
    show,
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def plan(label: str, p50: float, **fields: object) -> dict[str, object]:
    return {
        "label": label,
        "predicted": {
            "step_time_s": {"p5": p50 * 0.9, "p50": p50, "p95": p50 * 1.1},
            "mfu": 0.412,
            "bubble_fraction": 0.158,
            "peak_memory_bytes": [2**30, 3 * 2**30],
            "fits": True,
        },
        "why_not": "",
        **fields,
    }


def test_comparison_prints_as_the_manual_shows_it() -> None:
    """Whole output, with the sign of each error."""
    comparison = Comparison(
        total=Row(name="step_time", predicted=3.21, measured=3.4),
        phases=(
            Row(name="forward", predicted=0.412, measured=0.431),
            Row(name="push_pull", predicted=0.1, measured=0.0),
        ),
        ranks=(Row(name="0", predicted=1.0, measured=1.0),),
        actions=(Row(name="0F0", predicted=0.2, measured=0.3),),
        memory=(),
    )
    assert [plain(table).splitlines() for table in comparison_tables(comparison)] == [
        [
            "phase        predicted  measured   error",
            "forward       412.0 ms  431.0 ms  -4.4 %",
            "push / pull   100.0 ms       0 s       –",
            "step time      3.210 s   3.400 s  -5.6 %",
        ],
        ["compute of  predicted  measured   error", "rank 0        1.000 s   1.000 s  +0.0 %"],
        ["furthest off  predicted  measured    error", "0F0            200.0 ms  300.0 ms  -33.3 %"],
    ]


def test_plans_show_measurements_only_where_there_are_some() -> None:
    """Planning alone has no columns of dashes."""
    only_planned = plain(plans_table([plan("dp2 mb4", 0.5), plan("pp2", 0.6, why_not="bubble")]))
    assert only_planned.splitlines() == [
        "#  plan     step time               p5–p95     MFU  bubble  peak memory  fits  why not #1",
        "1  dp2 mb4   500.0 ms  450.0 ms – 550.0 ms  41.2 %  15.8 %      3.0 GiB  yes   –",
        "2  pp2       600.0 ms  540.0 ms – 660.0 ms  41.2 %  15.8 %      3.0 GiB  yes   bubble",
    ]
    measured = {"step_time_s": {"p5": 0.4, "p50": 0.52, "p95": 0.6}}
    both = plain(plans_table([plan("dp2", 0.5, measured=measured, error_pct=-3.846), plan("pp2", 0.6)]))
    assert "measured   error" in both.splitlines()[0]
    assert "520.0 ms  -3.8 %" in both.splitlines()[1]


def test_memory_says_how_full_and_whether_it_fits() -> None:
    """Against the capacity, rank by rank."""
    estimate = {
        "rank": 1,
        "weights_bytes": 2**30,
        "gradients_bytes": 2**30,
        "optimizer_bytes": 2**31,
        "activations_bytes": 2**29,
        "other_bytes": 0,
        "total_bytes": 4.5 * 2**30,
    }
    rows = memory_table([estimate], 4 * 2**30).rows
    assert rows == (
        ("rank 1", "1.0 GiB", "1.0 GiB", "2.0 GiB", "512.0 MiB", "0 B", "4.5 GiB", "112 %", "no"),
    )


def test_names_cannot_drive_the_terminal() -> None:
    """Escape sequences, line breaks and rich's markup stay text, plain and on a terminal."""
    table = Table(title="", columns=("name",), rows=(("\x1b[31mred\nnext [bold]b[/bold]",),))
    for file in (io.StringIO(), Terminal()):
        show(table, file)
        assert "[bold]b[/bold]" in file.getvalue()
        assert "\x1b[31m" not in file.getvalue()
        assert "red next" in file.getvalue()


def test_plain_where_nobody_looks_on() -> None:
    """No box, no colour, no wrapping in a file or pipe."""
    file = io.StringIO()
    show(Table(title="", columns=("name", "n"), rows=(("a" * 200, "1"),)), file)
    assert file.getvalue() == f"name{' ' * 196}  n\n{'a' * 200}  1\n"
