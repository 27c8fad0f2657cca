"""Quantities with units, read at the border into SI floats and written back for people.

A closed table, since libraries guess: pint reads `400 Gb/s` as gilberts. What is missing or ambiguous is
refused with the candidates; nothing is guessed. Arithmetic is decimal, so `5 us` is exactly 5e-06, and
what `exact_quantity` writes, `parse_quantity` reads back to the bit.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal

from .files.document import RefusalError, shown

_DECIMAL = {"": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5}


def _scaled(suffix: str, prefixes: str, factor: str = "1") -> dict[str, Decimal]:
    """Units with each of the decimal ``prefixes``, and none."""
    return {f"{p}{suffix}": Decimal(factor).scaleb(_DECIMAL[p]) for p in ["", *prefixes]}


def _binary(suffix: str) -> dict[str, Decimal]:
    return {f"{prefix}{suffix}": Decimal(1024) ** power for prefix, power in _BINARY.items()}


UNITS: dict[str, dict[str, Decimal]] = {
    "bandwidth": {
        **_scaled("B/s", "kMGT"),
        **_binary("B/s"),
        **_scaled("b/s", "kMGT", "0.125"),
        **_scaled("bit/s", "kMGT", "0.125"),
    },
    "bytes": {**_scaled("B", "kMGTP"), **_binary("B")},
    "time": {
        "s": Decimal(1),
        "ms": Decimal("1e-3"),
        "us": Decimal("1e-6"),
        "µs": Decimal("1e-6"),
        "μs": Decimal("1e-6"),
        "ns": Decimal("1e-9"),
        "ps": Decimal("1e-12"),
        "min": Decimal(60),
        "h": Decimal(3600),
        "d": Decimal(86400),
        "days": Decimal(86400),
        "y": Decimal(31557600),  # a Julian year, 365.25 d
        "years": Decimal(31557600),
    },
    "compute": _scaled("FLOP/s", "kMGTPE"),
    "flops": _scaled("FLOP", "kMGTPE"),
    "power": {"mW": Decimal("1e-3"), **_scaled("W", "kM")},
    "price": {"USD/h": Decimal(1)},
    "count": {"": Decimal(1)},
}
"""By dimension: every unit there is, and what one of it is in SI (bytes/s, bytes, s, FLOP/s, FLOP, W)."""

NAMES = {
    "bandwidth": ("a bandwidth", "400 Gb/s (bits) or 50 GB/s (bytes)"),
    "bytes": ("a size in bytes", "80 GiB or 25 MB"),
    "time": ("a time", "5 us or 1.5 ms"),
    "compute": ("a compute rate", "989 TFLOP/s"),
    "flops": ("a number of operations", "1 GFLOP"),
    "power": ("a power", "700 W"),
    "price": ("a price", "2.5 USD/h"),
    "count": ("a plain number", "8"),
}
"""By dimension: what a message calls it, and examples."""

_SHOWN = {
    "bandwidth": ("TB/s", "GB/s", "MB/s", "kB/s", "B/s"),
    "bytes": ("PiB", "TiB", "GiB", "MiB", "KiB", "B"),
    "time": ("s", "ms", "us", "ns", "ps"),
    "compute": ("EFLOP/s", "PFLOP/s", "TFLOP/s", "GFLOP/s", "MFLOP/s", "kFLOP/s", "FLOP/s"),
    "flops": ("EFLOP", "PFLOP", "TFLOP", "GFLOP", "MFLOP", "kFLOP", "FLOP"),
    "power": ("MW", "kW", "W", "mW"),
    "price": ("USD/h",),
    "count": ("",),
}
"""By dimension: units to write with, largest first."""

_QUANTITY = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?)\s*(.*?)\s*\Z", re.ASCII)
_MAX_LENGTH = 80


class UnitError(RefusalError):
    """Text that is no quantity of the dimension asked for."""


def parse_quantity(value: object, dimension: str) -> float:
    """``value`` (text, or a number where ``dimension`` is `count`) as an SI float.

    Dimensions: bandwidth (bytes/s), bytes, time (s), compute (FLOP/s), flops, power (W), price (USD/h),
    count. Signs are not judged here: `-5 us` is a time.

    >>> import traincast as tc
    >>> tc.parse_quantity("400 Gb/s", "bandwidth"), tc.parse_quantity("30 s", "time")
    (50000000000.0, 30.0)

    Raises:
        UnitError: no number, no unit, an unknown or ambiguous unit, or one of another dimension.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _refusal(value, dimension)
    text = value if isinstance(value, str) else repr(value)
    match = _QUANTITY.match(text) if len(text) <= _MAX_LENGTH else None
    if match is None:
        raise _refusal(value, dimension)
    number, unit = match.groups()
    if unit not in UNITS[dimension]:
        raise _unit_refusal(value, number, unit, dimension)
    result = float(Decimal(number) * UNITS[dimension][unit])
    if math.isinf(result):
        raise _refusal(value, dimension)
    return result


