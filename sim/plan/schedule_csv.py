"""Schedules as CSV in PyTorch's format: a row for every pipeline rank, a cell for every slot.

Empty cells are idle slots. It is what `_PipelineScheduleRuntime._load_csv` of torch.distributed.pipelining
reads with its format `compute_only`: forwards `2F0`, backwards `2B0` or their halves `2I0` and `2W0`, and
pairs side by side `(0F3;7B1)OVERLAP_F_B`.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from itertools import islice

from ..errors import Fault, InputError
from ..files.document import printable, shown
from ..files.reader import load_text
from ..files.writer import write_text_atomic
from .action import Action, Actions, Kind

MAX_BYTES = 64 * 2**20
"""About five million passes."""
MAX_FAULTS = 20
"""Told at once; a file of another kind has a fault in every cell."""
_MAX_CELL = 80

_PASSES = (Kind.FORWARD, Kind.BACKWARD, Kind.INPUT_GRADIENT, Kind.WEIGHT_GRADIENT)


def read_schedule_csv(path: str | os.PathLike[str]) -> tuple[Actions, ...]:
    """The passes of every pipeline rank from the CSV file at ``path``.

    Raises:
        InputError: the file cannot be read, a cell is no pass, or the passes are no schedule: each stage
            belongs to one rank, and every micro-batch goes once through every stage, forward before
            backward. Names file, line and cell.
    """
    file = printable(os.fspath(path))
    lines = load_text(path, max_bytes=MAX_BYTES).splitlines()
    while lines and not lines[-1].strip(", \t"):
        lines.pop()
    rows, faults = _parse(lines, file)
    if not rows:
        faults.append(Fault(path="", found="no rows", expected="a row for every pipeline rank", file=file))
    if not faults:
        faults = list(islice(_order_faults(rows, file), MAX_FAULTS))
    if not faults:
        faults = list(islice(_missing(rows, file), MAX_FAULTS))
    if faults:
        raise InputError(faults[:MAX_FAULTS])
    return tuple(tuple(action for _, action in row) for row in rows)


def write_schedule_csv(orders: Sequence[Actions], path: str | os.PathLike[str]) -> None:
    """Write the passes of every pipeline rank (by rank) to the CSV file at ``path``.

    >>> import traincast as tc
    >>> found = tc.schedules("zb-h1", ranks=4, micro_batches=8)
    >>> tc.write_schedule_csv(found["zb-h1"].orders, "zb-h1.csv")
    >>> tc.make_plan("gpt2", pp=4, global_batch=8, seq_len=512, schedule_csv="zb-h1.csv").strategy.schedule
    'csv'

    Raises:
        InputError: an action that the format does not have, such as a send.
    """
    for rank, own in enumerate(orders):
        for action in own:
            if any(part.kind not in _PASSES for part in action.passes):
                raise InputError(f"rank {rank}: {action} is no pass; a schedule's CSV has F, B, I and W only")
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(orders)
    write_text_atomic(path, text.getvalue())


Row = list[tuple[int, Action]]
"""Passes of one rank with the cells they stand in, 1-based."""


def _parse(lines: list[str], file: str) -> tuple[list[Row], list[Fault]]:
    rows: list[Row] = []
    faults: list[Fault] = []
    for line, text_of_line in enumerate(lines, start=1):
        row: Row = []
        for cell, text in enumerate(text_of_line.split(","), start=1):
            if not text.strip():
                continue
            try:
                row.append((cell, _pass(text)))
            except InputError:
                expected = "a pass as 2F0, 2B0, 2I0, 2W0 or (0F3;7B1)OVERLAP_F_B, or nothing"
                faults.append(_fault(file, line, cell, shown(text), expected))
        rows.append(row)
    return rows, faults


def _pass(text: str) -> Action:
    if len(text) > _MAX_CELL:
        raise InputError("too long for a pass")
    # The csv module puts quotes round a cell where it sees need to; no pass has any itself.
    action = Action.parse(text.strip().strip('"'))
    if any(part.kind not in _PASSES or part.micro_batch < 0 for part in action.passes):
        raise InputError(f"{text} is no pass")
    return action


def _order_faults(rows: list[Row], file: str) -> Iterator[Fault]:
    """Passes out of place within their own rank: twice, too early, or of another rank's stage."""
    holders: dict[int, int] = {}
    for line, row in enumerate(rows, start=1):
        if not row:
            yield Fault(path="", found="no passes", expected="those of one rank", file=file, line=line)
        done: set[tuple[int, Kind, int]] = set()
        for cell, action in row:
            for part in action.passes:
                holder = holders.setdefault(part.stage, line)
                problem = _problem(part, done)
                if holder != line:
                    problem = f"stage {part.stage} on one rank; line {holder} has it too"
                if problem:
                    yield _fault(file, line, cell, str(action), problem)
                done.add((part.stage, part.kind, part.micro_batch))


def _problem(part: Action, done: set[tuple[int, Kind, int]]) -> str:
    """What a pass lacks among those that its rank has ``done``; empty where nothing."""

    def is_done(kind: Kind) -> bool:
        return (part.stage, kind, part.micro_batch) in done

    if is_done(part.kind):
        return "every pass once"
    if part.kind in (Kind.BACKWARD, Kind.INPUT_GRADIENT) and not is_done(Kind.FORWARD):
        return f"{part.stage}F{part.micro_batch} before it"
    if part.kind is Kind.WEIGHT_GRADIENT and not is_done(Kind.INPUT_GRADIENT):
        return f"{part.stage}I{part.micro_batch} before it"
    whole, half = is_done(Kind.BACKWARD), is_done(Kind.INPUT_GRADIENT)
    if (part.kind is Kind.BACKWARD and half) or (part.kind is Kind.INPUT_GRADIENT and whole):
        return f"one backward of micro-batch {part.micro_batch}: B, or I and W"
    return ""


def _missing(rows: list[Row], file: str) -> Iterator[Fault]:
    """Stages or passes that no row has; lazily, since a wrong number may make them very many."""
    found: dict[int, set[tuple[Kind, int]]] = {}
    for row in rows:
        for _, action in row:
            for part in action.passes:
                found.setdefault(part.stage, set()).add((part.kind, part.micro_batch))
    micro_batches = range(1 + max(index for passes in found.values() for _, index in passes))
    for stage in range(max(found) + 1):
        for absent in _absent(stage, found.get(stage), micro_batches):
            expected = "every micro-batch once through every stage, forward and backward"
            yield Fault(path="", found=f"no {absent}", expected=expected, file=file)


def _absent(stage: int, passes: set[tuple[Kind, int]] | None, micro_batches: range) -> Iterator[str]:
    """What a stage lacks: itself, or passes of some micro-batches."""
    if passes is None:
        yield f"stage {stage}"
        return
    for i in micro_batches:
        if (Kind.FORWARD, i) not in passes:
            yield f"{stage}F{i}"
        if (Kind.BACKWARD, i) not in passes:
            for half in (Kind.INPUT_GRADIENT, Kind.WEIGHT_GRADIENT):
                if (half, i) not in passes:
                    yield f"{stage}{half}{i}"


def _fault(file: str, line: int, cell: int, found: str, expected: str) -> Fault:
    return Fault(path=f"cell {cell}", found=found, expected=expected, file=file, line=line)
