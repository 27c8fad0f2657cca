"""A Plan with seconds: operations on streams, the one input of both engines.

An operation occupies all its `streams` (a transfer the sender's and the receiver's, a collective one of
every member), waits for its `after` operations, and may need shared `resources` (a core, a link). The
arithmetic is a contract, so that engines agree to the last bit, ties included:

    ready = max(end of the previous operation on each of its streams, end of each `after` + its delay, 0)
    start = ready, or, with resources, the first moment at which it is at the head of the queue of every
            one of its resources and all of them are free; queues are ordered by (ready, id) and served
            once all that happens at that moment has happened; all that can start then start together, and
            what follows from them at that same moment happens before the queues are served again
    end   = start + duration

A stream's order is the order in which its operations were added. An operation may come `after` one that
is added later (give its id through `depend`), as long as there is no cycle.

A Program may be folded: each operation then stands for one on every *lane*, a lane being one of the like
ranks that the axes (`dp`, `cp`, `tp`) number. Lane l of an operation happens on rank ``rank + l``, and
waits only for lane l of what it waits for, unless it has `sync` axes: then all lanes that differ in these
axes alone meet in it, start together and end together. With a `pattern` they do not start together, but pass
their data on step by step, each as soon as it can (`ring_steps.py`). Streams and resources are each lane's
own; who meets occupies those of all lanes that do. `unfold` (see `fold.py`) writes the lanes out.

Durations may differ by lane: they are an operation's own, times the jitter drawn for (operation, lane) as
`jitter.py` has it, times the slowness of `rank + lane`, in this order. Operations in which lanes meet take
the factors of the first lane that does; with a pattern each lane has its own, the same in all steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True)
class Operation:
    """One thing that takes time; `id` is its place in the Program."""

    id: int
    duration: float
    """seconds"""
    streams: tuple[int, ...]
    after: list[tuple[int, float]]
    """(id, delay in seconds)"""
    resources: tuple[int, ...]
    spans: tuple[SpanLabel, ...]
    """What the trace shows of it; empty shows nothing."""
    parent: int = -1
    """Operations with one parent show as one span: from the first start to the last end."""
    size_bytes: float = 0.0
    flops: float = 0.0
    rank: int = -1
    """Whose compute it is, on lane 0, or another row of the slowness that a run may have (`slowdown.py`); -1
    is communication that nothing slows."""
    sync: tuple[str, ...] = ()
    """Axes over which lanes meet in this operation, as a collective's members do."""
    pattern: str = ""
    """How they pass data on, step by step, if they do not start together: a name of `stepwise.PATTERNS`."""


@dataclass(frozen=True, slots=True)
class SpanLabel:
    """The columns of a trace row that do not come from the engine."""

    rank: int
    stream: str
    action: str
    stage: int
    micro_batch: int


@dataclass(slots=True)
class Program:
    """Operations with their streams and resources, in order of creation."""

    operations: list[Operation] = field(default_factory=list)
    streams: dict[tuple[int, str], int] = field(default_factory=dict)
    """(rank, name) to stream id"""
    resources: dict[tuple[str, int], int] = field(default_factory=dict)
    """(kind, number), as ("core", 0), to resource id"""
    axes: dict[str, int] = field(default_factory=dict)
    """Sizes of the axes that were folded, slowest first, as {"dp": 4, "cp": 1, "tp": 8}; none is one lane."""

    @property
    def lanes(self) -> int:
        """Like ranks that each operation stands for."""
        return math.prod(self.axes.values())

    def stream(self, rank: int, name: str) -> int:
        """The id of a rank's stream, made at its first use."""
        return self.streams.setdefault((rank, name), len(self.streams))

    def resource(self, kind: str, number: int) -> int:
        """The id of a shared resource, made at its first use."""
        return self.resources.setdefault((kind, number), len(self.resources))

    def add(
        self,
        duration: float,
        streams: tuple[int, ...] = (),
        *,
        after: list[tuple[int, float]] | None = None,
        resources: tuple[int, ...] = (),
        spans: tuple[SpanLabel, ...] = (),
        parent: int = -1,
        size_bytes: float = 0.0,
        flops: float = 0.0,
        rank: int = -1,
        sync: tuple[str, ...] = (),
        pattern: str = "",
    ) -> int:
        """Append an operation and return its id."""
        op_id = len(self.operations)
        self.operations.append(
            Operation(
                id=op_id,
                duration=duration,
                streams=streams,
                after=list(after or ()),
                resources=resources,
                spans=spans,
                parent=parent,
                size_bytes=size_bytes,
                flops=flops,
                rank=rank,
                sync=sync,
                pattern=pattern,
            )
        )
        return op_id

    def depend(self, op_id: int, on: int, delay: float = 0.0) -> None:
        """Let ``op_id`` come after ``on`` too."""
        self.operations[op_id].after.append((on, delay))
