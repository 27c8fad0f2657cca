"""Predictions beside what `gpu.py` measured: from a record alone, on any machine.

How they are made is in `gpu_predictions.py`. A record also holds what was predicted before anything was
trained, by the model as it was then; that is reported beside what today's model says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from gpu_cases import PROFILED_MICRO_BATCHES, SETS, Case, set_of
from gpu_models import MODELS
from gpu_predictions import (
    WAYS,
    Prediction,
    clusters,
    host_s,
    model_digest,
    predict,
    predict_all,
    with_host_at,
)

HOST_THEN = "kernels, the host as it was"
"""Kernels as measured, launched by a host as fast as it was found just before the case."""
BLIND = ("second", "third")
"""Sets that no constant has been settled with in view."""
GROUPS: Mapping[str, Callable[[Case], bool]] = {
    "no recomputation, one micro-batch": lambda c: (
        c.recompute == "none"
        and c.micro_batches == 1
        and c.precision == "bf16"
        and c.offload == "none"
        and not c.compiled
    ),
    "recomputation": lambda c: c.recompute != "none",
    "several micro-batches": lambda c: c.micro_batches > 1,
    "fp32, tf32": lambda c: c.precision in ("fp32", "tf32"),
    "fp16": lambda c: c.precision == "fp16",
    "fp8": lambda c: c.precision == "fp8",
    "offload": lambda c: c.offload != "none",
    "compiled": lambda c: c.compiled,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One case: what was measured, and what was predicted by each way."""

    case: Case
    step_s: float
    allocated_bytes: float
    """At the peak, without what stood before the trainer was built; so are reserved bytes."""
    reserved_bytes: float
    predictions: Mapping[str, Prediction]
    before: Mapping[str, Prediction]
    """Of those, what was written down before the case was trained."""

    def step_error(self, way: str, *, before: bool = False) -> float:
        return self._of(before)[way].step_s / self.step_s - 1.0

    def memory_error(self, way: str, *, before: bool = False) -> float:
        return self._of(before)[way].allocated_bytes / self.allocated_bytes - 1.0

    def _of(self, before: bool) -> Mapping[str, Prediction]:
        return self.before if before else self.predictions

    def reserved_error(self, way: str) -> float:
        return self.predictions[way].reserved_bytes / self.reserved_bytes - 1.0


def compare(record: Mapping[str, Any]) -> list[Row]:
    """All cases of ``record`` that ran, in order."""
    machines, usual_s = clusters(record), host_s(record)
    written = record.get("predicted", {}).get("cases", {})
    rows = []
    for step in record["steps"]:
        case = Case.of(step)
        if "median_s" not in step or case.model not in MODELS:
            continue
        found = predict_all(case, machines, record["machine"].get("capability"))
        if not found:
            continue
        if usual_s and "host_s" in step and record["machine"]["kind"] == "gpu":
            then = with_host_at(machines["kernels"], step["host_s"] / usual_s)
            found[HOST_THEN] = predict(case, then, attention="flash")
        held, others = step["memory"], step["memory"]["before"]
        rows.append(
            Row(
                case=case,
                step_s=step["median_s"],
                allocated_bytes=held["peak_allocated"] - others,
                reserved_bytes=held.get("peak_reserved", held["peak_allocated"]) - others,
                predictions=found,
                before={way: Prediction(**one) for way, one in written.get(case.name, {}).items()},
            )
        )
    return rows


def summary(errors: Iterable[float]) -> dict[str, float]:
    """Median and 90th percentile of the absolute errors, the largest, and the median with its sign."""
    errors = list(errors)
    sizes = sorted(abs(error) for error in errors)
    return {
        "median": median(sizes),
        "p90": sizes[min(len(sizes) - 1, int(0.9 * len(sizes)))],
        "worst": sizes[-1],
        "bias": median(errors),
    }


def report(record: Mapping[str, Any]) -> str:
    """The comparison as Markdown."""
    rows = compare(record)
    if not rows:
        return "No case ran.\n"
    ways = [way for way in WAYS if way in rows[0].predictions]
    parts = [
        _head(record),
        _before(record, rows, ways),
        _summary(rows, [*ways, *([HOST_THEN] if HOST_THEN in rows[0].predictions else [])]),
        _groups(rows, ways),
        _table(rows, ways),
        strategies(record),
        _fits(record),
    ]
    return "\n".join(part for part in parts if part)


def _head(record: Mapping[str, Any]) -> str:
    machine = record["machine"]
    left_out = record.get("left_out", [])
    failed = [step["name"] for step in record["steps"] if "out_of_memory" in step]
    refused = [f"{step['name']} ({step['refused']})" for step in record["steps"] if "refused" in step]
    lines = [
        f"# One {machine['device']}: predicted and measured, {record['date']}",
        "",
        f"Driver {machine.get('driver', 'none')}, torch {machine['torch']}, CUDA {machine.get('cuda')}, "
        f"cuDNN {machine.get('cudnn')}, Python {machine['python']}, {machine['cores']} cores, "
        f"{machine['system']}; "
        f"power limit {machine.get('power_limit_w')} W, at most {machine.get('max_sm_clock_mhz')} MHz.",
        f"Clocks before: {_clocks(record.get('clocks_before'))}; "
        f"after: {_clocks(record.get('clocks_after'))}.",
        "",
        "Written by `python benchmarks/gpu.py`; again from the record beside it by `--compare`. Kernels are "
        "calibrated on shapes of no model, layers in stacks of at most eight blocks at micro-batches of "
        f"{' and '.join(map(str, PROFILED_MICRO_BATCHES))}, which no case has; no constant is fitted to the "
        "cases.",
    ]
    if left_out:
        lines += ["", f"Left out for want of time: {', '.join(left_out)}."]
    if failed:
        lines += ["", f"Out of memory: {', '.join(failed)}."]
    if refused:
        lines += ["", f"Refused by the executor: {'; '.join(refused)}."]
    lines += [f"\n{note}" for note in record.get("notes", [])]
    return "\n".join([*lines, ""])


