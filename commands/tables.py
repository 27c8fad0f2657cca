"""Tables for the terminal: ranked plans, memory, predicted beside measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from ..sim.cluster import Cluster
from ..sim.memory import RankMemory
from ..sim.planner import Ranked, Search
from ..sim.result import Accuracy, error_pct
from ..sim.trace import Trace
from ..sim.units import format_quantity

PIPE_WIDTH = 160
"""Columns where stdout is no terminal and has no width."""


def show(table: Table) -> None:
    """Print a table on stdout, without colour where it is no terminal."""
    console = Console()
    Console(width=None if console.is_terminal else PIPE_WIDTH).print(table)


def seconds(value: float) -> str:
    """A duration as people read it."""
    return format_quantity(value, "time")


def new_table(title: str, *columns: str, left: int = 1) -> Table:
    """A table whose first ``left`` columns are text and the others numbers."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place < left else "right", no_wrap=place < left)
    return table


def ranking(search: Search, cluster: Cluster) -> Table:
    """The ranked plans, best first."""
    counts = search.counts
    rules = ", ".join(f"{rule} {count:,}" for rule, count in search.refusals.most_common())
    title = (
        f"considered {counts['considered']:,}, refused {counts['refused']:,}"
        + (f" ({rules})" if rules else "")
        + f", bounded {counts['bounded']:,}, simulated {counts['simulated']:,}"
    )
    columns = ("#", "strategy", "step", "p5 – p95", "tokens/s", "MFU", "bubble", "exposed comm", "memory")
    table = new_table(title, *columns, left=2)
    table.add_column("why not #1", justify="left", overflow="fold")
    for place, ranked in enumerate(search.ranked):
        table.add_row(str(place + 1), *_ranked_row(ranked, cluster), ranked.why_not or "–")
    return table


def _ranked_row(ranked: Ranked, cluster: Cluster) -> list[str]:
    numbers = ranked.metrics
    step = numbers.step_time_s
    exposed = sum(numbers.exposed_comm_s.values()) / step["p50"]
    return [
        ranked.plan.strategy.label,
        seconds(step["p50"]),
        f"{seconds(step['p5'])} – {seconds(step['p95'])}",
        f"{numbers.tokens_per_s:,.0f}",
        f"{numbers.mfu:.1%}",
        f"{numbers.bubble_fraction:.1%}",
        f"{exposed:.1%}",
        format_quantity(max(numbers.peak_memory_bytes), "bytes"),
    ]


def memory_table(places: Sequence[RankMemory], capacity: float, names: Sequence[str]) -> Table:
    """Memory of each pipeline rank and server, by what fills it."""
    parts = ("weights", "gradients", "optimizer", "activations", "logits", "buffers", "reserved")
    title = f"peak memory, of {format_quantity(capacity, 'bytes')}"
    table = new_table(title, "ranks", *parts, "peak", "share", "fits")
    for name, place in zip(names, places, strict=True):
        values = [format_quantity(getattr(place, f"{part}_bytes"), "bytes") for part in parts]
        share = place.total_bytes / capacity
        fits = "yes" if place.fits else f"no, {format_quantity(place.short_bytes, 'bytes')} short"
        table.add_row(name, *values, format_quantity(place.total_bytes, "bytes"), f"{share:.0%}", fits)
    return table


def prediction(ranked: Ranked, cluster: Cluster) -> Table:
    """One predicted step in numbers."""
    numbers = ranked.metrics
    step = numbers.step_time_s
    table = new_table(f"{ranked.plan.strategy.label} on {cluster.name}", "", "predicted")
    table.add_row("step time", f"{seconds(step['p50'])}  ({seconds(step['p5'])} – {seconds(step['p95'])})")
    table.add_row("samples/s", f"{numbers.samples_per_s:,.2f}")
    table.add_row("tokens/s", f"{numbers.tokens_per_s:,.0f}")
    table.add_row("MFU, HFU", f"{numbers.mfu:.1%}, {numbers.hfu:.1%}")
    table.add_row("compute, busiest rank", seconds(numbers.compute_s))
    for name, exposed in numbers.exposed_comm_s.items():
        table.add_row(f"exposed {name} communication", seconds(exposed))
    table.add_row("bubble", f"{numbers.bubble_fraction:.1%}")
    peak, capacity = max(numbers.peak_memory_bytes), cluster.accelerator.memory_bytes
    table.add_row("peak memory", f"{format_quantity(peak, 'bytes')} of {format_quantity(capacity, 'bytes')}")
    table.add_row("fits", "yes" if numbers.fits else "no")
    return table


def measured_table(ranked: Sequence[Ranked], measured: Mapping[int, Trace], accuracy: Accuracy) -> Table:
    """Predicted step time beside measured, with the signed error."""
    title = (
        f"{accuracy.runs} plans run: step time off by {accuracy.median_abs_pct:.1f} % in the median,"
        f" {accuracy.max_abs_pct:.1f} % at worst; predicted fastest is"
        f" {accuracy.fastest_regret_pct:.1f} % from the measured fastest"
    )
    table = new_table(title, "strategy", "predicted", "measured", "p5 – p95 measured", "error", "loss")
    for place, trace in sorted(measured.items()):
        low, high = seconds(trace.quantile(0.05)), seconds(trace.quantile(0.95))
        table.add_row(
            ranked[place].plan.strategy.label,
            seconds(ranked[place].metrics.step_time_s["p50"]),
            seconds(trace.step_time_s),
            f"{low} – {high}",
            f"{error_pct(ranked[place], trace):+.1f} %",
            _loss(trace),
        )
    return table


def _loss(trace: Trace) -> str:
    losses = trace.metadata.get("losses")
    if not isinstance(losses, list) or not losses:
        return "–"
    return f"{losses[0]:.2f} → {losses[-1]:.2f}"
