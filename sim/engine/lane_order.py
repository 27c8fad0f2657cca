"""An order in which a program's operations can be taken one by one, and the row of memory each one uses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..jit import compiled, worthwhile
from ..program.arrays import FlatProgram, offsets
from ..program.checks import deadlock

COMPILE_FROM, LOADED_FROM = 1_000_000, 5_000
"""Operations from which numba pays, if it must be loaded and if it was."""


@dataclass(frozen=True, kw_only=True)
class LaneOrder:
    """n operations in order, each after the e that it waits for."""

    operations: np.ndarray
    """int64[n], ids"""
    row: np.ndarray
    """int64[n], by id: where its end times stand until the last that waits for it has read them"""
    rows: int
    source_from: np.ndarray
    """int64[n + 1], by id: where its own part of ``source`` begins"""
    source: np.ndarray
    """int32[e], what an operation waits for"""
    delay: np.ndarray
    """float64[e], seconds"""
    is_last: np.ndarray
    """bool[n], by id: nothing waits for it"""


def lane_order(flat: FlatProgram) -> LaneOrder:
    """An order for ``flat``: along one rank as far as it goes, so that few rows are in use at a time.

    Raises:
        InputError: operations that can never start.
    """
    count = flat.operations
    source_from, source, delay = _by_target(flat)
    kernel: Callable[..., tuple[int, int]] = order_kernel
    waits = flat.waits
    arrays, readers = (flat.edge_from, flat.edge_to, source_from, source), np.diff(flat.edge_from)
    if worthwhile(order_kernel, count, COMPILE_FROM, LOADED_FROM):
        order, row = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
        taken, rows = compiled(kernel)(waits.copy(), *arrays, readers.copy(), order, row)
    else:
        lists = [array.tolist() for array in arrays]
        ordered, placed = [0] * count, [0] * count
        taken, rows = kernel(waits.tolist(), *lists, readers.tolist(), ordered, placed)
        order, row = np.array(ordered, dtype=np.int64), np.array(placed, dtype=np.int64)
    if taken < count:
        raise deadlock(flat.program, np.setdiff1d(np.arange(count), order[:taken]).tolist())
    return LaneOrder(
        operations=order,
        row=row,
        rows=rows,
        source_from=source_from,
        source=source,
        delay=delay,
        is_last=readers == 0,
    )


def as_numbered(flat: FlatProgram) -> LaneOrder:
    """The order in which operations are numbered, where each waits for smaller numbers alone."""
    source_from, source, delay = _by_target(flat)
    kernel: Callable[..., int] = rows_kernel
    readers = np.diff(flat.edge_from)
    if worthwhile(rows_kernel, flat.operations, COMPILE_FROM, LOADED_FROM):
        row = np.empty(flat.operations, dtype=np.int64)
        rows = compiled(kernel)(source_from, source, readers.copy(), row)
    else:
        placed = [0] * flat.operations
        rows = kernel(source_from.tolist(), source.tolist(), readers.tolist(), placed)
        row = np.array(placed, dtype=np.int64)
    return LaneOrder(
        operations=np.arange(flat.operations),
        row=row,
        rows=rows,
        source_from=source_from,
        source=source,
        delay=delay,
        is_last=readers == 0,
    )


def rows_kernel(source_from: Any, source: Any, readers: Any, row: Any) -> int:
    """Fill ``row`` for operations taken as they are numbered; gives how many rows there are."""
    free = list(range(0))
    rows = 0
    for op in range(len(row)):
        if free:
            row[op] = free.pop()
        else:
            row[op] = rows
            rows += 1
        if readers[op] == 0:
            free.append(row[op])
        for edge in range(source_from[op], source_from[op + 1]):
            before = source[edge]
            readers[before] -= 1
            if readers[before] == 0:
                free.append(row[before])
    return rows


def _by_target(flat: FlatProgram) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The edges by the operation that they lead to."""
    by_target = np.argsort(flat.edge_to, kind="stable")
    sources = np.repeat(np.arange(flat.operations, dtype=np.int32), np.diff(flat.edge_from))
    return offsets(flat.waits), sources[by_target], flat.edge_delay[by_target]


def order_kernel(
    waits: Any,
    edge_from: Any,
    edge_to: Any,
    source_from: Any,
    source: Any,
    readers: Any,
    order: Any,
    row: Any,
) -> tuple[int, int]:
    """Fill ``order`` and ``row``; gives how many operations it took and how many rows there are."""
    known = [op for op in range(len(waits) - 1, -1, -1) if waits[op] == 0]
    free = list(range(0))
    taken = rows = 0
    while known:
        op = known.pop()
        order[taken] = op
        taken += 1
        if free:
            row[op] = free.pop()
        else:
            row[op] = rows
            rows += 1
        if readers[op] == 0:
            free.append(row[op])
        for edge in range(source_from[op], source_from[op + 1]):
            before = source[edge]
            readers[before] -= 1
            if readers[before] == 0:
                free.append(row[before])
        for edge in range(edge_from[op], edge_from[op + 1]):
            successor = edge_to[edge]
            waits[successor] -= 1
            if waits[successor] == 0:
                known.append(successor)
    return taken, rows
