"""A directory of results: ranked plans, their predicted traces, and what was measured of them.

result.json            everything below in one document, and its files; schema traincast.result/1
cluster.yaml           the cluster as predicted with
plans/N.json           the plan ranked N-th
predicted/N.trace.json.gz   measured/N.trace.json.gz
measurements.json      raw calibration, where this machine was calibrated
report.html            the page, where it was made with the rest
"""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from ..files.writer import make_directory, replaced_together, write_json_atomic
from ..hardware.cluster_writer import write_cluster
from ..plan.plan_file import write_plan
from ..plan.synchrony import is_synchronous
from ..predict.prediction import Prediction
from ..trace.chrome_trace import write_trace
from ..trace.load import LOAD
from ..trace.trace import Trace
from .accuracy import accuracy_of, error_pct, memory_error_pct
from .found import Search
from .result_layout import (
    CLUSTER,
    MEASUREMENTS,
    REPORT,
    RESULT,
    SCHEMA,
    own_files,
    plan_name,
    trace_name,
)
from .verdict import verdict

_PACKAGES = ("numpy", "simpy", "torch")


def write_result(
    directory: Path,
    search: Search,
    *,
    seed: int,
    measured: Mapping[int, Trace] | None = None,
    failed: Mapping[str, str] | None = None,
    measurements: Mapping | None = None,
    page: Callable[[Path, Path], None] | None = None,
    force: bool = False,
) -> dict:
    """Write everything, or nothing, and return what `result.json` holds.

    ``measured`` is by place in the ranking; ``failed`` says by label why a plan did not run. ``page`` writes
    the report of the directory that is its first argument to the path that is its second. With ``force``, an
    earlier result in ``directory`` is replaced: the files that it lists, and no other.

    Raises:
        UsageError: as `prepare_directory`.
    """
    own = own_files(directory, force)
    with replaced_together(directory, replaces=own, removes=own, last=RESULT) as new:
        files = [CLUSTER, *_write_plans(new, search.plans, measured or {})]
        write_cluster(search.cluster, new / CLUSTER)
        if measurements:
            write_json_atomic(new / MEASUREMENTS, dict(measurements))
            files.append(MEASUREMENTS)
        result = _document(search, seed, measured or {})
        result["failed"] = dict(failed or {})
        result["measurements"] = MEASUREMENTS if measurements else None
        result["files"] = [*files, *([REPORT] if page else []), RESULT]
        write_json_atomic(new / RESULT, result)
        if page:
            page(new, new / REPORT)
    return result


def _write_plans(directory: Path, ranked: Sequence[Prediction], measured: Mapping[int, Trace]) -> list[str]:
    """Write plans and traces; the names of the files."""
    for folder in ("plans", "predicted", *(["measured"] if measured else [])):
        make_directory(directory / folder)
    names = []
    for place, one in enumerate(ranked):
        names += [plan_name(place + 1), trace_name("predicted", place + 1)]
        write_plan(one.plan, directory / names[-2])
        write_trace(one.trace, directory / names[-1])
        if place in measured:
            names.append(trace_name("measured", place + 1))
            write_trace(measured[place], directory / names[-1])
    return names


def _document(search: Search, seed: int, measured: Mapping[int, Trace]) -> dict[str, Any]:
    """`result.json` but for what calibration left and the list of files."""
    result = {
        **search.to_dict(),
        "schema": SCHEMA,
        "command": shlex.join(["traincast", *sys.argv[1:]]),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "versions": versions(),
        "verdict": verdict(search, measured),
        "plans": [
            _entry(place + 1, ranked, measured.get(place)) for place, ranked in enumerate(search.plans)
        ],
        "measurements": None,
        "accuracy": asdict(accuracy_of(search.plans, measured)) if measured else None,
    }
    result["cluster"]["file"] = CLUSTER
    return result


def _entry(number: int, ranked: Prediction, measured: Trace | None) -> dict:
    entry = {
        "id": number,
        "label": ranked.plan.strategy.label,
        "strategy": ranked.plan.strategy.to_dict(),
        "synchronous": is_synchronous(ranked.plan.strategy),
        "predicted": ranked.metrics.to_dict(),
        "why_not": ranked.why_not,
        "plan": plan_name(number),
        "predicted_trace": trace_name("predicted", number),
        "measured": None,
        "measured_trace": None,
        "error_pct": None,
        "memory_error_pct": None,
    }
    if measured is not None:
        entry["measured"] = {
            "step_time_s": measured.quantiles,
            "losses": measured.metadata.get("losses", []),
            "peak_memory_bytes": {str(rank): size for rank, size in measured.peak_memory_bytes.items()},
            "staleness": measured.metadata.get("staleness"),
            LOAD: measured.metadata.get(LOAD),
        }
        entry["measured_trace"] = trace_name("measured", number)
        entry["error_pct"] = error_pct(ranked, measured)
        entry["memory_error_pct"] = memory_error_pct(ranked, measured)
    return entry


def versions() -> dict[str, str]:
    """What the numbers were made with."""
    found = {"python": platform.python_version()}
    for package in ("traincast", *_PACKAGES):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
