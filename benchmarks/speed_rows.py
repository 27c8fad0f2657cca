"""What the benchmarks of speed share: how large the cases are, how time is taken, and the rows of a table."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

REPEATS = 5


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    work: str
    seconds: float
    """processor seconds"""
    beside: str
    """What it is compared with."""
    required: str
    holds: bool


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How large the cases are."""

    stages: int = 64
    micro_batches: int = 512
    lanes: int = 64
    ring: int = 4096
    replicas: int = 128
    more_replicas: int = 782
    workers: int = 256
    updates: int = 1000
    pods: int = 16
    flow_leaves: int = 32
    flows: int = 4000
    flow_pods: int = 98


QUICK = Sizes(
    stages=4, micro_batches=8, lanes=4, ring=64, replicas=2, more_replicas=3, workers=4, updates=5, pods=1,
    flow_leaves=2, flows=40, flow_pods=1,
)  # fmt: skip


def cpu_s(work: Callable[[], T], repeats: int = REPEATS) -> tuple[float, T]:
    """Median processor seconds of ``work``, and what it gave, after one run that is not counted."""
    result, seconds = work(), []
    for _ in range(repeats):
        begin = time.process_time()
        result = work()
        seconds.append(time.process_time() - begin)
    return statistics.median(seconds), result


def once_s(work: Callable[[], T]) -> tuple[float, T]:
    """Processor seconds of one run."""
    begin = time.process_time()
    result = work()
    return time.process_time() - begin, result


def demand(equal: bool, what: str) -> None:
    """Stop unless results agree."""
    if not equal:
        raise SystemExit(f"{what}: results differ")


def ratio_row(work: str, seconds: float, other: str, other_s: float, least: float) -> Row:
    """A row that must be so many times as fast as another."""
    found = other_s / seconds
    beside = f"{other} {other_s:.3g} s: {found:,.0f} ×"
    return Row(work=work, seconds=seconds, beside=beside, required=f"≥ {least:,.0f} ×", holds=found >= least)


def limit_row(work: str, seconds: float, most: float, beside: str = "") -> Row:
    """A row that must take at most so many seconds."""
    return Row(work=work, seconds=seconds, beside=beside, required=f"≤ {most:g} s", holds=seconds <= most)


def table(rows: list[Row]) -> str:
    """Markdown."""
    lines = ["| work | CPU s | beside | required | holds |", "|---|---|---|---|---|"]
    for row in rows:
        took = f"{row.seconds:.4g}" if row.seconds else ""
        lines.append(
            f"| {row.work} | {took} | {row.beside} | {row.required} | {'yes' if row.holds else 'NO'} |"
        )
    return "\n".join(lines)
