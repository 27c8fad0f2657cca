"""Cores that many take turns on: part of the kernel of update protocols, in what CPython and numba both run.

A core works on the job at the head of its queue for one turn; a job with turns left goes to the tail. Its
number is the key of the event that happens when it is done.
"""

from __future__ import annotations

import math
from heapq import heappush
from typing import Any

from .events import TURN
from .tables import Tables


def occupy(t: Tables, events: Any, now: float, number: int, seconds: float, slice_s: float, key: int) -> None:
    """Give a core a job, in turns of at most ``slice_s``; when it is done, the event ``key`` happens."""
    processor, job = t.processor[number], t.job[key]
    processor.busy += seconds
    job.left = max(1, math.ceil(seconds / slice_s))
    job.share = seconds / job.left
    job.begun = math.nan
    line_up(t, events, now, number, key)


def line_up(t: Tables, events: Any, now: float, number: int, key: int) -> None:
    """Put a job behind all that wait for a core; it begins if none does."""
    processor = t.processor[number]
    t.job[key].next = -1
    if processor.head >= 0:
        t.job[processor.tail].next = key
        processor.tail = key
        return
    processor.head = processor.tail = key
    begin_turn(t, events, now, number)


def begin_turn(t: Tables, events: Any, now: float, number: int) -> None:
    """Work on the first of those that wait for a core."""
    job = t.job[t.processor[number].head]
    if math.isnan(job.begun):
        job.begun = now
    heappush(events, (now + job.share, TURN * t.items + number))


def end_turn(t: Tables, events: Any, now: float, number: int) -> None:
    """A turn on a core is over: the next one's begins."""
    processor = t.processor[number]
    key = processor.head
    job = t.job[key]
    job.left -= 1
    processor.head = job.next
    if processor.head >= 0:
        begin_turn(t, events, now, number)
    if job.left > 0:
        line_up(t, events, now, number, key)
    else:
        heappush(events, (now, key))