def _clocks(found: Mapping[str, str] | None) -> str:
    if not found:
        return "unknown"
    return f"{found['sm_mhz']} MHz, {found['power_w']} W, {found['temperature_c']} °C"


def _before(record: Mapping[str, Any], rows: list[Row], ways: list[str]) -> str:
    """What was predicted before the run, set by set; nothing where the record has no such predictions."""
    if not any(row.before for row in rows):
        return ""
    made_by = record["predicted"]["model"]
    same = "the one that makes the tables below" if made_by == model_digest() else "not the one of today"
    lines = [
        "## As predicted before the run",
        "",
        f"By the model with digest {made_by}, {same}. No constant had seen a case of a set that is said "
        "to be blind here.",
        "",
        "| set | cases | predicted by | step time: median | 90 % | worst | bias "
        "| peak allocated: median | worst |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in (*SETS, ""):
        own = [row for row in rows if row.before and set_of(row.case) == name]
        for way in ways if own else ():
            time_ = summary(row.step_error(way, before=True) for row in own)
            held = summary(row.memory_error(way, before=True) for row in own)
            cells = [*(f"{time_[key]:.1%}" for key in ("median", "p90", "worst")), f"{time_['bias']:+.1%}"]
            cells += [f"{held['median']:.1%}", f"{held['worst']:.1%}"]
            title = f"{name or 'quick'}{', blind' if name in BLIND else ''}"
            lines.append(f"| {title} | {len(own)} | {way} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def strategies(record: Mapping[str, Any]) -> str:
    """Plans over several devices: what was measured and predicted, and what was refused."""
    found = record.get("strategies", [])
    if not found:
        return ""
    lines = [
        "## Several devices",
        "",
        "| plan | step, ms | predicted, ms | error | peak, GB | predicted | error |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in found:
        if "median_s" not in one:
            continue
        error, held = one["predicted_s"] / one["median_s"] - 1, one["predicted_bytes"] / one["peak_bytes"] - 1
        cells = [
            one["name"],
            f"{1e3 * one['median_s']:.1f}",
            f"{1e3 * one['predicted_s']:.1f}",
            f"{error:+.1%}",
        ]
        cells += [
            f"{one['peak_bytes'] / 1e9:.2f}",
            f"{one['predicted_bytes'] / 1e9:.2f}",
            f"{held:+.1%}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    left = [f"{one['name']}: {one['refused']}" for one in found if "refused" in one]
    return "\n".join([*lines, *(["", "Not run: " + "; ".join(left) + "."] if left else []), ""])


def _summary(rows: list[Row], ways: list[str]) -> str:
    lines = [
        f"## All {len(rows)} cases",
        "",
        "| predicted by | step time: median | 90 % | worst | bias "
        "| peak allocated: median | worst | reserved: median |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for way in ways:
        time_ = summary(row.step_error(way) for row in rows)
        allocated = summary(row.memory_error(way) for row in rows)
        reserved = summary(row.reserved_error(way) for row in rows)
        cells = [
            *(f"{time_[name]:.1%}" for name in ("median", "p90", "worst")),
            f"{time_['bias']:+.1%}",
            *(f"{allocated[name]:.1%}" for name in ("median", "worst")),
            f"{reserved['median']:.1%}",
        ]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _groups(rows: list[Row], ways: list[str]) -> str:
    lines = ["| median error of step time | cases | " + " | ".join(ways) + " |"]
    lines.append("|---|---|" + "---|" * len(ways))
    for name, belongs in GROUPS.items():
        own = [row for row in rows if belongs(row.case)]
        if own:
            cells = [f"{summary(row.step_error(way) for row in own)['median']:.1%}" for way in ways]
            lines.append(f"| {name} | {len(own)} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _table(rows: list[Row], ways: list[str]) -> str:
    names = [f"{way}, ms | error" for way in ways]
    lines = [
        "## Case by case",
        "",
        "Micro-batch x sequence, m micro-batches a step. Memory is the peak of torch's allocator.",
        "",
        f"| case | step, ms | {' | '.join(names)} "
        "| peak, GB | predicted | error | reserved, GB | predicted |",
        "|" + "---|" * (2 + 2 * len(ways) + 5),
    ]
    for row in rows:
        cells = [row.case.name, f"{1e3 * row.step_s:.1f}"]
        for way in ways:
            cells += [f"{1e3 * row.predictions[way].step_s:.1f}", f"{row.step_error(way):+.1%}"]
        own = row.predictions[ways[-1]]
        cells += [
            f"{row.allocated_bytes / 1e9:.2f}",
            f"{own.allocated_bytes / 1e9:.2f}",
            f"{row.memory_error(ways[-1]):+.1%}",
            f"{row.reserved_bytes / 1e9:.2f}",
            f"{own.reserved_bytes / 1e9:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _fits(record: Mapping[str, Any]) -> str:
    residuals = clusters(record)["layers"].residuals
    said = ", ".join(f"{name} {error:.1%}" for name, error in residuals.items())
    return f"Median errors of the fits on what they were fitted to or sum up: {said}.\n"
