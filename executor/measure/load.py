"""How busy this machine was while a rank ran: its own processor time, and everybody's (Linux, proc_stat)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

STAT = Path("/proc/stat")
IDLE_COLUMNS = (3, 4)
"""idle and iowait; all others of a core's line but the guests', which user and nice count already, are busy:
user nice system irq softirq, and steal, which the machine under this one kept for others."""
COUNTED = 8


class Reading(NamedTuple):
    """Seconds since some moment."""

    wall: float
    busy: float
    """Of all cores that the run may use; 0 where nobody says so."""
    own: float
    """Processor seconds of this process, all its threads."""


def read_load(cores: Iterable[int]) -> Reading:
    """A reading of now; the difference of two is a load."""
    return Reading(time.perf_counter(), busy_seconds(cores), time.process_time())


def usable_cores() -> list[int]:
    """Those that the process that started this one may use; a rank itself is pinned to one of them."""
    try:
        return sorted(os.sched_getaffinity(os.getppid()))
    except OSError:
        return sorted(os.sched_getaffinity(0))


def busy_seconds(cores: Iterable[int]) -> float:
    """How long ``cores`` were busy since the machine started; 0 where it does not say."""
    return busy_seconds_of(_text(), cores)


def busy_seconds_of(stat: str, cores: Iterable[int]) -> float:
    """The same by ``stat``, the text of /proc/stat."""
    wanted, ticks = {f"cpu{core}" for core in cores}, 0
    for line in stat.splitlines():
        name, *columns = line.split()
        if name in wanted:
            own = [int(column) for column in columns[:COUNTED]]
            ticks += sum(own) - sum(own[place] for place in IDLE_COLUMNS)
    return ticks / os.sysconf("SC_CLK_TCK")


def load_between(before: Sequence[Reading], after: Sequence[Reading], cores: int) -> dict[str, float]:
    """Cores that were there, that the ranks took, and that others took, from readings of every rank of one
    machine at the beginning and at the end; empty where the machine does not say."""
    wall = max(end.wall for end in after) - min(begin.wall for begin in before)
    busy = max(end.busy for end in after) - min(begin.busy for begin in before)
    own = sum(end.own - begin.own for begin, end in zip(before, after, strict=True))
    if wall <= 0.0 or busy <= 0.0:
        return {}
    return {"cores": float(cores), "own": own / wall, "others": max(0.0, busy - own) / wall}


def _text() -> str:
    try:
        return STAT.read_text()
    except OSError:
        return ""
