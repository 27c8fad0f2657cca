"""Reading traces from files. They may come from anybody, so reading believes nothing: expansion is capped,
numbers are checked, and every fault is reported with its place.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from ..errors import Fault, InputError
from .trace import SCHEMA, Span, Trace

MAX_EXPANDED_BYTES = 2 * 2**30
MAX_EXPANSION_RATIO = 200
"""Expanded over compressed bytes; traces reach about 50."""
RATIO_FLOOR_BYTES = 16 * 2**20
"""Below this many expanded bytes the ratio does not matter."""
MAX_MICROSECONDS = 2.0**53
"""Beyond it a float cannot tell one microsecond from the next."""
MAX_NUMBER = 1e300
"""Larger numbers mean nothing in seconds, bytes or FLOPs."""
MAX_FAULTS = 20
_CHUNK = 2**20
_MICRO = 1e6


def read_trace(path: str | os.PathLike[str]) -> Trace:
    """Read a trace that `chrome_trace.write_trace` wrote, packed or already unpacked.

    >>> import traincast as tc
    >>> trace = tc.simulate("gpt2", "dgx-a100", pp=2, global_batch=8, seq_len=512)
    >>> left_out = tc.write_trace(trace, "gpt2.trace.json.gz")
    >>> tc.read_trace("gpt2.trace.json.gz").step_time_s == trace.step_time_s
    True

    Raises:
        InputError: anything is wrong with it; lists the first faults with their places.
    """
    where = Path(path)
    document = _parse(where, _content(where))
    return _Reader(str(where), document).trace()


def _content(path: Path) -> bytes:
    """The file's bytes, expanded within the limits."""
    try:
        if not path.is_file():
            raise InputError(Fault(file=str(path), path="", found="no such file, or not a regular one"))
        with path.open("rb") as file:
            packed_form = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if not packed_form:
                return _capped(path, file.read, math.inf)
            with gzip.GzipFile(fileobj=file) as packed:
                return _capped(path, packed.read, MAX_EXPANSION_RATIO * path.stat().st_size)
    except EOFError as error:
        raise InputError(Fault(file=str(path), path="", found="truncated gzip file")) from error
    except (OSError, zlib.error) as error:
        raise InputError(Fault(file=str(path), path="", found=f"cannot be read: {error}")) from error


def _capped(path: Path, read: Callable[[int], bytes], ratio_limit: float) -> bytes:
    """All there is to read, unless it grows past what a trace may be."""
    parts: list[bytes] = []
    size = 0
    while part := read(_CHUNK):
        parts.append(part)
        size += len(part)
        if size > MAX_EXPANDED_BYTES:
            limit = f"at most {MAX_EXPANDED_BYTES / 2**30:g} GiB"
            raise InputError(Fault(file=str(path), path="", found="too large when expanded", expected=limit))
        if size > max(ratio_limit, RATIO_FLOOR_BYTES):
            limit = f"at most {MAX_EXPANSION_RATIO}:1"
            found = "expands as a gzip bomb does"
            raise InputError(Fault(file=str(path), path="", found=found, expected=limit))
    return b"".join(parts)


def _parse(path: Path, content: bytes) -> object:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not a number of JSON")

    try:
        return json.loads(content, parse_constant=refuse)
    except RecursionError as error:
        raise InputError(Fault(file=str(path), path="", found="nested too deeply")) from error
    except MemoryError as error:
        raise InputError(Fault(file=str(path), path="", found="does not fit in memory")) from error
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError and integers of 5,000 digits
        hint = "the file is cut off or was never a trace"
        raise InputError(Fault(file=str(path), path="", found=f"not JSON: {error}", hint=hint)) from error


