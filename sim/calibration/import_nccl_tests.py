"""What nccl-tests measured, from its text output or its JSON (-J), as curves of a cluster.

Formats: https://github.com/NVIDIA/nccl-tests, src/util.cu (columns, JSON keys) and doc/PERFORMANCE.md (algbw
and busbw). A table is refused whole where anything in it was wrong or not checked; the out-of-place columns
are used, the in-place ones where there are no others. Sizes are whole buffers, as in `collectives.py`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import Fault, InputError
from ..files.document import Document, printable, shown
from ..files.reader import load_text, parse_document
from ..hardware.cluster import Cluster, TransportCurve

BUS_FACTORS = {
    "all_reduce": lambda n: 2 * (n - 1) / n,
    "all_gather": lambda n: (n - 1) / n,
    "reduce_scatter": lambda n: (n - 1) / n,
    "all_to_all": lambda n: (n - 1) / n,
    "broadcast": lambda n: 1.0,
    "send_recv": lambda n: 1.0,
}
"""By operation busbw over algbw for n ranks (nccl-tests, doc/PERFORMANCE.md)."""

_NAMES = {
    "allreduce": "all_reduce",
    "allgather": "all_gather",
    "reducescatter": "reduce_scatter",
    "alltoall": "all_to_all",
    "broadcast": "broadcast",
    "sendrecv": "send_recv",
}
_RANK = re.compile(r"#\s+Rank\s+(\d+)\s+(?:Group\s+\d+\s+)?Pid\s+\d+\s+on\s+(\S+)\s+device")
_STARTING = re.compile(r"# Collective test starting:\s*(\S+)")
_LEAST_SURE = 10.0
"""GB/s. Below, two decimals of a bandwidth say too little of its ratio to another."""


def bus_bandwidth(operation: str, ranks: int, size_bytes: float, seconds: float) -> float:
    """busbw in bytes/s as nccl-tests reports it."""
    return BUS_FACTORS[operation](ranks) * size_bytes / seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One size of a table."""

    size_bytes: float
    seconds: float
    line: int = 0


@dataclass(slots=True, kw_only=True)
class Table:
    """One run of nccl-tests, as far as it could be read."""

    file: str
    operation: str = ""
    ranks: int = 0
    hosts: int = 0
    """0 where the output does not say"""
    rows: list[Row] = field(default_factory=list)
    kinds: set[tuple[str, str]] = field(default_factory=set)
    """(type, redop) of the rows"""
    ratios: list[tuple[int, float]] = field(default_factory=list)
    """(line, busbw over algbw) of rows large enough to tell"""
    faults: list[Fault] = field(default_factory=list)

    def fault(self, found: str, expected: str = "", hint: str = "", *, line: int = 0, path: str = "") -> None:
        """Note one thing wrong."""
        self.faults.append(
            Fault(file=self.file, line=line, path=path, found=found, expected=expected, hint=hint)
        )


def read_table(path: str | os.PathLike[str], *, operation: str = "", ranks: int = 0) -> Table:
    """The table of one output file, with its faults. ``operation`` and ``ranks`` stand in for what old
    versions do not print.

    Raises:
        InputError: no such file, or no text.
    """
    file = printable(os.fspath(path))
    text = load_text(path)
    if text.lstrip().startswith("{"):
        table = _from_json(parse_document(text, file))
    else:
        table = _from_text(text, file)
    table.operation = table.operation or operation or _operation(Path(file).name)
    table.ranks = table.ranks or ranks
    _check(table)
    return table


def import_tables(
    cluster: Cluster, paths: Sequence[str | os.PathLike[str]], *, operation: str = "", ranks: int = 0
) -> Cluster:
    """``cluster`` with the curves of the outputs at ``paths``, in place of those it has of the same.

    Raises:
        InputError: lists every fault of every file.
    """
    tables = [read_table(path, operation=operation, ranks=ranks) for path in paths]
    faults = [fault for table in tables for fault in table.faults]
    seen: dict[tuple[str, int], str] = {}
    for table in tables:
        faults += _misfits(cluster, table, seen)
    if faults:
        raise InputError(faults)
    kept = [c for c in cluster.transports if (c.operation, c.ranks) not in seen]
    curves = sorted((_curve(table) for table in tables), key=lambda c: (c.operation, c.ranks))
    return replace(cluster, transports=(*kept, *curves))


