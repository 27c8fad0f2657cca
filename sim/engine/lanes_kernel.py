"""The lanes of `lanes.py` as loops for numba; `_Run._run_row` there does the same on whole rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..variability.jitter import GAMMA, QUANTILE_SHIFT

_STEP = np.uint64(GAMMA)
_SHIFT = np.uint64(QUANTILE_SHIFT)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_RIGHT_1, _RIGHT_2, _RIGHT_3 = np.uint64(30), np.uint64(27), np.uint64(31)


def lanes_kernel(
    order: Any,
    row_of: Any,
    source_from: Any,
    source: Any,
    delay: Any,
    is_last: Any,
    durations: Any,
    sync: Any,
    rank: Any,
    view_from: Any,
    views: Any,
    spans: Any,
    kept_leaders: Any,
    kept: Any,
    table: Any,
    sample_keys: Any,
    counters: Any,
    slow: Any,
    lane: Any,
    rows: Any,
    last: Any,
    starts: Any,
    ends: Any,
) -> None:
    """Run the operations of ``order``: rows of end times, the ``last`` of all, what is ``kept``.

    ``sync`` picks an operation's kind: its ``views`` (slices, members, places), its ``spans``, and the
    ``kept_leaders`` at which the kept places begin. Splitmix64 is written out, since it must be inlined.
    """
    samples = len(sample_keys)
    keys = np.empty(samples, dtype=np.uint64)
    for op in order:
        row = rows[row_of[op]]
        kind = sync[op]
        row[:] = 0.0
        for edge in range(source_from[op], source_from[op + 1]):
            before = rows[row_of[source[edge]]]
            late = delay[edge]
            for place in range(len(row)):
                ready = before[place] + late
                row[place] = ready if ready > row[place] else row[place]
        for view in range(view_from[kind], view_from[kind + 1]):
            slices, members, places = views[view]
            for begin in range(0, slices * members * places, members * places):
                for member in range(begin + places, begin + members * places, places):
                    for place in range(places):
                        ready = row[member + place]
                        row[begin + place] = ready if ready > row[begin + place] else row[begin + place]
        for k in range(len(kept)):
            starts[k, op] = row[kept_leaders[kind, k]]
        span = spans[kind]
        seconds = durations[op]
        slowed = slow.shape[1] > 0 and rank[op] >= 0
        if len(table) == 0 and not slowed:
            for place in range(span):
                row[place] += seconds
        elif len(table) == 0:
            for place in range(span):
                row[place] += seconds * slow[place % samples, rank[op] + lane[place // samples]]
        else:
            for sample in range(samples):
                z = sample_keys[sample] + np.uint64(op + 1) * _STEP
                z = (z ^ (z >> _RIGHT_1)) * _MIX_1
                z = (z ^ (z >> _RIGHT_2)) * _MIX_2
                keys[sample] = z ^ (z >> _RIGHT_3)
            if samples == 1:
                key = keys[0]
                for place in range(span):
                    z = counters[place] + key
                    z = (z ^ (z >> _RIGHT_1)) * _MIX_1
                    z = (z ^ (z >> _RIGHT_2)) * _MIX_2
                    took = seconds * table[(z ^ (z >> _RIGHT_3)) >> _SHIFT]
                    row[place] += took * slow[0, rank[op] + lane[place]] if slowed else took
            else:
                for at in range((span + samples - 1) // samples):
                    for sample in range(samples):
                        z = counters[at] + keys[sample]
                        z = (z ^ (z >> _RIGHT_1)) * _MIX_1
                        z = (z ^ (z >> _RIGHT_2)) * _MIX_2
                        took = seconds * table[(z ^ (z >> _RIGHT_3)) >> _SHIFT]
                        row[at * samples + sample] += (
                            took * slow[sample, rank[op] + lane[at]] if slowed else took
                        )
        for view in range(view_from[kind + 1] - 1, view_from[kind] - 1, -1):
            slices, members, places = views[view]
            for begin in range(0, slices * members * places, members * places):
                for member in range(begin + places, begin + members * places, places):
                    for place in range(places):
                        row[member + place] = row[begin + place]
        for k in range(len(kept)):
            ends[k, op] = row[kept[k]]
        if is_last[op]:
            for place in range(len(row)):
                last[place] = row[place] if row[place] > last[place] else last[place]