class _Reader:
    """Checks a parsed document and collects what is wrong with it."""

    def __init__(self, file: str, document: object):
        self.file = file
        self.document = document
        self.faults: list[Fault] = []

    def trace(self) -> Trace:
        top = self._mapping(self.document, "", "an object with traceEvents and traincast")
        own = self._mapping(top.get("traincast"), "traincast", "the object that traincast writes")
        if own.get("schema") != SCHEMA:
            self._fault("traincast.schema", own.get("schema"), SCHEMA)
        self._stop_on_faults()
        info = self._mapping(top.get("distributedInfo"), "distributedInfo", "an object with rank")
        world_size = self._integer(info.get("world_size"), "distributedInfo", ".world_size", 1, 10**7)
        self._integer(info.get("rank"), "distributedInfo", ".rank", 0, world_size - 1)
        fields = self._fields(own, world_size)
        streams = own.get("streams")
        if not isinstance(streams, list) or not all(isinstance(name, str) for name in streams):
            self._fault("traincast.streams", streams, "a list of names")
        self._stop_on_faults()
        spans = list(self._spans(top.get("traceEvents"), streams, world_size))  # type: ignore[arg-type]
        self._stop_on_faults()
        return Trace.of(spans, world_size=world_size, **fields)

    def _fields(self, own: dict[str, Any], world_size: int) -> dict[str, Any]:
        source = own.get("source")
        if source not in ("predicted", "measured"):
            self._fault("traincast.source", source, "predicted | measured")
        times = own.get("step_times_s")
        if not isinstance(times, list) or not times:
            self._fault("traincast.step_times_s", times, "a list of seconds, at least one")
            times = []
        times = [self._number(t, f"traincast.step_times_s[{i}]") for i, t in enumerate(times)]
        memory = self._mapping(own.get("peak_memory_bytes"), "traincast.peak_memory_bytes", "an object")
        peaks = {}
        for rank, size in memory.items():
            place = f"traincast.peak_memory_bytes.{rank[:20]}"
            number = int(rank) if rank.isascii() and rank.isdigit() and len(rank) < 9 else rank
            peaks[self._integer(number, place, "", 0, world_size - 1)] = self._number(size, place)
        metadata = self._mapping(own.get("metadata"), "traincast.metadata", "an object")
        return {
            "source": source,
            "step_times_s": tuple(times),
            "peak_memory_bytes": peaks,
            "metadata": metadata,
        }

    def _spans(self, events: object, streams: list[str], world_size: int) -> Iterator[Span]:
        if not isinstance(events, list):
            self._fault("traceEvents", events, "a list")
            self._stop_on_faults()
            return
        for index, event in enumerate(events):
            place = f"traceEvents[{index}]"
            event = self._mapping(event, place, "an object")
            if event.get("ph") == "X":
                yield self._span(event, place, streams, world_size)
            if len(self.faults) >= MAX_FAULTS:
                self._stop_on_faults()

    def _span(self, event: dict[str, Any], place: str, streams: list[str], world_size: int) -> Span:
        number, integer = self._number, self._integer
        args = self._mapping(event.get("args"), place + ".args", "an object")
        ts = number(event.get("ts"), place, ".ts", MAX_MICROSECONDS)
        dur = number(event.get("dur"), place, ".dur", MAX_MICROSECONDS)
        start = number(args.get("start_s", ts / _MICRO), place, ".args.start_s")
        end = number(args.get("end_s", (ts + dur) / _MICRO), place, ".args.end_s")
        if end < start:
            self._fault(place + ".args.end_s", end, f"at least its start, {start}")
        action = event.get("name")
        if not isinstance(action, str):
            self._fault(place + ".name", action, "an action")
        thread = integer(event.get("tid"), place, ".tid", 0, len(streams) - 1)
        return Span(
            rank=integer(event.get("pid"), place, ".pid", 0, world_size - 1),
            stream=streams[thread] if 0 <= thread < len(streams) else "",
            action=str(action),
            stage=integer(args.get("stage"), place, ".args.stage", -1, 10**7),
            micro_batch=integer(args.get("micro_batch"), place, ".args.micro_batch", -1, 10**9),
            start=start,
            end=end,
            bytes=number(args.get("bytes"), place, ".args.bytes"),
            flops=number(args.get("flops"), place, ".args.flops"),
            step=integer(args.get("step"), place, ".args.step", 0, 10**9),
        )

    def _mapping(self, value: object, place: str, expected: str) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        self._fault(place, value, expected)
        return {}

    def _number(self, value: Any, place: str, name: str = "", limit: float = MAX_NUMBER) -> float:
        """A number from 0 to ``limit``; neither NaN nor infinite, and True is none."""
        if type(value) in (int, float) and 0 <= value <= limit:
            return float(value)
        at_most = "" if limit == MAX_NUMBER else f", at most {limit:g}"
        self._fault(place + name, value, "a number, not negative" + at_most)
        return 0.0

    def _integer(self, value: Any, place: str, name: str, low: int, high: int) -> int:
        if type(value) is int and low <= value <= high:
            return value
        self._fault(place + name, value, f"a whole number from {low} to {high}")
        return low

    def _fault(self, place: str, found: object, expected: str) -> None:
        text = "missing" if found is None else json.dumps(found, default=str)[:60]
        self.faults.append(Fault(file=self.file, path=place, found=text, expected=expected))

    def _stop_on_faults(self) -> None:
        if self.faults:
            raise InputError(self.faults[:MAX_FAULTS])
