"""A step's arrays in one pass: ranks are walked in turn, each as far as it gets, and times fall out.

The order is that in which `build.py` adds operations: every rank goes on until it waits for a message that
has not been sent. Whatever an operation comes after has then been walked, so its start is known when it is
reached; no queue of events is needed. Times are those of the contract in `program.py`, bit for bit, and the
place in the order is the number that the operation has there, which jitter is drawn by.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from ..jit import compiled as compile_kernel
from ..jit import worthwhile
from ..program.step_arrays import StepArrays

COMPILE_FROM, LOADED_FROM = 1_000_000, 2_000
"""Operations from which numba pays, if it must be loaded and if it was."""

UNKNOWN = -1.0
"""The end of an operation that has not been walked."""


@dataclass(frozen=True, kw_only=True)
class Walked:
    """When the n operations of a step happen where all lanes are alike."""

    starts: np.ndarray
    """float64[n], seconds"""
    ends: np.ndarray
    """float64[n], seconds"""
    order: np.ndarray
    """int64[n]: operations as they were walked"""
    previous: np.ndarray
    """int64[n, 2]: what was before each on its streams; -1 is nothing"""


def walk(step: StepArrays, *, compiled: bool | None = None) -> Walked:
    """Walk all ranks of ``step``. ``compiled`` says whether numba does it; without it their number decides.

    Raises:
        InputError: ranks wait for each other.
    """
    count, width = step.waits.shape
    streams = int(step.streams.max(initial=-1)) + 1
    if compiled is None:
        compiled = worthwhile(walk_kernel, count, COMPILE_FROM, LOADED_FROM)
    given = [step.first, step.entries, step.durations, step.streams.reshape(-1), step.waits.reshape(-1)]
    work = [
        np.full(streams, -1), step.first[:-1].copy(), np.zeros(count), np.full(count, UNKNOWN),
        np.zeros(count, dtype=np.int64), np.full(2 * count, -1),
    ]  # fmt: skip
    if compiled:
        done = compile_kernel(walk_kernel)(*given, *work, width)
    else:
        given, work = ([array.tolist() for array in arrays] for arrays in (given, work))
        done = walk_kernel(*given, *work, width)
    if done < count:
        raise InputError(
            f"the plan's actions wait for each other: {count - done} of {count} operations never start"
        )
    starts, ends, order, previous = map(np.asarray, work[2:])
    return Walked(starts=starts, ends=ends, order=order, previous=previous.reshape(-1, 2))


def walk_kernel(
    first: Any,
    entries: Any,
    durations: Any,
    streams: Any,
    waits: Any,
    last: Any,
    place: Any,
    starts: Any,
    ends: Any,
    order: Any,
    previous: Any,
    width: int,
) -> int:
    """Fill ``starts``, ``ends``, ``order`` and ``previous``; gives how many operations could be done."""
    done = 0
    goes_on = True
    while goes_on:
        goes_on = False
        for rank in range(len(place)):
            at = place[rank]
            stop = first[rank + 1]
            while at < stop:
                op = entries[at]
                if op < 0:
                    if ends[-1 - op] < 0.0:
                        break
                    at += 1
                    continue
                if ends[op] >= 0.0:
                    at += 1
                    continue
                start = 0.0
                blocked = False
                for wait in range(op * width, op * width + width):
                    before = waits[wait]
                    if before >= 0:
                        end = ends[before]
                        if end < 0.0:
                            blocked = True
                        elif end > start:
                            start = end
                if blocked:
                    break
                for slot in range(2 * op, 2 * op + 2):
                    stream = streams[slot]
                    if stream >= 0:
                        before = last[stream]
                        previous[slot] = before
                        if before >= 0 and ends[before] > start:
                            start = ends[before]
                        last[stream] = op
                starts[op] = start
                ends[op] = start + durations[op]
                order[done] = op
                done += 1
                at += 1
            if at > place[rank]:
                goes_on = True
            place[rank] = at
    return done
