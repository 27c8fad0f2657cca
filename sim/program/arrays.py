"""A Program as arrays: what the engines run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .checks import checked_durations, refuse_bad_references, refuse_bad_seconds
from .program import Program


@dataclass(frozen=True, kw_only=True)
class FlatProgram:
    """A Program as arrays: n operations, e edges, s slots (pairs of an operation and a resource).

    An edge leads from an operation to one that waits for it: the next one on a stream (no delay), or one
    that comes `after` it.
    """

    program: Program | None
    """What was flattened, to name operations in errors; None if arrays are all there is."""
    durations: np.ndarray
    """float64[n], seconds"""
    waits: np.ndarray
    """int32[n], edges that lead to an operation"""
    edge_from: np.ndarray
    """int64[n + 1], the edges of operation i are those from `edge_from[i]` up to `edge_from[i + 1]`"""
    edge_to: np.ndarray
    """int32[e]"""
    edge_delay: np.ndarray
    """float64[e], seconds"""
    slot_from: np.ndarray
    """int64[n + 1], the slots of operation i"""
    slot_resource: np.ndarray
    """int32[s], resources numbered from 0"""
    resources: int

    @property
    def operations(self) -> int:
        return len(self.durations)

    @cached_property
    def as_lists(self) -> tuple[list, ...]:
        """The arrays as lists, which CPython indexes three times as fast; made once for many runs."""
        arrays = (self.edge_from, self.edge_to, self.edge_delay, self.slot_from, self.slot_resource)
        return tuple(array.tolist() for array in arrays)


def flatten(program: Program) -> FlatProgram:
    """The arrays of a Program; `run_flat` runs them as often as is wanted.

    Raises:
        InputError: an operation comes after one that does not exist, or seconds are negative or not finite.
    """
    count = len(program.operations)
    durations = checked_durations([operation.duration for operation in program.operations], count)
    sources, targets, delays = _edges(program)
    refuse_bad_references(sources, count)
    refuse_bad_seconds(delays, "delay of edge")
    slots = [_distinct(operation.resources) for operation in program.operations]
    shares = any(slots)
    slot_counts = [len(slot) for slot in slots] if shares else np.zeros(count)
    return flat_arrays(
        program,
        durations,
        (sources, targets, delays),
        offsets(np.asarray(slot_counts, dtype=np.int64)),
        np.array([resource for slot in slots for resource in slot], dtype=np.int32),
        resources=len(program.resources) if shares else 0,
    )


def flat_arrays(
    program: Program | None,
    durations: np.ndarray,
    edges: tuple[np.ndarray, np.ndarray, np.ndarray],
    slot_from: np.ndarray,
    slot_resource: np.ndarray,
    *,
    resources: int,
) -> FlatProgram:
    """A FlatProgram from its edges (from, to, delay) in any order; nothing is checked."""
    sources, targets, delays = edges
    by_source = np.argsort(sources, kind="stable")
    return FlatProgram(
        program=program,
        durations=durations,
        waits=np.bincount(targets, minlength=len(durations)).astype(np.int32),
        edge_from=offsets(np.bincount(sources, minlength=len(durations))),
        edge_to=targets[by_source].astype(np.int32, copy=False),
        edge_delay=delays[by_source],
        slot_from=slot_from,
        slot_resource=slot_resource,
        resources=resources,
    )


def _edges(program: Program) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(from, to, delay) of every edge: first what orders streams, then what was asked for, by `to`."""
    sources: list[int] = []
    targets: list[int] = []
    delays: list[float] = []
    last_on_stream: dict[int, int] = {}
    for operation in program.operations:
        op = operation.id
        for stream in _distinct(operation.streams):
            if stream in last_on_stream:
                sources.append(last_on_stream[stream])
                targets.append(op)
                delays.append(0.0)
            last_on_stream[stream] = op
        for source, delay in operation.after:
            sources.append(source)
            targets.append(op)
            delays.append(delay)
    return (
        np.array(sources, dtype=np.int64),
        np.array(targets, dtype=np.int64),
        np.array(delays, dtype=np.float64),
    )


def _distinct(ids: tuple[int, ...]) -> tuple[int, ...]:
    """``ids`` without repetitions; most have one or none."""
    return ids if len(ids) < 2 else tuple(dict.fromkeys(ids))


def offsets(counts: np.ndarray) -> np.ndarray:
    """Where each group begins, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
