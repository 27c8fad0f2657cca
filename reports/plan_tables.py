"""Tables for the terminal: ranked plans, memory, predicted beside measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..sim.predict.prediction import Prediction
from ..sim.search.found import Search
from ..sim.search.result import Accuracy, error_pct, expected_s
from ..sim.trace.trace import Trace
from .formats import seconds, size
from .table import Table


def ranking(search: Search) -> Table:
    """The ranked plans, best first."""
    counts = search.counts
    rules = ", ".join(f"{rule} {count:,}" for rule, count in search.refusals.most_common())
    title = (
        f"considered {counts['considered']:,}, refused {counts['refused']:,}"
        + (f" ({rules})" if rules else "")
        + f", bounded {counts['bounded']:,}, simulated {counts['simulated']:,}"
    )
    return Table(
        title=title,
        columns=(
            "#", "strategy", "step", "p5", "p95", "tokens/s", "MFU", "bubble", "exposed comm", "memory",
            "why not #1",
        ),
        rows=tuple((str(i + 1), *_ranked_row(ranked)) for i, ranked in enumerate(search.plans)),
        text_columns=(1, 10),
    )  # fmt: skip


def _ranked_row(ranked: Prediction) -> tuple[str, ...]:
    numbers = ranked.metrics
    step = numbers.step_time_s
    exposed = sum(numbers.exposed_comm_s.values()) / step["p50"]
    return (
        ranked.plan.strategy.label,
        seconds(step["p50"]),
        seconds(step["p5"]),
        seconds(step["p95"]),
        f"{numbers.tokens_per_s:,.0f}",
        f"{numbers.mfu:.1%}",
        f"{numbers.bubble_fraction:.1%}",
        f"{exposed:.1%}",
        size(max(numbers.peak_memory_bytes)),
        ranked.why_not or "–",
    )


def prediction(ranked: Prediction) -> Table:
    """One predicted step in numbers."""
    numbers = ranked.metrics
    step = numbers.step_time_s
    peak, capacity = max(numbers.peak_memory_bytes), ranked.cluster.accelerator.memory_bytes
    rows = [
        ("step time", f"{seconds(step['p50'])} ({seconds(step['p5'])} to {seconds(step['p95'])})"),
        ("samples/s", f"{numbers.samples_per_s:,.2f}"),
        ("tokens/s", f"{numbers.tokens_per_s:,.0f}"),
        ("MFU, HFU", f"{numbers.mfu:.1%}, {numbers.hfu:.1%}"),
        ("compute of the busiest rank", seconds(numbers.compute_s)),
        *((f"exposed {name} communication", seconds(s)) for name, s in numbers.exposed_comm_s.items()),
        ("bubble", f"{numbers.bubble_fraction:.1%}"),
        ("peak memory", f"{size(peak)} of {size(capacity)}"),
        ("fits", "yes" if numbers.fits else "no"),
    ]
    title = f"{ranked.plan.strategy.label} on {ranked.cluster.name}"
    return Table(title=title, columns=("", "predicted"), rows=tuple(rows))


def measured_table(ranked: Sequence[Prediction], measured: Mapping[int, Trace], accuracy: Accuracy) -> Table:
    """Predicted step time beside measured, with the signed error."""
    title = (
        f"{accuracy.runs} plans run: step time off by {accuracy.median_abs_pct:.1f} % in the median,"
        f" {accuracy.max_abs_pct:.1f} % at worst; predicted fastest is"
        f" {accuracy.fastest_regret_pct:.1f} % from the measured fastest"
    )
    rows = tuple(
        (
            ranked[place].plan.strategy.label,
            seconds(expected_s(ranked[place], trace)),
            seconds(trace.step_time_s),
            seconds(trace.quantile(0.05)),
            seconds(trace.quantile(0.95)),
            f"{error_pct(ranked[place], trace):+.1f} %",
            _loss(trace),
        )
        for place, trace in sorted(measured.items())
    )
    columns = ("strategy", "predicted", "measured", "p5", "p95", "error", "loss")
    return Table(title=title, columns=columns, rows=rows)


def _loss(trace: Trace) -> str:
    losses = trace.metadata.get("losses")
    if not isinstance(losses, list) or not losses:
        return "–"
    return f"{losses[0]:.2f} → {losses[-1]:.2f}"
