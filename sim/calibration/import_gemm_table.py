"""Timings of GEMMs, as a CSV table, become an accelerator's efficiency curves.

The table has a row a GEMM with the columns of NVIDIA's aiconfigurator collections
(https://github.com/ai-dynamo/aiconfigurator): `accelerator`, `dtype`, `m`, `n`, `k`, `time_us`; others are
ignored. A point of a curve is the median fraction of peak over GEMMs of about one size, each divided by
what its last wave of tiles loses, since `roofline.py` charges that by itself.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

from ..errors import Fault, InputError
from ..files.document import did_you_mean, printable, shown
from ..files.reader import load_text, refuse
from ..hardware.cluster import Accelerator, Curve
from ..kernels.gemm_efficiency import wave_efficiency
from ..kernels.kernel import Kernel

COLUMNS = ("accelerator", "dtype", "m", "n", "k", "time_us")
PRECISIONS = {
    **{name: name for name in ("fp64", "fp32", "tf32", "bf16", "fp16", "fp8")},
    **{"bfloat16": "bf16", "float16": "fp16", "half": "fp16", "float32": "fp32", "float64": "fp64"},
}
"""Names of data types in tables, and ours."""
ELEMENT_BYTES = {"fp64": 8, "fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2, "fp8": 1}
OUTPUT_BYTES = {"fp8": 2}
"""Where GEMMs are not stored as their factors are: fp8 gives bf16."""

MEMORY_SHARE = 0.6
"""Products whose factors and result take more than this part of their time to move, at the memory's full
bandwidth, tell of the memory and not of the arithmetic."""

SIZE_EDGES = (0.0, 1e9, 3e9, 1e10, 3e10, 1e11, 1e12, 1e13, math.inf)
"""FLOPs between which GEMMs count as of one size: two sizes a decade where the curve is steep."""

LEAST_TIMINGS = 3
"""Fewer GEMMs of a size make no point."""

MAX_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class GemmTiming:
    """One GEMM of (m, k) and (k, n), and its seconds."""

    device: str
    precision: str
    m: int
    n: int
    k: int
    seconds: float

    @property
    def flops(self) -> float:
        return 2.0 * self.m * self.n * self.k

    @property
    def bytes(self) -> float:
        """Factors read and result written once."""
        size = ELEMENT_BYTES[self.precision]
        factors = size * self.k * (self.m + self.n)
        return float(factors + OUTPUT_BYTES.get(self.precision, size) * self.m * self.n)


def read_gemm_table(path: str | os.PathLike[str]) -> list[GemmTiming]:
    """All timings of the CSV file at ``path``, which may be compressed (`.gz`).

    Raises:
        InputError: the file cannot be read, lacks a column, or lists every row that cannot be.
    """
    file = printable(os.fspath(path))
    rows = csv.DictReader(io.StringIO(_text(path, file)))
    missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
    if missing:
        refuse(file, f"no column {', '.join(missing)}", "the columns " + ", ".join(COLUMNS))
    timings, faults = [], []
    for row in rows:
        read = _timing(row, file, rows.line_num)
        (faults if isinstance(read, Fault) else timings).append(read)
    if faults:
        raise InputError(faults)
    return timings


def _text(path: str | os.PathLike[str], file: str) -> str:
    if not file.endswith(".gz"):
        return load_text(path, max_bytes=MAX_BYTES)
    try:
        with gzip.open(path) as opened:
            data = opened.read(MAX_BYTES + 1)
        text = data.decode()
    except (OSError, EOFError, ValueError) as error:
        refuse(file, str(error), "a gzip file of UTF-8 text")
    if len(data) > MAX_BYTES:
        refuse(file, f"more than {MAX_BYTES} bytes", f"at most {MAX_BYTES} bytes")
    return text


def _timing(row: dict[str, str], file: str, line: int) -> GemmTiming | Fault:
    precision = PRECISIONS.get((row["dtype"] or "").lower())
    if precision is None:
        expected = " | ".join(PRECISIONS)
        return Fault(path="dtype", found=shown(row["dtype"]), expected=expected, file=file, line=line)
    sizes = []
    for name in ("m", "n", "k", "time_us"):
        value = _number(row[name])
        if not (value > 0 and (name == "time_us" or value == int(value))):
            expected = "a time above 0" if name == "time_us" else "a whole number from 1"
            return Fault(path=name, found=shown(row[name]), expected=expected, file=file, line=line)
        sizes.append(value)
    m, n, k = map(int, sizes[:3])
    return GemmTiming(device=row["accelerator"], precision=precision, m=m, n=n, k=k, seconds=sizes[3] / 1e6)


def _number(text: str | None) -> float:
    """``text`` as a finite number; 0 where it is none, which no column may be."""
    try:
        value = float(text or "")
    except ValueError:
        return 0.0
    return value if math.isfinite(value) else 0.0


def import_gemm_table(
    accelerator: Accelerator, timings: Sequence[GemmTiming], *, device: str, source: str
) -> Accelerator:
    """``accelerator`` with the curves of what was timed on ``device``, in place of older ones.

    Raises:
        InputError: nothing was timed on ``device``, a precision has no peak, or a peak is too low for a time.
    """
    own = [timing for timing in timings if timing.device == device]
    if not own:
        known = sorted({timing.device for timing in timings})
        raise InputError(
            Fault(
                path="device",
                found=shown(device),
                expected="a device of the table",
                hint=did_you_mean(device, known),
            )
        )
    curves = {
        precision: gemm_efficiency(accelerator, [t for t in own if t.precision == precision], precision)
        for precision in sorted({timing.precision for timing in own})
    }
    return replace(
        accelerator,
        gemm_efficiency={**accelerator.gemm_efficiency, **{p: c for p, c in curves.items() if c}},
        basis="measured",
        source=f"{accelerator.source} gemm_efficiency anew: {source}.".strip(),
    )


def gemm_efficiency(accelerator: Accelerator, timings: Iterable[GemmTiming], precision: str) -> Curve:
    """(FLOPs of a GEMM, fraction of peak): geometric mean and median of each size with enough GEMMs.

    Three digits are kept, which is more than timings repeat.

    Raises:
        InputError: the accelerator has no peak for ``precision``, or GEMMs beat it.
    """
    if precision not in accelerator.peak_flops:
        raise InputError(f"accelerator {accelerator.name} has no peak_flops for precision {precision}")
    points = sorted(
        (timing.flops, _fraction(accelerator, timing))
        for timing in timings
        if timing.bytes / accelerator.memory_bandwidth <= MEMORY_SHARE * timing.seconds
    )
    curve = []
    for low, high in pairwise(SIZE_EDGES):
        size = [point for point in points if low <= point[0] < high]
        if len(size) >= LEAST_TIMINGS:
            x = math.exp(math.fsum(math.log(flops) for flops, _ in size) / len(size))
            y = median(fraction for _, fraction in size)
            curve.append((float(f"{x:.3g}"), float(f"{y:.3g}")))
    fastest = max((fraction for _, fraction in curve), default=0.0)
    if fastest > 1:
        raise InputError(
            f"{precision} GEMMs reach {fastest:.2f} of peak_flops of {accelerator.name}: another device?"
        )
    return tuple(curve)


def _fraction(accelerator: Accelerator, timing: GemmTiming) -> float:
    """Of peak, were there no last wave that is not full."""
    kernel = Kernel(kind="gemm", flops=timing.flops, bytes=timing.bytes, m=timing.m, n=timing.n, k=timing.k)
    whole_waves = wave_efficiency(kernel, accelerator.sm_count)
    return timing.flops / (timing.seconds * accelerator.peak_flops[timing.precision] * whole_waves)
