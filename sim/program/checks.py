"""What both engines refuse: durations that are no time spans, references to nowhere, deadlock.

A deadlock is told as the circle of operations that wait for one another, each by its span label.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import Fault, InputError
from .program import Operation, Program

SHOWN = 8
"""Operations that a message names before it breaks off."""


def checked_durations(durations: Sequence[float] | np.ndarray, operations: int) -> np.ndarray:
    """``durations`` as an array of ``operations`` float64.

    Raises:
        InputError: another number of durations, or one that is negative, infinite or not a number.
    """
    seconds = np.asarray(durations, dtype=np.float64)
    if seconds.shape != (operations,):
        raise InputError(f"{len(seconds)} durations for {operations} operations")
    refuse_bad_seconds(seconds, "duration of operation")
    return seconds


def refuse_bad_seconds(seconds: np.ndarray, what: str) -> None:
    """Raise InputError that names the first values that are negative, infinite or not a number."""
    bad = np.flatnonzero(~((seconds >= 0.0) & np.isfinite(seconds)))
    if len(bad):
        raise InputError(
            [
                Fault(
                    path=f"{what} {i}", found=repr(float(seconds[i])), expected="finite seconds, at least 0"
                )
                for i in bad[:SHOWN].tolist()
            ]
        )


def refuse_bad_references(sources: np.ndarray, operations: int) -> None:
    """Raise InputError where an operation comes after one that does not exist."""
    bad = np.flatnonzero((sources < 0) | (sources >= operations))
    if len(bad):
        raise InputError(f"an operation comes after {int(sources[bad[0]])}, but ids are 0..{operations - 1}")


def deadlock(program: Program | None, stuck: Sequence[int]) -> InputError:
    """The error that says which operations can never start. ``stuck`` holds their ids, at least one.

    Without a Program they have no names, and the circle is not looked for.
    """
    if program is None:
        some = ", ".join(f"op {op}" for op in sorted(stuck)[:SHOWN])
        return InputError(f"deadlock: {len(stuck)} operations never start (first: {some})")
    circle = _circle(_waits_for(program, stuck), min(stuck))
    labels = [operation_label(program.operations[op]) for op in circle[:SHOWN]]
    if len(circle) > SHOWN:
        labels.append(f"... ({len(circle)} in all)")
    first = ", ".join(operation_label(program.operations[op]) for op in sorted(stuck)[:SHOWN])
    return InputError(
        f"deadlock: {len(stuck)} of {len(program.operations)} operations never start (first: {first}); "
        f"these wait in a circle: {' after '.join([*labels, labels[0]])}"
    )


def operation_label(operation: Operation) -> str:
    """How a message names an operation: its id and its spans, as `op 7 (rank 1 compute 1F0)`."""
    spans = "; ".join(f"rank {span.rank} {span.stream} {span.action}" for span in operation.spans)
    return f"op {operation.id} ({spans})" if spans else f"op {operation.id}"


def _waits_for(program: Program, stuck: Sequence[int]) -> dict[int, int]:
    """For each stuck operation one of those that it waits for: stuck too, or it would have started."""
    members = set(stuck)
    waits: dict[int, int] = {}
    last_on_stream: dict[int, int] = {}
    for operation in program.operations:
        before = [last_on_stream[stream] for stream in operation.streams if stream in last_on_stream]
        before += [source for source, _ in operation.after]
        if operation.id in members:
            waits[operation.id] = next(source for source in before if source in members)
        last_on_stream.update(dict.fromkeys(operation.streams, operation.id))
    return waits


def _circle(waits: dict[int, int], op: int) -> list[int]:
    """Follow who waits for whom from ``op`` until it closes; the closed part, each before what it awaits."""
    place: dict[int, int] = {}
    path: list[int] = []
    while op not in place:
        place[op] = len(path)
        path.append(op)
        op = waits[op]
    return path[place[op] :]
