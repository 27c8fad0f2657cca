"""The reference engine: what the words of `program.py` mean, in simpy, to be believed by reading.

A stream is a process that takes its operations in order. An operation is a process too: it begins when
every one of its streams has come to it and all that it comes after has ended (a rendezvous), then queues
for its resources. The Arbiter grants resources when all that happens at a moment has happened.

Time is only ever advanced by `timeout` from the moment at which something ended, so that simpy's own
`now + delay` is the arithmetic of the contract. Meant for 10^5 operations; `compiled` is the fast one.
"""

from __future__ import annotations

from bisect import insort
from collections import defaultdict
from collections.abc import Generator, Sequence
from typing import cast

import numpy as np
import simpy
from simpy.events import EventPriority

from ..program.checks import checked_durations, deadlock, refuse_bad_references, refuse_bad_seconds
from ..program.program import Operation, Program

Waiting = Generator[simpy.Event, None, None]

AFTER_ALL_ELSE = cast(EventPriority, 2)
"""simpy's own priorities are 0 and 1; of the events at one time those with the lowest number come first."""


def run(
    program: Program, durations: Sequence[float] | np.ndarray | None = None
) -> tuple[list[float], list[float]]:
    """Start and end of every operation by id, in seconds.

    ``durations`` replaces those of the program, by id.

    Raises:
        InputError: operations that can never start, or seconds that are negative or not finite.
    """
    operations = program.operations
    waits = [wait for operation in operations for wait in operation.after]
    refuse_bad_references(np.array([source for source, _ in waits], dtype=np.int64), len(operations))
    refuse_bad_seconds(np.array([delay for _, delay in waits], dtype=np.float64), "delay of reference")
    if durations is None:
        durations = [operation.duration for operation in operations]
    simulation = _Simulation(program, checked_durations(durations, len(operations)).tolist())
    simulation.env.run()
    stuck = [operation.id for operation in operations if not simulation.done[operation.id].triggered]
    if stuck:
        raise deadlock(program, stuck)
    return simulation.starts, simulation.ends


class _Simulation:
    """Processes of all streams and operations of one program, ready to run."""

    def __init__(self, program: Program, durations: list[float]) -> None:
        count = len(program.operations)
        self.env = simpy.Environment(initial_time=0.0)
        self.arbiter = Arbiter(self.env)
        self.durations = durations
        self.starts = [0.0] * count
        self.ends = [0.0] * count
        self.done = [self.env.event() for _ in range(count)]
        self.taken: dict[tuple[int, int], simpy.Event] = {}
        by_stream: dict[int, list[int]] = defaultdict(list)
        for operation in program.operations:
            for stream in set(operation.streams):
                by_stream[stream].append(operation.id)
                self.taken[stream, operation.id] = self.env.event()
        for stream, ids in by_stream.items():
            self.env.process(self._stream(stream, ids))
        for operation in program.operations:
            self.env.process(self._operation(operation))

    def _stream(self, stream: int, operations: list[int]) -> Waiting:
        for op in operations:
            self.taken[stream, op].succeed()
            yield self.done[op]

    def _operation(self, operation: Operation) -> Waiting:
        op = operation.id
        streams_here = [self.taken[stream, op] for stream in set(operation.streams)]
        others_over = [self._over(source, delay) for source, delay in operation.after]
        yield self.env.all_of([*streams_here, *others_over])
        if operation.resources:
            yield self.arbiter.request(op, operation.resources)
        self.starts[op] = self.env.now
        yield self.env.timeout(self.durations[op])
        self.ends[op] = self.env.now
        self.arbiter.release(operation.resources)
        self.done[op].succeed()

    def _over(self, op: int, delay: float) -> simpy.Event:
        """Happens when ``op`` ended ``delay`` seconds ago."""
        return self.env.process(self._after_end(op, delay)) if delay else self.done[op]

    def _after_end(self, op: int, delay: float) -> Waiting:
        yield self.done[op]
        yield self.env.timeout(delay)


class Arbiter:
    """Grants shared resources, each strictly in order of (ready, id).

    Each time it decides, every operation starts that is at the head of all its queues and finds all its
    resources free. It decides once a moment is over: if what it grants ends at that same moment, it lets
    all that follows at that moment happen first and then decides again.
    """

    def __init__(self, env: simpy.Environment) -> None:
        self.env = env
        self.queues: dict[int, list[tuple[float, int]]] = defaultdict(list)
        self.waiting: dict[tuple[float, int], tuple[set[int], simpy.Event]] = {}
        self.busy: set[int] = set()
        self.deciding = False

    def request(self, op: int, resources: Sequence[int]) -> simpy.Event:
        """Queue an operation that is ready now; the event happens when it has all its resources."""
        place = (self.env.now, op)
        for resource in set(resources):
            insort(self.queues[resource], place)
        granted = self.env.event()
        self.waiting[place] = (set(resources), granted)
        self._decide_when_moment_is_over()
        return granted

    def release(self, resources: Sequence[int]) -> None:
        """Give resources back."""
        if resources:
            self.busy.difference_update(resources)
            self._decide_when_moment_is_over()

    def _decide_when_moment_is_over(self) -> None:
        if not self.deciding:
            self.deciding = True
            moment_over = simpy.Event(self.env)
            moment_over._ok, moment_over._value = True, None  # as `succeed` does, which knows no priority
            moment_over.callbacks.append(self._decide)
            self.env.schedule(moment_over, AFTER_ALL_ELSE)

    def _decide(self, _: simpy.Event) -> None:
        self.deciding = False
        for place in sorted({queue[0] for queue in self.queues.values() if queue}):
            resources, granted = self.waiting[place]
            if resources & self.busy or any(self.queues[resource][0] != place for resource in resources):
                continue
            for resource in resources:
                self.queues[resource].pop(0)
            self.busy |= resources
            del self.waiting[place]
            granted.succeed()
