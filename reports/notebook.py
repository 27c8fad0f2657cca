"""Results as notebooks show them: tables in HTML, a picture of a trace.

Everything is self-contained: no script, no style sheet, no address; names are escaped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

from ..sim.trace.trace import Trace
from . import formats
from .figures import DPI, save, timeline_figure
from .table import Table

MOST_ROWS = 40
"""Lines of a table that are shown."""
MOST_RANKS = 8
MOST_ACTIONS = 24
"""Of a plan, ranks and actions of each that are shown."""
WIDE = 14.0
"""Inches of a picture in a notebook."""


class Picture:
    """A figure that shows itself in a notebook and can be saved."""

    def __init__(self, figure: Any):
        self.figure = figure
        """matplotlib's Figure, to change what is drawn."""

    def __repr__(self) -> str:
        width, height = self.figure.get_size_inches()
        return f"Picture({width:.1f} × {height:.1f} inches)"

    def _repr_png_(self) -> bytes:
        data = BytesIO()
        self.figure.savefig(data, format="png", dpi=DPI, bbox_inches="tight", metadata={"Software": None})
        return data.getvalue()

    def save(self, path: str | Path) -> None:
        """Write it as PNG. Raises UsageError if the file cannot be written."""
        save(self.figure, Path(path))


def timeline(
    predicted: Trace, measured: Trace | None = None, *, title: str = "", wide: bool = False
) -> Picture:
    """Every rank a line, predicted above measured."""
    return Picture(timeline_figure(predicted, measured, title, **({"width": WIDE} if wide else {})))


def page(directory: Path, path: Path) -> None:
    """The report of a directory of results, written to ``path``."""
    from .report import write_report

    write_report(directory, path)


def html(thing: Any) -> str:
    """``thing`` as tables, with a note of what is left out."""
    return "".join(map(table_html, _TABLES[type(thing).__name__](thing)))


def table_html(table: Table) -> str:
    """One table; numbers are set to the right."""
    caption = f"<caption>{_text(table.title)}</caption>" if table.title else ""
    head = "".join(_cell("th", name, place in table.text_columns) for place, name in enumerate(table.columns))
    rows = [
        "<tr>"
        + "".join(_cell("td", cell, place in table.text_columns) for place, cell in enumerate(row))
        + "</tr>"
        for row in table.rows[:MOST_ROWS]
    ]
    more = len(table.rows) - MOST_ROWS
    left_out = f"<p>and {more:,} more rows</p>" if more > 0 else ""
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>{left_out}"


def _cell(tag: str, text: str, left: bool) -> str:
    return f'<{tag} style="text-align: {"left" if left else "right"}">{_text(text)}</{tag}>'


def _text(text: object) -> str:
    return escape(formats.printable(text))


def _facts(title: str, rows: Sequence[tuple[str, str]]) -> Table:
    return Table(title=title, columns=("", ""), rows=tuple(rows), text_columns=(0, 1))


def _cluster(cluster: Any) -> Iterator[Table]:
    kinds = [(group.nodes, group.accelerator) for group in cluster.node_groups]
    for nodes, accelerator in kinds or [(cluster.nodes, cluster.accelerator)]:
        peaks = ", ".join(
            f"{formats.flops(value)}/s {name}" for name, value in accelerator.peak_flops.items()
        )
        rows = [
            ("nodes", f"{nodes:,} × {cluster.accelerators_per_node} {accelerator.name}"),
            ("peak", peaks),
            (
                "memory",
                f"{formats.size(accelerator.memory_bytes)}, {formats.rate(accelerator.memory_bandwidth)}",
            ),
            ("curves", "measured" if accelerator.is_measured else "of a datasheet"),
        ]
        yield _facts(f"{cluster.name}: {cluster.accelerators:,} accelerators", rows)
    yield Table(
        title="links",
        columns=("name", "joins", "bandwidth", "latency"),
        rows=tuple(
            (link.name, link.joins, formats.rate(link.bandwidth), formats.seconds(link.latency))
            for link in cluster.links.values()
        ),
        text_columns=(0, 1),
    )


