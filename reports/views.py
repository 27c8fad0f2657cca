"""The report's words and tables: what a result says, put so that a reader who was not there understands."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from statistics import mean
from typing import Any

from ..sim.hardware.cluster import Cluster
from ..sim.search.verdict import ordinal
from . import formats
from .result_file import PlanEntry, Result

ASYNCHRONOUS = "Asynchronous: an update is not worth a synchronous step; times are for as many samples"
GLOSSARY = (
    (
        "step",
        "One update of the parameters: forward and backward over the whole global batch, the exchange "
        "of gradients, and the optimizer.",
    ),
    ("p5, p50, p95", "5, 50 and 95 % of the steps take at most this long; p50 is the median."),
    (
        "MFU",
        "Model FLOPs utilisation: the floating-point work the model needs, over what the accelerators "
        "could do at their peak in the same time (Chowdhery et al. 2022, PaLM, appendix B).",
    ),
    ("HFU", "Hardware FLOPs utilisation: as MFU, with recomputed work counted too."),
    ("dp", "Data parallel: replicas of the model, each with its share of the batch."),
    ("pp", "Pipeline parallel: the layers are cut into stages, one to a rank, which pass activations on."),
    ("tp", "Tensor parallel: every layer is cut over ranks that compute it together."),
    ("micro-batch (mb)", "The samples that a pipeline passes on at once."),
    ("gpipe, 1f1b", "Orders of work on a pipeline rank: all forwards first, or one forward, one backward."),
    ("bubble", "The share of a step in which a rank neither computes nor communicates."),
    (
        "exposed communication",
        "Communication that no compute overlaps with, so the step is longer for it.",
    ),
    (
        "parameter server (ps)",
        "A rank that keeps parameters: workers push gradients to it and pull parameters from it.",
    ),
    (
        "synchronous",
        "A step is one update with the gradients of the whole batch. Asynchronous updates (of parameter "
        "servers that do not wait, of replicas that average now and then, of pipelines never drained) are "
        "each worth less, so they are ranked apart.",
    ),
    ("staleness", "How many updates of others came between a worker's pull and its own update."),
    ("recompute", "Activations that are computed again in backward instead of being kept."),
    ("residual", "How far a fitted cost is from the measurements it was fitted to: median, relative."),
    ("error", "Predicted over measured, less one: positive where the prediction was too long."),
)


def tiles(result: Result) -> list[tuple[str, str, str]]:
    """The numbers of the best plan that people ask for first: label, value, remark."""
    best = result.plans[0].predicted
    times = best.step_time_s
    share = (
        best.peak_bytes / result.cluster.memory_bytes
        if best.peak_bytes and result.cluster.memory_bytes
        else None
    )
    found = [
        (
            "step time, predicted",
            formats.seconds(times.p50),
            f"p5–p95 {formats.seconds(times.p5)} – {formats.seconds(times.p95)}",
        ),
        (
            "throughput",
            f"{formats.count(best.tokens_per_s)} tok/s",
            f"{formats.count(best.samples_per_s)} samples/s",
        ),
        ("MFU", formats.percent(best.mfu), f"bubble {formats.percent(best.bubble_fraction)}"),
        (
            "peak memory",
            formats.size(best.peak_bytes),
            f"{formats.percent(share, 0)} of {formats.size(result.cluster.memory_bytes)}",
        ),
    ]
    accuracy = result.accuracy
    if accuracy:
        plural = "s" if accuracy.runs != 1 else ""
        found.append(
            (
                "measured error",
                f"{accuracy.median_abs_pct:.1f} %",
                f"median of {accuracy.runs} run{plural}, worst {accuracy.max_abs_pct:.1f} %",
            )
        )
        if accuracy.memory_median_abs_pct is not None:
            found.append(
                (
                    "memory error",
                    f"{accuracy.memory_median_abs_pct:.1f} %",
                    f"median peak, worst {accuracy.memory_max_abs_pct:.1f} %",
                )
            )
    else:
        found.append(("measured error", "not measured", "no plan was run"))
    return found


def certainty(result: Result) -> str:
    """How far the predictions can be trusted, where no run has judged them; else empty."""
    if result.accuracy:
        return ""
    residual = result.cluster.residuals.get("single_step")
    text = "No plan was run, so these are predictions that nothing has judged yet."
    if residual is None:
        return (
            text
            + " The cluster file is not calibrated by measurement: take differences of a few percent as ties."
        )
    return (
        text
        + f" The calibration they rest on misses a whole step on one rank by {formats.percent(residual)}."
    )


def facts(result: Result) -> list[tuple[str, str]]:
    """What was run, a line each."""
    job, cluster = result.job, result.cluster
    model = f"{result.model.name}, {formats.count(result.model.parameters)} parameters"
    sizes = {key: result.model.decoder.get(key) for key in ("layers", "hidden", "heads", "ffn", "vocab")}
    shape = ", ".join(f"{key} {value}" for key, value in sizes.items() if value is not None)
    return [
        ("model", f"{model} ({shape})" if shape else model),
        (
            "job",
            f"global batch {job.global_batch:,} × {job.seq_len:,} tokens, {job.optimizer}, {job.precision}",
        ),
        (
            "cluster",
            f"{cluster.name}: {cluster.accelerators:,} × {cluster.accelerator}, "
            f"{formats.size(cluster.memory_bytes)} each",
        ),
        ("date", result.created),
        ("seed", str(result.seed)),
        ("versions", ", ".join(f"{name} {version}" for name, version in result.versions.items())),
    ]


def commands(result: Result) -> list[tuple[str, str]]:
    """How to do it again: what for, command."""
    found = [("all of it again", result.command)]
    best = result.plans[0]
    if best.plan:
        found.append(("run the best plan", f"traincast run {shlex.quote(best.plan)} --steps 20"))
    for entry in result.plans:
        if entry.measured_trace and entry.predicted_trace:
            paths = f"{shlex.quote(entry.predicted_trace)} {shlex.quote(entry.measured_trace)}"
            found.append(("compare the two traces of a plan", f"traincast compare {paths}"))
            break
    found.append(("this report", "traincast report ."))
    return [(what, formats.printable(command)) for what, command in found]


def plan_groups(result: Result) -> list[dict[str, Any]]:
    """The ranked plans as the table shows them: the synchronous ones, then the others, each with its title;
    the title of one group alone is empty, unless it is asynchronous."""
    kinds = {True: "Synchronous: every step is one update with the whole batch", False: ASYNCHRONOUS}
    groups = [
        {"title": title, "rows": _plan_rows([e for e in result.plans if e.synchronous == kind])}
        for kind, title in kinds.items()
    ]
    found = [group for group in groups if group["rows"]]
    if len(found) == 1 and found[0]["title"] != ASYNCHRONOUS:
        found[0]["title"] = ""
    return found


def _plan_rows(plans: Sequence[PlanEntry]) -> list[dict[str, Any]]:
    """Plans that are compared with each other, and the place at which each was measured."""
    times = {entry.id: entry.measured.step_time_s.p50 for entry in plans if entry.measured}
    order = sorted(times, key=lambda number: (times[number], number))
    return [
        {
            "entry": entry,
            "place": f"{ordinal(order.index(entry.id) + 1)} of {len(order)}"
            if entry.id in times and len(order) > 1
            else "",
            "grade": grade(entry.error_pct),
            "memory_grade": grade(entry.memory_error_pct),
        }
        for entry in plans
    ]


def accuracy_text(result: Result) -> str:
    """How far step times were off, and where the plan predicted fastest came in; empty where nothing was
    run."""
    found = result.accuracy
    if not found:
        return ""
    text = (
        f"Over {found.runs} run{'s' if found.runs != 1 else ''}, the median error was"
        f" {found.median_abs_pct:.1f} % and the worst {found.max_abs_pct:.1f} %, for the speed of"
        " the processor and the cores that each run met. The plan predicted fastest was, when run,"
    )
    if found.fastest_regret_pct <= 0:
        return f"{text} the fastest of all that are compared with it."
    place = f"{ordinal(found.fastest_place)} of {found.compared}, " if found.fastest_place else ""
    return f"{text} {place}{found.fastest_regret_pct:.1f} % behind the fastest."


def peaks_text(result: Result) -> str:
    """How far peak memory was off; empty where it was not measured."""
    found = result.accuracy
    if not found or found.memory_median_abs_pct is None or found.memory_max_abs_pct is None:
        return ""
    return (
        f"Peak memory of the fullest rank was off by {found.memory_median_abs_pct:.1f} % in the median and"
        f" {found.memory_max_abs_pct:.1f} % at worst."
    )


def grade(error_pct: float | None) -> str:
    """How good a prediction was: within 5 % good, within 15 % fair."""
    if error_pct is None:
        return "none"
    return "good" if abs(error_pct) <= 5 else "fair" if abs(error_pct) <= 15 else "poor"


def loss_rows(plans: Sequence[PlanEntry]) -> list[dict[str, Any]]:
    """First and last losses of each run."""
    rows = []
    for entry in plans:
        losses = entry.measured.losses if entry.measured else []
        rows.append({"entry": entry, "first": losses[0], "last": losses[-1], "steps": len(losses)})
    return rows


def staleness(entry: PlanEntry) -> str:
    """In words; empty for synchronous runs."""
    values = entry.measured.staleness if entry.measured else None
    if not values:
        return ""
    return f"Staleness of its updates: {mean(values):.2f} in the mean, {max(values):g} at most."


def count_rows(result: Result) -> list[tuple[str, str, str]]:
    """How many strategies there were and what became of them: name, number, remark."""
    remarks = {
        "considered": "every combination of degrees, schedule, exchange and micro-batch in the space",
        "refused": "broken rules or too little memory, below by rule",
        "bounded": "cannot beat those shown, by a lower bound on their step time",
        "simulated": "played event by event",
    }
    rows = [(name, f"{number:,}", remarks.get(name, "")) for name, number in result.counts.items()]
    refusals = sorted(result.refusals.items(), key=lambda item: (-item[1], item[0]))
    return rows + [(f"refused: {rule}", f"{number:,}", "") for rule, number in refusals]


def provenance(cluster: Cluster | None, result: Result) -> list[tuple[str, str, str, str]]:
    """Each constant the predictions rest on: what, value, kind of source, source."""
    if cluster is None:
        return [
            (name, formats.percent(value), "measured", "residual of the calibration")
            for name, value in result.cluster.residuals.items()
        ]
    accelerator = cluster.accelerator
    calibrated = bool(cluster.residuals)
    kind = "measured" if calibrated else "datasheet"
    source = " ".join(part for part in (accelerator.source or cluster.source, accelerator.date) if part)
    rows = [
        (f"peak, {precision}", f"{formats.flops(flops)}/s", kind, source)
        for precision, flops in accelerator.peak_flops.items()
    ]
    rows.append(("memory", formats.size(accelerator.memory_bytes), kind, source))
    rows.append(("memory bandwidth", formats.rate(accelerator.memory_bandwidth), kind, source))
    for link in cluster.links.values():
        value = f"{formats.rate(link.bandwidth)}, {formats.seconds(link.latency)} one way"
        rows.append(
            (f"link {link.name}", value, "measured" if calibrated else "datasheet", link.source or source)
        )
    rows += _curve_rows(cluster, source)
    first = {source: name for name, _, _, source in reversed(rows)}
    return [
        (name, value, kind, source if first[source] == name or not source else f"as for {first[source]}")
        for name, value, kind, source in rows
    ]


def _curve_rows(cluster: Cluster, source: str) -> list[tuple[str, str, str, str]]:
    accelerator = cluster.accelerator
    curves = {
        "GEMM efficiency": sum(len(curve) for curve in accelerator.gemm_efficiency.values()),
        "attention efficiency": sum(len(curve) for curve in accelerator.attention_efficiency.values()),
        "memory efficiency": len(accelerator.memory_efficiency),
        "layer profiles": len(accelerator.layer_profiles),
        "optimizer costs": len(accelerator.optimizer_costs),
        "transport curves": len(cluster.transports),
    }
    rows = [
        (name, f"{number} points" if "efficiency" in name else f"{number}", "measured", source)
        if number
        else (name, "none in the file", "default", "general rule of the simulator")
        for name, number in curves.items()
    ]
    if cluster.jitter:
        rows.append(("jitter of one action", formats.percent(cluster.jitter), "measured", source))
    else:
        rows.append(("jitter of one action", "none", "default", ""))
    return rows
