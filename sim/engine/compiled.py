"""The engine that runs by default: a Program as flat arrays, walked by one of two kernels.

Without resources the order of events does not matter, so a worklist suffices: whatever has ended lets
its successors know. With resources an event heap keyed (time, kind, id) holds the arrivals and releases
of the operations that share something; all others still spread through the worklist as soon as their end
is known. The arithmetic is that of `program.py`, so results equal those of `reference` to the last bit.

Each kernel is written once, in what CPython runs fast on lists and numba compiles on arrays. Interpreted
is the everyday path; above `COMPILE_FROM` operations numba is worth its import and compile time.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Any

import numpy as np

from ..jit import compiled as compile_kernel
from ..jit import worthwhile
from ..program.arrays import FlatProgram, flatten
from ..program.checks import checked_durations, deadlock
from ..program.program import Program

COMPILE_FROM = 1_000_000
"""Operations from which numba pays: importing it and loading cached code takes about a second."""

LOADED_FROM = 5_000
"""Operations from which it pays once loaded: below, filling arrays costs more than it saves."""

RELEASE, ARRIVE = 0, 1
"""Kinds of events. Both of one moment are done before anything starts, so their order changes no result."""

Times = tuple[list[float], list[float]]


def run(program: Program, durations: Sequence[float] | np.ndarray | None = None) -> Times:
    """Start and end of every operation by id, in seconds.

    ``durations`` replaces those of the program, by id. Of a folded Program this is any lane where all are
    alike; `lanes` runs lanes that differ.

    Raises:
        InputError: operations that can never start, or seconds that are negative or not finite.
    """
    return run_flat(flatten(program), durations)


def run_flat(
    flat: FlatProgram,
    durations: Sequence[float] | np.ndarray | None = None,
    *,
    compiled: bool | None = None,
) -> Times:
    """As `run`, for a program that was flattened before: many samples share its arrays.

    ``compiled`` says whether numba runs it; without it the number of operations decides.

    Raises:
        InputError: as `run`.
    """
    kernel = heap_kernel if flat.resources else worklist_kernel
    if compiled is None:
        compiled = worthwhile(kernel, flat.operations, COMPILE_FROM, LOADED_FROM)
    if compiled:
        starts, ends = run_arrays(flat, durations)
        return starts.tolist(), ends.tolist()
    return _run_interpreted(flat, _seconds(flat, durations))


def run_arrays(
    flat: FlatProgram, durations: Sequence[float] | np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """As `run_flat` under numba, for programs so large that the times should stay arrays: float64[n] each."""
    seconds = _seconds(flat, durations)
    starts, ends, waits = np.zeros(flat.operations), np.zeros(flat.operations), flat.waits.copy()
    edges = (waits, flat.edge_from, flat.edge_to, flat.edge_delay, seconds)
    if flat.resources:
        busy = np.zeros(flat.resources, dtype=np.bool_)
        compile_kernel(heap_kernel)(*edges, flat.slot_from, flat.slot_resource, busy, starts, ends)
    else:
        compile_kernel(worklist_kernel)(*edges, starts, ends)
    _refuse_stuck(flat, waits)
    return starts, ends


def _run_interpreted(flat: FlatProgram, durations: np.ndarray) -> Times:
    starts, ends, waits = [0.0] * flat.operations, [0.0] * flat.operations, flat.waits.tolist()
    edge_from, edge_to, edge_delay, slot_from, slot_resource = flat.as_lists
    edges = (waits, edge_from, edge_to, edge_delay, durations.tolist())
    if flat.resources:
        heap_kernel(*edges, slot_from, slot_resource, [False] * flat.resources, starts, ends)
    else:
        worklist_kernel(*edges, starts, ends)
    _refuse_stuck(flat, np.array(waits))
    return starts, ends


def _seconds(flat: FlatProgram, durations: Sequence[float] | np.ndarray | None) -> np.ndarray:
    return flat.durations if durations is None else checked_durations(durations, flat.operations)


def _refuse_stuck(flat: FlatProgram, waits: np.ndarray) -> None:
    stuck = np.flatnonzero(waits)
    if len(stuck):
        raise deadlock(flat.program, stuck.tolist())


def worklist_kernel(
    waits: Any, edge_from: Any, edge_to: Any, edge_delay: Any, durations: Any, starts: Any, ends: Any
) -> None:
    """Run operations that share no resources; fills ``starts`` and ``ends``, counts ``waits`` down to 0.

    Until an operation starts, `starts` holds the latest moment it must wait for, as known so far.
    """
    known = [op for op in range(len(waits)) if waits[op] == 0]
    while known:
        op = known.pop()
        end = starts[op] + durations[op]
        ends[op] = end
        for edge in range(edge_from[op], edge_from[op + 1]):
            successor = edge_to[edge]
            ready = end + edge_delay[edge]
            if ready > starts[successor]:
                starts[successor] = ready
            waits[successor] -= 1
            if waits[successor] == 0:
                known.append(successor)


def heap_kernel(
    waits: Any,
    edge_from: Any,
    edge_to: Any,
    edge_delay: Any,
    durations: Any,
    slot_from: Any,
    slot_resource: Any,
    busy: Any,
    starts: Any,
    ends: Any,
) -> None:
    """Run operations some of which share resources; fills ``starts`` and ``ends`` as `worklist_kernel` does.

    All that happens at a moment is in the heap before that moment comes, save what follows from starts at
    that moment itself. So one round pops a whole moment, then starts what can start; whatever then ends or
    arrives at the same moment makes another round.
    """
    known = [op for op in range(len(waits)) if waits[op] == 0 and slot_from[op] == slot_from[op + 1]]
    events = [
        (0.0, ARRIVE, op) for op in range(len(waits)) if waits[op] == 0 and slot_from[op] != slot_from[op + 1]
    ]
    queues = [[(0.0, op) for op in range(0)] for _ in range(len(busy))]
    touched = list(range(0))
    while True:
        while known:
            op = known.pop()
            end = starts[op] + durations[op]
            ends[op] = end
            for edge in range(edge_from[op], edge_from[op + 1]):
                successor = edge_to[edge]
                ready = end + edge_delay[edge]
                if ready > starts[successor]:
                    starts[successor] = ready
                waits[successor] -= 1
                if waits[successor] == 0:
                    if slot_from[successor] == slot_from[successor + 1]:
                        known.append(successor)
                    else:
                        # + 0 makes numba's int32 an int64, as the other events' ids are
                        heappush(events, (starts[successor], ARRIVE, successor + 0))
        if not events:
            return
        now = events[0][0]
        while events and events[0][0] == now:
            _, kind, op = heappop(events)
            for slot in range(slot_from[op], slot_from[op + 1]):
                resource = slot_resource[slot]
                touched.append(resource)
                if kind == RELEASE:
                    busy[resource] = False
                else:
                    heappush(queues[resource], (now, op))
        while touched:
            resource = touched.pop()
            if busy[resource] or not queues[resource]:
                continue
            op = queues[resource][0][1]
            free = True
            for slot in range(slot_from[op], slot_from[op + 1]):
                other = slot_resource[slot]
                if busy[other] or queues[other][0][1] != op:
                    free = False
            if free:
                for slot in range(slot_from[op], slot_from[op + 1]):
                    busy[slot_resource[slot]] = True
                    heappop(queues[slot_resource[slot]])
                starts[op] = now
                known.append(op)
                heappush(events, (now + durations[op], RELEASE, op))
