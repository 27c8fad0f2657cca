"""Traces as files: gzip JSON in Kineto/Chrome form, which Perfetto and Holistic Trace Analysis open.

Every span is one complete event (``ph`` X, ``ts`` and ``dur`` in microseconds; process = rank, thread =
stream); steps follow one another on the time axis. What the form has no place for is in one more
top-level object, ``traincast``. The same trace gives the same bytes, and reading gives back the same
bits: where microseconds would round, the event's ``args`` carry ``start_s`` and ``end_s`` as well.
`trace_reader.py` reads them.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np

from ..errors import InputError
from ..files.writer import replacing
from .streams import Stream
from .trace import SCHEMA, Span, Trace

MAX_SLICES = 1_000_000
"""Perfetto's page opens about so many: some hundred MB of JSON."""
_MICRO = 1e6


def write_trace(
    trace: Trace,
    path: str | os.PathLike[str],
    *,
    unfold: bool = False,
    max_slices: int = MAX_SLICES,
) -> int:
    """Write ``trace`` to ``path`` (``*.trace.json.gz`` by custom), whole or not at all.

    ``unfold`` also writes the ranks that are like one in the trace, rank by rank, as many as ``max_slices``
    spans allow; nothing of them is kept in memory.

    >>> import traincast as tc
    >>> trace = tc.simulate("gpt2", "dgx-a100", pp=2, global_batch=8, seq_len=512)
    >>> tc.write_trace(trace, "gpt2.trace.json.gz")
    0

    Returns:
        How many ranks were left out, like ones and, beyond ``max_slices``, those that were asked for.

    Raises:
        InputError: the trace holds NaN, an infinity, or metadata that JSON cannot carry.
        UsageError: the file cannot be written.
    """
    copies = _copies(trace, max_slices) if unfold else []
    with replacing(path) as file, gzip.GzipFile("", "wb", 6, file, mtime=0) as packed:
        try:
            for line in _lines(trace, copies):
                packed.write(line.encode())
        except (ValueError, TypeError) as error:
            raise InputError(f"this trace cannot be written as JSON: {error}") from error
    return trace.world_size - len(trace.ranks) - len(copies)


def _copies(trace: Trace, max_slices: int) -> list[tuple[int, int]]:
    """(rank in the trace, like rank that is not) as far as the slices reach."""
    lanes = trace.lanes
    present = set(trace.ranks)
    bases = sorted(rank for rank in present if rank % lanes == 0)
    each = -(-len(trace.spans) // max(1, len(present)))
    room = max(0, (max_slices - len(trace.spans)) // max(1, each))
    like = ((base, base + lane) for lane in range(1, lanes) for base in bases if base + lane not in present)
    return list(islice(like, room))


def _lines(trace: Trace, copies: list[tuple[int, int]]) -> Iterator[str]:
    """The document, one event a line."""
    streams = _streams(trace)
    offsets = _step_offsets(trace)
    head = {
        "schemaVersion": 1,
        "displayTimeUnit": "ms",
        "distributedInfo": {
            "backend": str(trace.metadata.get("backend", trace.source)),
            "rank": 0,
            "world_size": trace.world_size,
        },
        "traincast": {
            "schema": SCHEMA,
            "source": trace.source,
            "world_size": trace.world_size,
            "streams": streams,
            "step_times_s": trace.step_times_s,
            "peak_memory_bytes": {str(rank): size for rank, size in trace.peak_memory_bytes.items()},
            "metadata": trace.metadata,
        },
    }
    yield _dumps(head)[:-1] + ',"traceEvents":[\n'
    numbers = {name: number for number, name in enumerate(streams)}
    separator = ""
    for event in _events(trace, copies, numbers, offsets):
        yield separator + _dumps(event)
        separator = ",\n"
    yield "\n]}\n"


def _dumps(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _streams(trace: Trace) -> list[str]:
    """Names of the streams, compute first; their places are the thread ids."""
    used = [trace.spans.streams[code] for code in np.unique(trace.spans.stream_code).tolist()]
    return sorted(used, key=lambda name: (name != Stream.COMPUTE, name))


def _step_offsets(trace: Trace) -> dict[int, float]:
    """Seconds at which each step is drawn: when the one before it is over."""
    steps, place = np.unique(trace.spans.step, return_inverse=True)
    lengths = np.zeros(len(steps))
    np.fmax.at(lengths, place, trace.spans.end)
    offsets, clock = {}, 0.0
    for step, length in zip(steps.tolist(), lengths.tolist(), strict=True):
        offsets[step] = clock
        measured = trace.step_times_s[step] if 0 <= step < len(trace.step_times_s) else 0.0
        clock += max(length, measured)
    return offsets


def _events(
    trace: Trace, copies: list[tuple[int, int]], numbers: dict[str, int], offsets: dict[int, float]
) -> Iterator[dict[str, Any]]:
    streams: dict[int, set[str]] = {}
    places = np.stack([trace.spans.rank, trace.spans.stream_code])
    for rank, code in np.unique(places, axis=1).T.tolist():
        streams.setdefault(rank, set()).add(trace.spans.streams[code])
    named = streams | {rank: streams[base] for base, rank in copies}
    for rank in sorted(named):
        yield _label("process_name", rank, 0, {"name": f"rank {rank} ({trace.source})"})
        yield _label("process_sort_index", rank, 0, {"sort_index": rank})
    for rank in sorted(named):
        for name in sorted(named[rank], key=numbers.__getitem__):
            yield _label("thread_name", rank, numbers[name], {"name": name})
            yield _label("thread_sort_index", rank, numbers[name], {"sort_index": numbers[name]})
    for span in trace.spans:
        yield _event(span, numbers[span.stream], offsets[span.step])
    by_rank = {base: trace.spans.take(trace.spans.rank == base) for base, _ in copies}
    for base, rank in copies:
        for span in by_rank[base]:
            yield _event(span._replace(rank=rank), numbers[span.stream], offsets[span.step])


def _label(what: str, pid: int, tid: int, args: dict[str, object]) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": args}


def _event(span: Span, thread: int, offset: float) -> dict[str, Any]:
    ts, dur = (offset + span.start) * _MICRO, (span.end - span.start) * _MICRO
    args: dict[str, object] = {
        "stage": span.stage,
        "micro_batch": span.micro_batch,
        "bytes": span.bytes,
        "flops": span.flops,
        "step": span.step,
        "stream": thread,
    }
    if (ts / _MICRO, (ts + dur) / _MICRO) != (span.start, span.end):
        args |= {"start_s": span.start, "end_s": span.end}
    return {
        "ph": "X",
        "cat": "kernel",  # what profilers call work on a device; HTA reads nothing else as such
        "name": span.action,
        "pid": span.rank,
        "tid": thread,
        "ts": ts,
        "dur": dur,
        "args": args,
    }
