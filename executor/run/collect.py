"""What the ranks of a run wrote, as one measured Trace.

A step's time is from the moment the last rank begins a walk to the moment the last rank ends it, over the
steps of a walk: no barrier stands between walks, so this is the period of the steady state. In a pipeline
that is never drained it is that of the steps in which it is full, by the first rank's updates. With parameter
servers it is what `servers/measured.py` says.
"""

from __future__ import annotations

import json
import platform
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from ...sim.plan.action import Action, Kind
from ...sim.plan.plan import Plan
from ...sim.plan.rank_groups import Groups
from ...sim.plan.step_counts import filling_steps, is_unflushed, steps_played
from ...sim.trace.load import LOAD, PROBE
from ...sim.trace.trace import Span, Trace
from ..measure.load import Reading, load_between
from ..measure.recorder import COMPUTE, Mark, align_spans
from ..servers.measured import MeasuredRounds
from .walks import steps_of_walk


def collect(plan: Plan, directory: Path, *, warmup: int, seed: int) -> Trace:
    """The Trace of what was measured after ``warmup`` walks."""
    parts = [json.loads((directory / f"part.{rank}.json").read_text()) for rank in range(plan.world_size)]
    spans = align_spans(Mark(*mark) for part in parts for mark in part["marks"])
    served = MeasuredRounds(plan, parts, warmup) if plan.strategy.servers else None
    if served:
        times = served.step_times_s()
    elif is_unflushed(plan.strategy):
        times = _full_step_times(plan, parts)
    else:
        times = [seconds / steps_of_walk(plan) for seconds in _walk_times(parts, warmup)]
    begins = served.begins(spans) if served else _begins(parts, spans, warmup)
    return Trace.of(
        [_shifted(span, begins[span.step, span.rank], warmup) for span in spans],
        source="measured",
        world_size=plan.world_size,
        step_times_s=tuple(times),
        peak_memory_bytes={part["rank"]: part["peak_memory_bytes"] for part in parts},
        metadata=_metadata(plan, parts, warmup, seed) | (served.metadata() if served else {}),
    )


def _walk_times(parts: list[dict[str, Any]], warmup: int) -> list[float]:
    """Every rank begins and ends every walk."""
    begins, ends = (
        [max(together) for together in zip(*(part[what] for part in parts), strict=True)]
        for what in ("begins", "ends")
    )
    return [end - begin for begin, end in zip(begins[warmup:], ends[warmup + 1 :], strict=True)]


def _full_step_times(plan: Plan, parts: list[dict[str, Any]]) -> list[float]:
    """By walk: the mean of the steps in which a pipeline that is never drained is full."""
    steps, filling = steps_played(plan.strategy, plan.job), filling_steps(plan.strategy, plan.job)
    updates: dict[int, list[float]] = {}
    for mark in (Mark(*mark) for mark in parts[0]["marks"]):
        if mark.stream == COMPUTE and Action.parse(mark.action).kind is Kind.STEP:
            updates.setdefault(mark.step, []).append(mark.end or mark.issued)
    return [
        (ends[(steps - filling) * each - 1] - ends[filling * each - 1]) / (steps - 2 * filling)
        for _, ends in sorted(updates.items())
        if (each := len(ends) // steps)
    ]


def _begins(parts: list[dict[str, Any]], spans: list[Span], warmup: int) -> dict[tuple[int, int], float]:
    """(step, rank) to the moment its spans count from: when the last rank began the step.

    A rank that was ahead may have begun earlier; then that is the moment.
    """
    first_start: dict[int, float] = {}
    for span in spans:
        first_start[span.step] = min(span.start, first_start.get(span.step, span.start))
    begins = {}
    for step in range(warmup, len(parts[0]["begins"])):
        last = max(part["begins"][step] for part in parts)
        common = min(last, first_start.get(step, last))
        for part in parts:
            begins[step, part["rank"]] = common
    return begins


def _shifted(span: Span, begin: float, warmup: int) -> Span:
    return span._replace(
        start=max(0.0, span.start - begin), end=max(0.0, span.end - begin), step=span.step - warmup
    )


def _metadata(plan: Plan, parts: list[dict[str, Any]], warmup: int, seed: int) -> dict[str, object]:
    losses = [part["losses"] for part in parts if part["losses"] and not plan.strategy.servers]
    metadata: dict[str, object] = {
        "label": plan.strategy.label,
        "seed": seed,
        "warmup": warmup,
        "torch": torch.__version__,
        "python": platform.python_version(),
        # The mean over replicas, warm-up included: the loss of the global batch of every step.
        "losses": [sum(step) / len(step) for step in zip(*losses, strict=True)],
    }
    before, after = ([Reading(*part["load"][place]) for part in parts] for place in (0, -1))
    if load := load_between(before, after, parts[0]["cores"]):
        probes = [seconds for part in parts for seconds in part["probes"]]
        # The mean: a step is long enough to meet what comes and goes, which a median would leave out.
        metadata[LOAD] = load | ({PROBE: fmean(probes)} if probes else {})
    if plan.strategy.ep > 1:
        metadata["expert_imbalance"] = _expert_imbalance(plan, parts)
    return metadata


def _expert_imbalance(plan: Plan, parts: list[dict[str, Any]]) -> float:
    """Tokens of the busiest expert-parallel rank over the mean, in the mean over layers and groups."""
    ep, loads = plan.strategy.ep, {}
    group = Groups(plan.strategy)["ep"]
    for part in parts:
        pp = plan.coordinates(part["rank"])[0]
        first = group.of(part["rank"], pp * plan.strategy.replicas * plan.strategy.tp).start
        for layer, counts in part["expert_loads"].items():
            own = np.array(counts).reshape(ep, -1).sum(1)
            loads[layer, first] = loads.get((layer, first), 0) + own
    return float(np.mean([own.max() / own.mean() for own in loads.values()]))