def _curve(table: Table) -> TransportCurve:
    points = tuple(sorted((row.size_bytes, row.seconds) for row in table.rows))
    source = f"nccl-tests, {Path(table.file).name}"
    return TransportCurve(operation=table.operation, ranks=table.ranks, times_s=points, source=source)


def _misfits(cluster: Cluster, table: Table, seen: dict[tuple[str, int], str]) -> list[Fault]:
    """Tables that say the same of one thing, or that this cluster cannot have made."""
    if table.faults:
        return []
    faults = []
    key = (table.operation, table.ranks)
    if key in seen:
        found = f"{table.operation} on {table.ranks} ranks again, first in {seen[key]}"
        faults.append(Fault(file=table.file, path="", found=found, expected="each once"))
    seen.setdefault(key, table.file)
    if table.ranks > cluster.accelerators:
        found = f"{table.ranks} ranks, but {cluster.name} has {cluster.accelerators} accelerators"
        faults.append(Fault(file=table.file, path="", found=found))
    nodes = -(-table.ranks // cluster.accelerators_per_node)
    if table.hosts and table.hosts != nodes:
        found = f"{table.ranks} ranks on {table.hosts} hosts"
        expected = f"{nodes}, {cluster.accelerators_per_node} a node as in {cluster.name}"
        faults.append(Fault(file=table.file, path="", found=found, expected=expected))
    return faults


def _operation(name: str) -> str:
    """The operation that a program or file is named after; empty where that is none or several."""
    plain = re.sub(r"[^a-z]", "", name.lower())
    found = {operation for text, operation in _NAMES.items() if text in plain}
    return found.pop() if len(found) == 1 else ""


def _check(table: Table) -> None:
    """What must hold of a table as a whole."""
    if not table.operation and not table.faults:
        known = ", ".join(BUS_FACTORS)
        table.fault("no word of which collective this is", known, "give it with --operation")
    if table.ranks < 2:
        table.fault(f"{table.ranks} ranks" if table.ranks else "no ranks", "2 or more", "give --ranks")
    if not table.rows and not table.faults:
        table.fault("no row with a size and a time", "the output of nccl-tests")
    if len(table.kinds) > 1:
        kinds = ", ".join(sorted(" ".join(kind) for kind in table.kinds))
        table.fault(f"rows of several kinds ({kinds})", "one type and one operator")
    sizes: set[float] = set()
    for row in table.rows:
        if row.size_bytes in sizes:
            table.fault(f"{row.size_bytes:.0f} bytes a second time", "each size once", line=row.line)
        sizes.add(row.size_bytes)
    if table.operation and table.ranks > 1:
        _check_ratios(table)


def _check_ratios(table: Table) -> None:
    """busbw over algbw tells the collective and the ranks; rounding leaves a percent."""
    expected = BUS_FACTORS[table.operation](table.ranks)
    for line, ratio in table.ratios:
        if abs(ratio / expected - 1) > 0.02:
            table.fault(
                f"busbw is {ratio:.3f} times algbw",
                f"{expected:.3f} for {table.operation} on {table.ranks} ranks",
                line=line,
            )
            return


def _note(table: Table, size: float, micros: float, wrong: Any, line: int, path: str = "") -> None:
    """One measured row, or what is the matter with it."""
    number = _number(wrong)
    if number is None:
        hint = "run nccl-tests without -c 0"
        table.fault(f"#wrong is {shown(wrong)}", "0, which says that results were checked", hint,
                    line=line, path=path)  # fmt: skip
    elif number != 0:
        table.fault(f"{number:g} wrong values of {size:.0f} bytes", "0", line=line, path=path)
    elif not micros > 0:
        table.fault(f"{micros:g} us", "a time above 0", line=line, path=path)
    elif size > 0:  # a size below one element a rank is shown as 0: nothing was sent
        table.rows.append(Row(size_bytes=size, seconds=micros / 1e6, line=line))


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if abs(number) < float("inf") else None


# Text


def _from_text(text: str, file: str) -> Table:
    table, columns = Table(file=file), []
    hosts: dict[int, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if rank := _RANK.match(line):
            hosts[int(rank[1])] = rank[2]
        elif starting := _STARTING.match(line):
            _begin(table, starting[1], number)
        elif line.startswith("#") and {"size", "algbw"} <= set(line.split()):
            columns = _header(table, line, columns, number)
        elif re.match(r"\s*\d", line) and columns:
            _text_row(table, columns, line.split(), number)
    table.ranks, table.hosts = len(hosts), len(set(hosts.values()))
    return table


def _begin(table: Table, program: str, line: int) -> None:
    operation = _operation(program)
    if not operation:
        table.fault(f"{shown(program)} measures no collective that is modelled", line=line)
    elif table.operation not in ("", operation):
        table.fault(f"{operation} after {table.operation} in one file", "one table a file", line=line)
    table.operation = table.operation or operation


def _header(table: Table, line: str, columns: list[str], number: int) -> list[str]:
    found = line.lstrip("# ").split()
    if "cputime" in found:
        table.fault("cputime, the host's time", "time", "run nccl-tests without -C 1", line=number)
    if columns and found != columns:
        table.fault("other columns than before", "one table a file", line=number)
    return found


def _text_row(table: Table, columns: list[str], cells: list[str], line: int) -> None:
    """A row has a cell a column; tables without an out-of-place half leave its cells blank."""
    half = columns.index("algbw") - 1
    width = 4
    if len(cells) not in (half + 2 * width, half + width) and len(cells) < half + 2 * width:
        table.fault(f"{len(cells)} cells", f"{len(columns)}", line=line)
        return
    size, micros = _number(cells[0]), _number(cells[half])
    if size is None or micros is None:
        table.fault(f"no numbers in {shown(' '.join(cells[:1] + cells[half : half + 1]))}", line=line)
        return
    table.kinds.add((cells[2], cells[3] if "redop" in columns else ""))
    wrong = cells[half + 3]
    if columns[half + 3 : half + 4] == ["error"]:
        # Before version 2.11 the largest difference stands here, which is rounding where it is small.
        difference = _number(wrong)
        wrong = wrong if difference is None else float(difference > 1e-2)
    _note(table, size, micros, wrong, line)
    _ratio(table, size, _number(cells[half + 1]), _number(cells[half + 2]), line)


def _ratio(table: Table, size: float, algbw: float | None, busbw: float | None, line: int) -> None:
    """Note what the row's two bandwidths say of collective and ranks."""
    if algbw and busbw and min(algbw, busbw) >= _LEAST_SURE and size > 0:
        table.ratios.append((line, busbw / algbw))


# JSON


def _from_json(document: Document) -> Table:
    table = Table(file=document.file)
    data = document.data if isinstance(document.data, dict) else {}
    results, config = data.get("results"), data.get("config")
    if not isinstance(results, list) or not isinstance(config, dict):
        table.fault("no results and config", "the output of nccl-tests -J")
        return table
    devices = [d for d in config.get("devices") or [] if isinstance(d, dict)]
    # One device a process is written, whichever number each process has.
    each = [_number(config.get(key, 1)) for key in ("nthreads", "ngpus")]
    table.ranks = len(devices) * int((each[0] or 1) * (each[1] or 1))
    table.hosts = len({str(device.get("hostname")) for device in devices})
    programs = [a for a in data.get("args") or [] if isinstance(a, str)][:1]
    table.operation = _operation(Path(programs[0]).name) if programs else ""
    for index, result in enumerate(results):
        _json_row(table, document, result, index)
    return table


def _json_row(table: Table, document: Document, result: Any, index: int) -> None:
    line, path = document.line(("results", index)), f"results[{index}]"
    size = _number(result.get("size")) if isinstance(result, dict) else None
    if size is None:
        table.fault(shown(result), "a result with a size", line=line, path=path)
        return
    operation = _operation(str(result.get("experiment_name", "")))
    if operation:
        _begin(table, operation, line)
    half = result.get("out_of_place") or result.get("in_place")
    micros = _number(half.get("time")) if isinstance(half, dict) else None
    if not isinstance(half, dict) or micros is None:
        hint = "cpu_time is the host's" if isinstance(half, dict) and "cpu_time" in half else ""
        table.fault("no time", "a time in us", hint, line=line, path=path)
        return
    table.kinds.add((str(result.get("type")), str(result.get("redop"))))
    _note(table, size, micros, "N/A" if half.get("nwrong") is None else half["nwrong"], line, path)
    _ratio(table, size, _number(half.get("alg_bw")), _number(half.get("bus_bw")), line)
