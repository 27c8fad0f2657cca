"""Numbers as people read them. Nothing here is parsed again."""

from __future__ import annotations

import math
from collections.abc import Callable

DASH = "–"
Format = Callable[[float], str]
_TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_SIZES = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B"))
_SI = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_COUNTS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def seconds(value: float | None) -> str:
    """``0.01234`` as ``12.3 ms``; four digits from a second on."""
    if value is None or not math.isfinite(value):
        return DASH
    if value == 0:
        return "0 s"
    unit, name = next(((u, n) for u, n in _TIMES if abs(value) >= u), _TIMES[-1])
    digits = 3 if abs(value / unit) < 10 and name == "s" else 2 if abs(value / unit) < 10 else 1
    return f"{value / unit:,.{digits}f} {name}"


_DURATIONS = ((31_557_600.0, "years"), (86_400.0, "days"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


def duration(value: float | None) -> str:
    """Seconds from a second to years in the unit that suits: ``5.8 years``, ``3.1 h``, ``2 min``."""
    if value is None or not math.isfinite(value):
        return DASH
    if abs(value) < 1.0:
        return seconds(value)
    unit, name = next((u, n) for u, n in _DURATIONS if abs(value) >= u)
    return f"{value / unit:,.3g} {name}" if abs(value / unit) < 1000 else f"{value / unit:,.0f} {name}"


def axis_unit(longest_s: float) -> tuple[float, str]:
    """How many seconds the unit of an axis is that reaches to ``longest_s``, and the unit's name."""
    return (1.0, "seconds") if longest_s >= 10 else (1e-3, "milliseconds")


def size(value: float | None) -> str:
    """Bytes in binary units, as ``71.3 GiB``."""
    if value is None or not math.isfinite(value):
        return DASH
    unit, name = next(((u, n) for u, n in _SIZES if abs(value) >= u), _SIZES[-1])
    return f"{value / unit:,.{0 if unit == 1 else 1}f} {name}"


def rate(value: float) -> str:
    """Bytes per second in decimal units, as datasheets give them: ``3.35 TB/s``."""
    unit, prefix = next(((u, n) for u, n in _SI if abs(value) >= u), _SI[-1])
    return f"{value / unit:,.2f} {prefix}B/s"


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction as a percentage."""
    return DASH if value is None or not math.isfinite(value) else f"{value * 100:.{digits}f} %"


def factor(value: float | None) -> str:
    """A ratio of like things, as ``0.93 ×``."""
    return DASH if value is None or not math.isfinite(value) else f"{value:.2f} ×"


def error(value: float | None) -> str:
    """A signed error that is a percentage already."""
    return DASH if value is None or not math.isfinite(value) else f"{value:+.1f} %"


def count(value: float | None) -> str:
    """A large number in short, as ``8.03 B``; whole thousands below 100,000."""
    if value is None or not math.isfinite(value):
        return DASH
    if abs(value) < 100_000:
        return f"{value:,.0f}" if value == int(value) or abs(value) >= 100 else f"{value:,.2f}"
    unit, name = next((u, n) for u, n in _COUNTS if abs(value) >= u)
    return f"{value / unit:,.2f} {name}"


def flops(value: float | None) -> str:
    """Floating-point operations with SI prefixes, as ``312.0 TFLOP``; append ``/s`` for a rate."""
    if value is None or not math.isfinite(value):
        return DASH
    unit, prefix = next(((u, n) for u, n in _SI if abs(value) >= u), _SI[-1])
    return f"{value / unit:,.1f} {prefix}FLOP"


def printable(text: object) -> str:
    """``text`` on one line without control characters, which could drive a terminal."""
    return "".join(c if c.isprintable() else " " for c in str(text))
