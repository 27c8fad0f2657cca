"""A result in a few sentences: what is predicted to be the fastest, and what came of it when it was run.

Steps of synchronous plans are compared with each other; asynchronous updates are told apart, since each is
worth less than a synchronous step.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from ..predict.prediction import Prediction
from ..trace.trace import Trace
from ..units import format_quantity
from .accuracy import Accuracy, Standing, accuracy_of, expected_s, of_kind, standing
from .found import Search

_ORDINALS = ("second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_KINDS = {True: "synchronous", False: "asynchronous"}


def verdict(search: Search, measured: Mapping[int, Trace]) -> str:
    """The result in words, with its errors where plans were run; ``measured`` is by place in the ranking."""
    plans = search.plans
    groups = {kind: of_kind(plans, range(len(plans)), synchronous=kind) for kind in (True, False)}
    leading = bool(groups[True])
    sentences = [_prediction(search, groups[leading], _KINDS[leading] if all(groups.values()) else "")]
    runs = _of(groups[leading], measured)
    if runs:
        sentences.append(_measured(plans, groups[leading][0], runs, _KINDS[leading]))
    if all(groups.values()):
        sentences.append(_asynchronous(plans, groups[False], measured))
    if measured:
        sentences.append(_errors(accuracy_of(plans, measured)))
    return " ".join(sentences)


def _of(places: Sequence[int], measured: Mapping[int, Trace]) -> dict[int, Trace]:
    return {place: measured[place] for place in places if place in measured}


def _prediction(search: Search, places: Sequence[int], kind: str) -> str:
    """What is predicted of the plan ranked first of its ``kind``, and which comes next."""
    best = search.plans[places[0]]
    step = {name: _time(value) for name, value in best.metrics.step_time_s.items()}
    one = f" {kind} one" if kind else ""
    text = (
        f"{best.plan.strategy.label} is predicted to be the fastest{one} of"
        f" {search.considered:,} ways to train {best.plan.job.model.name} on {search.cluster.name}:"
        f" {step['p50']} a step ({step['p5']} to {step['p95']}),"
        f" {best.metrics.tokens_per_s:,.0f} tokens/s, {best.metrics.mfu:.1%} MFU."
    )
    if len(places) > 1:
        runner_up = search.plans[places[1]]
        text += f" Next is {runner_up.plan.strategy.label}, {runner_up.why_not}."
    return text


def _measured(plans: Sequence[Prediction], best: int, runs: Mapping[int, Trace], kind: str) -> str:
    """Where the plan predicted fastest came in when it was run, or the first of those that were."""
    found = standing(plans, runs)
    time = _time(runs[found.first].step_time_s)
    if found.first == best:
        subject = f"Measured, it takes {time} a step"
    else:
        label = plans[found.first].plan.strategy.label
        subject = (
            f"It was not run; {label}, predicted fastest of those that were, takes {time} a step measured"
        )
    return f"{subject}: {_standing(plans, found, kind)}."


def _standing(plans: Sequence[Prediction], found: Standing, kind: str) -> str:
    """`third of 14 synchronous plans run, 4.1 % slower than dp2`."""
    plural = "s" if found.runs > 1 else ""
    text = f"{ordinal(found.place)} of {found.runs} {kind} plan{plural} run"
    if found.place == 1:
        return text if found.runs > 1 else f"the one {kind} plan run"
    return f"{text}, {found.regret_pct:.1f} % slower than {plans[found.fastest].plan.strategy.label}"


def ordinal(place: int) -> str:
    """Of those that are fastest first: `the fastest`, `second`, `third` ... `11th`.

    >>> [ordinal(place) for place in (1, 3, 11, 22)]
    ['the fastest', 'third', '11th', '22nd']
    """
    if place == 1:
        return "the fastest"
    if place <= len(_ORDINALS) + 1:
        return _ORDINALS[place - 2]
    ending = "th" if 10 < place % 100 < 20 else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
    return f"{place}{ending}"


def _asynchronous(plans: Sequence[Prediction], places: Sequence[int], measured: Mapping[int, Trace]) -> str:
    """The fastest update that is none of a synchronous step, with its staleness."""
    runs = _of(places, measured)
    found = standing(plans, runs) if runs else None
    chosen = found.first if found else places[0]
    one = plans[chosen]
    if found:
        run = runs[chosen]
        times = [f"{_time(expected_s(one, run))} predicted", f"{_time(run.step_time_s)} measured"]
    else:
        times = [f"{_time(one.metrics.step_time_s['p50'])} predicted"]
    facts = [*([_standing(plans, found, "asynchronous")] if found else []), *_staleness(plans, chosen, runs)]
    remark = f" ({'; '.join(facts)})" if facts else ""
    return (
        "Ranked apart, since an asynchronous update is not worth a synchronous step:"
        f" {one.plan.strategy.label} takes {', '.join(times)} for as many samples{remark}."
    )


def _staleness(plans: Sequence[Prediction], chosen: int, runs: Mapping[int, Trace]) -> list[str]:
    """How old the gradients of its updates were, in updates of others: measured, else predicted."""
    trace = runs.get(chosen, plans[chosen].trace)
    values = trace.metadata.get("staleness")
    if not isinstance(values, list) or not values:
        return []
    mean, most = statistics.mean(values), max(values)
    return [f"staleness {mean:.1f} updates in the mean, {most:g} at most"]


def _errors(accuracy: Accuracy) -> str:
    plural = "s" if accuracy.runs > 1 else ""
    text = (
        f"Over {accuracy.runs} plan{plural} run here, predicted step time was off by"
        f" {accuracy.median_abs_pct:.1f} % in the median and {accuracy.max_abs_pct:.1f} % at worst"
    )
    if accuracy.memory_median_abs_pct is not None:
        text += (
            f", predicted peak memory by {accuracy.memory_median_abs_pct:.1f} % and"
            f" {accuracy.memory_max_abs_pct:.1f} %"
        )
    return f"{text}."


def _time(seconds: float) -> str:
    return format_quantity(seconds, "time")