def format_quantity(value: float, dimension: str, digits: int = 4) -> str:
    """``value`` for people, as `5 us` or `450 GB/s`, to ``digits`` significant digits.

    `parse_quantity` reads it back, right to those digits.
    """
    unit = _fitting_unit(value, dimension)
    scaled = value / float(UNITS[dimension][unit])
    number = f"{scaled:.{digits}g}" if math.isfinite(scaled) else str(scaled)
    if "e" in number and math.isfinite(scaled) and abs(scaled) < 1e15:
        number = f"{Decimal(number):f}"
    return f"{number} {unit}".rstrip()


def exact_quantity(value: float, dimension: str) -> str:
    """``value`` with all its digits: `parse_quantity` gives the same float back.

    Raises:
        UnitError: NaN or an infinity, which files do not hold.
    """
    if not math.isfinite(value):
        raise _refusal(value, dimension)
    number = Decimal(repr(float(value)))
    units = _EXACT_BYTES[value % 1024 == 0] if dimension == "bytes" else _SHOWN[dimension]
    fitting = units[units.index(_fitting_unit(value, dimension, units)) :]
    unit = fitting[0]
    if dimension == "bytes":  # one that leaves a short number: 1.5 GiB, but 1048577 KiB
        unit = next((u for u in fitting if _digits(number / UNITS["bytes"][u]) <= 6), fitting[-1])
    scaled = (number / UNITS[dimension][unit]).normalize()
    text = f"{scaled:f}" if -12 < scaled.adjusted() < 21 else str(scaled)
    return f"{text} {unit}".rstrip()


_EXACT_BYTES = {True: ("PiB", "TiB", "GiB", "MiB", "KiB", "B"), False: ("PB", "TB", "GB", "MB", "kB", "B")}
"""Whole KiB are written in binary units, others in decimal ones."""


def _digits(number: Decimal) -> int:
    return len(number.normalize().as_tuple().digits)


def _fitting_unit(value: float, dimension: str, units: tuple[str, ...] = ()) -> str:
    """The largest unit of which ``value`` is one or more; the smallest for less, the first for nothing."""
    units = units or _SHOWN[dimension]
    if value == 0:
        return "s" if dimension == "time" else units[-1]
    return next((unit for unit in units if abs(value) >= float(UNITS[dimension][unit])), units[-1])


def _refusal(value: object, dimension: str) -> UnitError:
    name, examples = NAMES[dimension]
    return UnitError(shown(value), f"{name}, as {examples}")


def _unit_refusal(value: object, number: str, unit: str, dimension: str) -> UnitError:
    """Says what is the matter with ``unit``: missing, ambiguous, or of another dimension."""
    name, examples = NAMES[dimension]
    if not unit:
        return UnitError(f"{shown(value)} without a unit", f"{name}, as {examples}")
    candidates = _candidates(unit, dimension)
    if len(candidates) > 1:
        choice = " or ".join(f"{number} {c}" for c in candidates)
        return UnitError(f"{shown(value)} is ambiguous", choice)
    if candidates:
        return UnitError(shown(value), f"{name}, as {examples}", f"did you mean {number} {candidates[0]}?")
    other = next((d for d, units in UNITS.items() if unit in units), None)
    if other:
        return UnitError(f"{shown(value)}, which is {NAMES[other][0]}", f"{name}, as {examples}")
    return UnitError(shown(value), f"{name}, as {examples}")


def _candidates(unit: str, dimension: str) -> list[str]:
    """Units that somebody who wrote ``unit`` may have meant."""
    lower = re.sub(r"flops?(/s)?$", "flop/s" if dimension == "compute" else "flop", unit.lower())
    if dimension == "bandwidth":
        lower = re.sub(r"ps$", "/s", lower)
    if dimension in ("bandwidth", "bytes") and re.fullmatch(r"[kmgtp]", lower):
        prefix = lower.upper() if lower != "k" else "k"
        return (
            [f"{prefix}b/s", f"{prefix}B/s"]
            if dimension == "bandwidth"
            else [f"{prefix}B", f"{prefix.upper()}iB"]
        )
    if dimension == "time" and lower == "m":
        return ["ms", "min"]
    found = [name for name in UNITS[dimension] if name.lower() == lower and "bit" not in name]
    if dimension == "bytes" and len(found) == 1 and "i" not in found[0] and len(found[0]) == 2:
        found.append(f"{found[0][0].upper()}iB")
    return sorted(found, key=lambda name: ("B" in name, name))
