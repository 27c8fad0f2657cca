"""Tables for the terminal: ranked plans, and predicted next to measured; asynchronous plans apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..sim.predict.prediction import Prediction
from ..sim.search.accuracy import Accuracy, error_pct, expected_s, in_order, memory_error_pct, of_kind
from ..sim.search.found import Search
from ..sim.trace.load import probe_ratio
from ..sim.trace.trace import Trace
from .formats import factor, seconds, size
from .table import Table

ASYNCHRONOUS = "asynchronous updates, not worth a synchronous step each"
"""What is said of plans that are ranked apart."""


def rankings(search: Search) -> list[Table]:
    """The ranked plans, best first; asynchronous ones in a table of their own."""
    counts = search.counts
    rules = ", ".join(f"{rule} {count:,}" for rule, count in search.refusals.most_common())
    title = (
        f"considered {counts['considered']:,}, refused {counts['refused']:,}"
        + (f" ({rules})" if rules else "")
        + f", bounded {counts['bounded']:,}, simulated {counts['simulated']:,}"
    )
    groups = _kinds(search.plans, range(len(search.plans)))
    titles = [title, f"{ASYNCHRONOUS}; times are for as many samples"]
    if len(groups) == 1 and not of_kind(search.plans, [0], synchronous=True):
        titles = ["; ".join(titles)]
    return [_ranking(search, own, title) for own, title in zip(groups, titles, strict=False)]


def _kinds(plans: Sequence[Prediction], places: Iterable[int]) -> list[list[int]]:
    """``places`` in order, those of synchronous plans apart from the others; none of them empty."""
    ordered = sorted(places)
    kinds = (of_kind(plans, ordered, synchronous=kind) for kind in (True, False))
    return [own for own in kinds if own]


def _ranking(search: Search, places: Sequence[int], title: str) -> Table:
    return Table(
        title=title,
        columns=(
            "#", "strategy", "step", "p5", "p95", "tokens/s", "MFU", "bubble", "exposed comm", "memory",
            f"why not #{places[0] + 1}",
        ),
        rows=tuple((str(place + 1), *_ranked_row(search.plans[place])) for place in places),
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


def measured_tables(
    ranked: Sequence[Prediction], measured: Mapping[int, Trace], accuracy: Accuracy
) -> list[Table]:
    """Predicted step time and peak memory next to measured, with signed errors; asynchronous plans in a table
    of their own. Step times are predicted for the speed of the processor during the run, over that when it
    was calibrated. ``measured`` is by place in the ranking."""
    title = (
        f"{accuracy.runs} plans run: step time off by {accuracy.median_abs_pct:.1f} % in the median,"
        f" {accuracy.max_abs_pct:.1f} % at worst"
    )
    if accuracy.memory_median_abs_pct is not None:
        title += (
            f"; peak memory {accuracy.memory_median_abs_pct:.1f} % in the median,"
            f" {accuracy.memory_max_abs_pct:.1f} % at worst"
        )
    titles = [
        f"{title}; predicted fastest is {accuracy.fastest_regret_pct:.1f} % from the measured fastest",
        ASYNCHRONOUS,
    ]
    groups = _kinds(ranked, measured)
    return [_measured(ranked, measured, own, title) for own, title in zip(groups, titles, strict=False)]


def _measured(
    ranked: Sequence[Prediction], measured: Mapping[int, Trace], places: Sequence[int], title: str
) -> Table:
    order = in_order({place: measured[place] for place in places})
    rows = tuple(
        (
            f"{number} → {order.index(place) + 1}",
            ranked[place].plan.strategy.label,
            *_times(ranked[place], measured[place]),
            *_memory(ranked[place], measured[place]),
            _loss(measured[place]),
        )
        for number, place in enumerate(places, start=1)
    )
    columns = (
        "order", "strategy", "speed", "predicted", "measured", "p5", "p95", "error", "memory", "measured",
        "error", "loss",
    )  # fmt: skip
    return Table(title=title, columns=columns, rows=rows, text_columns=(0, 1))


def _times(ranked: Prediction, measured: Trace) -> tuple[str, ...]:
    return (
        factor(1.0 / probe_ratio(ranked.trace, measured)),
        seconds(expected_s(ranked, measured)),
        seconds(measured.step_time_s),
        seconds(measured.quantile(0.05)),
        seconds(measured.quantile(0.95)),
        f"{error_pct(ranked, measured):+.1f} %",
    )


def _memory(ranked: Prediction, measured: Trace) -> tuple[str, ...]:
    """Of the fullest rank."""
    error = memory_error_pct(ranked, measured)
    return (
        size(max(ranked.metrics.peak_memory_bytes)),
        size(max(measured.peak_memory_bytes.values(), default=None)),
        "–" if error is None else f"{error:+.1f} %",
    )


def _loss(trace: Trace) -> str:
    losses = trace.metadata.get("losses")
    if not isinstance(losses, list) or not losses:
        return "–"
    return f"{losses[0]:.2f} → {losses[-1]:.2f}"