def _plan(plan: Any) -> Iterator[Table]:
    job = plan.job
    yield _facts(
        f"{job.model.name}: {plan.strategy.label}",
        [
            ("ranks", f"{plan.world_size:,}"),
            ("stages", ", ".join(f"{s.end_layer - s.first_layer} layers" for s in plan.stages[:MOST_RANKS])),
            ("micro-batches", f"{plan.micro_batches:,} of {plan.strategy.micro_batch} samples"),
            (
                "step",
                f"{job.global_batch:,} samples of {job.seq_len:,} tokens, {job.optimizer}, {job.precision}",
            ),
        ],
    )
    rows = []
    for rank, own in enumerate(plan.actions[:MOST_RANKS]):
        more = f" … {len(own) - MOST_ACTIONS:,} more" if len(own) > MOST_ACTIONS else ""
        rows.append((str(rank), " ".join(map(str, own[:MOST_ACTIONS])) + more))
    columns = ("pipeline rank", "actions")
    yield Table(title="actions", columns=columns, rows=tuple(rows), text_columns=(0, 1))


def _trace(trace: Trace) -> Iterator[Table]:
    from .charts import phase_label
    from .compare import phase_seconds

    low, middle, high = (formats.seconds(value) for value in trace.quantiles.values())
    ranks = trace.ranks
    yield _facts(
        f"{trace.source} step",
        [
            ("step time", f"{middle} ({low} to {high}), of {len(trace.step_times_s):,}"),
            ("ranks", f"{trace.world_size:,}, {len(ranks):,} of them with {len(trace.spans):,} spans"),
            *(
                [("peak memory", formats.size(max(trace.peak_memory_bytes.values())))]
                * bool(trace.peak_memory_bytes)
            ),
        ],
    )
    if trace.spans:
        rows = [(phase_label(key), formats.seconds(value)) for key, value in phase_seconds(trace).items()]
        yield Table(title="seconds of a step, mean of ranks", columns=("phase", "time"), rows=tuple(rows))


def _prediction(found: Any) -> Iterator[Table]:
    from .plan_tables import prediction

    yield prediction(found)


def _search(found: Any) -> Iterator[Table]:
    from .plan_tables import rankings

    yield from rankings(found)


def _memory(found: Any) -> Iterator[Table]:
    from .memory_table import hint_table, memory_table

    yield memory_table(found, found.cluster.accelerator.memory_bytes, found.names)
    if found.hints:
        yield hint_table(found.hints)


def _collectives(found: Any) -> Iterator[Table]:
    from .collective_table import collective_table

    yield collective_table(found)


def _schedules(found: Any) -> Iterator[Table]:
    from .schedule_table import schedule_table

    yield schedule_table(found)


def _goodput(found: Any) -> Iterator[Table]:
    from .goodput_table import goodput_table

    yield goodput_table(found)


def _convergence(found: Any) -> Iterator[Table]:
    rows = [
        (
            row["protocol"],
            side,
            formats.seconds(row[side]["time_to_target_s"]),
            f"{row[side]['mean_staleness']:.2f}",
            f"{row[side]['final_loss']:.3f}",
        )
        for row in found.rows
        for side in ("predicted", "measured")
        if row[side]
    ]
    columns = ("protocol", "", f"to loss {found.target_loss:g}", "staleness", "final loss")
    yield Table(title="", columns=columns, rows=tuple(rows), text_columns=(0, 1))


def _validation(found: Any) -> Iterator[Table]:
    from .validation_tables import validation_tables

    yield from validation_tables(found)


def _checked(found: Any) -> Iterator[Table]:
    rows = [
        (kind, str(fault))
        for kind, by_file in (("error", found.errors), ("warning", found.warnings))
        for own in by_file.values()
        for fault in own
    ]
    yield Table(title=repr(found), columns=("", "what"), rows=tuple(rows), text_columns=(0, 1))


def _comparison(found: Any) -> Iterator[Table]:
    from .compare import comparison_tables

    yield from comparison_tables(found)


_TABLES: dict[str, Callable[[Any], Iterator[Table]]] = {
    "Checked": _checked,
    "Cluster": _cluster,
    "Collectives": _collectives,
    "Comparison": _comparison,
    "Convergence": _convergence,
    "LongTraining": _goodput,
    "Memory": _memory,
    "Plan": _plan,
    "Prediction": _prediction,
    "Schedules": _schedules,
    "Search": _search,
    "Trace": _trace,
    "Validation": _validation,
}
"""By class: its tables."""
