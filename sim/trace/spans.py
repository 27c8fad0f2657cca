"""Stretches of time as (start, end) pairs, in seconds: their union and its length."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

Interval = tuple[float, float]


def merge(intervals: Iterable[Interval]) -> list[Interval]:
    """The union of intervals as disjoint ones, in order."""
    merged: list[Interval] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def total(intervals: Sequence[Interval]) -> float:
    """Summed length of disjoint intervals."""
    return sum(end - start for start, end in intervals)


def merged(starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`merge` of intervals given as columns, float64[n] each: starts and ends of the union, in order."""
    if not len(starts):
        return starts, ends
    order = np.lexsort((ends, starts))
    starts, reached = starts[order], np.maximum.accumulate(ends[order])
    begins = np.concatenate([[True], starts[1:] > reached[:-1]])
    last = np.concatenate([begins[1:], [True]])
    return starts[begins], reached[last]


def length(starts: np.ndarray, ends: np.ndarray) -> float:
    """`total` of disjoint intervals given as columns."""
    return sum((ends - starts).tolist())
