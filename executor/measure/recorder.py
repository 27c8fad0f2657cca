"""What happened when, by rank: marks taken while training, and the spans they become.

A mark says when a rank *issued* something; a span begins when the last member has arrived, which no rank
knows by itself. So ranks record marks, and `align_spans` joins those of one transfer or collective
afterwards. Times are those of CLOCK_MONOTONIC, which all processes of one host share.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from statistics import median
from typing import NamedTuple

import torch

from ...sim.plan.action import Action, Kind
from ...sim.trace.trace import Span
from ..measure.heartbeat import Heartbeat

COMPUTE = "compute"


class Mark(NamedTuple):
    """One thing a rank did; seconds of the shared clock."""

    rank: int
    stream: str
    action: str
    stage: int
    micro_batch: int
    step: int
    issued: float
    end: float | None = None
    """None on the sending side of a message: it ends when the receiver has it."""
    bytes: float = 0.0
    key: str = ""
    """The same for all members of one transfer or collective of a step; empty for compute."""
    channel: str = ""
    """What this rank does one after the other: a message waits for those before it."""


def align_spans(marks: Iterable[Mark]) -> list[Span]:
    """Spans of ``marks``, with the times of the marks.

    A transfer or collective begins once its last member has issued it and every member is done with what
    came before on the same channel. A message ends for both sides when the receiver has it; one that had
    arrived before the receiver looked is given the median duration of those it waited for.
    """
    together: dict[tuple[int, str], list[Mark]] = defaultdict(list)
    spans = []
    for mark in marks:
        if mark.key:
            together[mark.step, mark.key].append(mark)
        else:
            spans.append(_span(mark, mark.issued, mark.issued if mark.end is None else mark.end))
    free: dict[tuple[int, str], float] = {}
    groups = sorted(together.values(), key=lambda group: max(m.issued for m in group))
    usual_s = _usual_durations(groups)
    for members in groups:
        begin = max(max(m.issued, free.get((m.rank, m.channel), m.issued)) for m in members)
        unseen = begin + usual_s.get(members[0].bytes, 0.0)
        arrival = max((m.end for m in members if m.end is not None), default=unseen)
        for mark in members:
            end = max(arrival if mark.end is None else mark.end, begin)
            free[mark.rank, mark.channel] = end
            spans.append(_span(mark, begin, end))
    return spans


def _usual_durations(groups: Iterable[list[Mark]]) -> dict[float, float]:
    """Median seconds, by bytes, of the messages whose end somebody saw."""
    seen: dict[float, list[float]] = defaultdict(list)
    for members in groups:
        ends = [m.end for m in members if m.end is not None]
        if ends:
            seen[members[0].bytes].append(max(0.0, max(ends) - max(m.issued for m in members)))
    return {size: median(durations) for size, durations in seen.items()}


def _span(mark: Mark, start: float, end: float) -> Span:
    return Span(
        mark.rank,
        mark.stream,
        mark.action,
        mark.stage,
        mark.micro_batch,
        start,
        end,
        mark.bytes,
        0.0,
        mark.step,
    )


class CpuClock:
    """A stamp is the time it was taken at."""

    def stamp(self) -> float:
        return time.perf_counter()

    def resolve(self, stamp: float) -> float:
        return stamp

    def settle(self) -> None:
        """Nothing runs on after the call that started it."""


class CudaClock:
    """A stamp is an event on the current stream; its time is known once the device has passed it."""

    def __init__(self) -> None:
        self._tie()

    def _tie(self) -> None:
        """Note one event's time on the host's clock; others are measured from it."""
        self.origin = torch.cuda.Event(enable_timing=True)
        self.origin.record()
        self.origin.synchronize()
        self.origin_s = time.perf_counter()

    def stamp(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def resolve(self, stamp: torch.cuda.Event) -> float:
        return self.origin_s + self.origin.elapsed_time(stamp) / 1e3

    def settle(self) -> None:
        """Wait for the device: the one synchronisation of a step."""
        torch.cuda.synchronize()


Clock = CpuClock | CudaClock


class Recorder:
    """Marks of one rank, and its heartbeat. Several threads may add to it."""

    def __init__(self, rank: int, clock: Clock, heartbeat: Heartbeat):
        self.rank, self.clock, self.heartbeat = rank, clock, heartbeat
        self.step = 0
        self.current = Action(0, Kind.FORWARD, 0)
        """The action at work: what is noted meanwhile belongs to it."""
        self.marks: list[Mark] = []
        self._counts: Counter[str] = Counter()
        self._open: list[tuple[Mark, object, object, list[tuple[object, object]]]] = []
        self._waits: list[tuple[object, object]] = []

    def waited(self, begin: object, end: object) -> None:
        """Compute stood still between these stamps, for a collective inside it."""
        self._waits.append((begin, end))

    def count(self, name: str) -> int:
        """How often this was asked of ``name`` before."""
        self._counts[name] += 1
        return self._counts[name] - 1

    def add(
        self,
        action: Action,
        stream: str,
        issued: object,
        end: object = None,
        *,
        size_bytes: float = 0.0,
        key: str = "",
        channel: str = "",
        step: int | None = None,
    ) -> None:
        """Note that ``action`` was issued at one stamp and ended at another. Compute is noted without what it
        waited since the compute before."""
        mark = Mark(
            self.rank,
            stream,
            str(action),
            *action.numbers,
            self.step if step is None else step,
            0.0,
            None,
            size_bytes,
            key,
            channel or stream,
        )
        waits: list[tuple[object, object]] = []
        if stream == COMPUTE:
            waits, self._waits = self._waits, []
        self._open.append((mark, issued, end, waits))

    def settle(self) -> float:
        """Wait for the device, turn stamps into seconds and return the time."""
        self.clock.settle()
        now = time.perf_counter()
        pending, self._open = self._open, []
        for mark, issued, end, waits in pending:
            ended = None if end is None else self._seconds(end)
            whole = mark._replace(issued=self._seconds(issued), end=ended)
            self.marks += _cut(whole, [(self._seconds(a), self._seconds(b)) for a, b in waits])
        return now

    def _seconds(self, stamp: object) -> float:
        return self.clock.resolve(stamp)  # type: ignore[arg-type]


def _cut(mark: Mark, waits: list[tuple[float, float]]) -> list[Mark]:
    """``mark`` without ``waits``, which are in order: the pieces that are left."""
    pieces = []
    for begin, end in waits:
        if mark.end is not None and mark.issued <= begin and end <= mark.end:
            if begin > mark.issued:
                pieces.append(mark._replace(end=begin))
            mark = mark._replace(issued=end)
    return [*pieces, mark]
