"""Predictions beside what `gpu.py` measured: from a record alone, on any machine.

Three ways to predict: `shipped`, by the accelerator file of the device as it is shipped, nothing measured
here; `kernels`, by curves and speeds of kernels fitted to this device's; `layers`, by those and by profiles
of layers, as `traincast calibrate` makes them. The cases are in no fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from statistics import median
from typing import Any

from gpu_cases import CUDNN_ATTENTION, MODELS, PROFILED_MICRO_BATCHES, Case

from traincast.sim.calibration.fit import fit_cluster
from traincast.sim.hardware.cluster import Cluster
from traincast.sim.hardware.cluster_file import read_cluster
from traincast.sim.memory.peak import memory
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.predict.simulate import simulate

MEASUREMENTS = "traincast.measurements/1"
SHIPPED = {
    "NVIDIA H100 80GB HBM3": "hgx-h100",
    "NVIDIA H200": "hgx-h200",
    "NVIDIA B200": "dgx-b200",
    "NVIDIA A100-SXM4-80GB": "dgx-a100",
}
"""Cluster presets with a device, by its own name."""
WAYS = ("shipped", "kernels", "layers")
GROUPS = {
    "no recomputation, one micro-batch": lambda c: (
        c.recompute == "none" and c.micro_batches == 1 and c.precision == "bf16" and not c.compiled
    ),
    "recomputation": lambda c: c.recompute != "none",
    "several micro-batches": lambda c: c.micro_batches > 1,
    "fp32, tf32": lambda c: c.precision != "bf16",
    "compiled": lambda c: c.compiled,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Of one case, one way."""

    step_s: float
    allocated_bytes: float
    reserved_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One case: what was measured, and what was predicted by each way."""

    case: Case
    step_s: float
    allocated_bytes: float
    reserved_bytes: float
    predictions: Mapping[str, Prediction]

    def step_error(self, way: str) -> float:
        return self.predictions[way].step_s / self.step_s - 1.0

    def memory_error(self, way: str) -> float:
        return self.predictions[way].allocated_bytes / self.allocated_bytes - 1.0

    def reserved_error(self, way: str) -> float:
        return self.predictions[way].reserved_bytes / self.reserved_bytes - 1.0


def clusters(record: Mapping[str, Any]) -> dict[str, Cluster]:
    """The machine of ``record`` by way of predicting; `shipped` is left out for devices without a file."""
    found = {}
    preset = SHIPPED.get(record["machine"]["device"])
    if preset:
        found["shipped"] = read_cluster(preset)
    whole = list(record["series"])
    kernels = [s for s in whole if s["what"] not in ("forward", "backward", "step")]
    for way, series in (("kernels", kernels), ("layers", whole)):
        measured = {
            "schema": MEASUREMENTS,
            "machine": record["machine"],
            "rounds": 1,
            "series": series,
        }
        found[way] = fit_cluster(measured, name=f"measured-{way}", date=record["date"])
    return found


def predict(case: Case, cluster: Cluster, *, attention: str) -> Prediction:
    """One step of ``case`` on one device of ``cluster``."""
    plan = make_plan(case.job(), case.strategy(attention))
    peak = memory(plan, cluster)[0]
    return Prediction(
        step_s=median(simulate(plan, cluster).step_times_s),
        allocated_bytes=peak.allocated_bytes,
        reserved_bytes=peak.allocator_bytes,
    )


def compare(record: Mapping[str, Any]) -> list[Row]:
    """All cases of ``record`` that ran, in order."""
    machines = clusters(record)
    cudnn = (record["machine"].get("capability") or [0])[0] in CUDNN_ATTENTION
    rows = []
    for step in record["steps"]:
        case = Case(**{field.name: step[field.name] for field in fields(Case)})
        if "median_s" not in step or case.model not in MODELS:
            continue
        # A measured curve is of the kernel that ran; the shipped one is FlashAttention-2's.
        predictions = {
            way: predict(case, cluster, attention="flash3" if cudnn and way == "shipped" else "flash")
            for way, cluster in machines.items()
        }
        held = step["memory"]
        rows.append(
            Row(
                case=case,
                step_s=step["median_s"],
                allocated_bytes=held["peak_allocated"],
                reserved_bytes=held.get("peak_reserved", held["peak_allocated"]),
                predictions=predictions,
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
    parts = [_head(record), _summary(rows, ways), _groups(rows, ways), _table(rows, ways), _fits(record)]
    return "\n".join(parts)


def _head(record: Mapping[str, Any]) -> str:
    machine = record["machine"]
    left_out = record.get("left_out", [])
    failed = [step["name"] for step in record["steps"] if "median_s" not in step]
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
    lines += [f"\n{note}" for note in record.get("notes", [])]
    return "\n".join([*lines, ""])


def _clocks(found: Mapping[str, str] | None) -> str:
    if not found:
        return "unknown"
    return f"{found['sm_mhz']} MHz, {found['power_w']} W, {found['temperature_c']} °C"


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
