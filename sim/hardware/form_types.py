"""Types of the fields of hardware files as pydantic reads them: a unit on every quantity, names, curves."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictInt

from ..files.document import RefusalError, printable, shown
from ..units import parse_quantity
from . import cluster as parts
from . import stragglers

MAX_TEXT = 4000

PRECISIONS = ("fp64", "fp32", "tf32", "bf16", "fp16", "fp8", "int8")


def _precision(value: str) -> str:
    if value not in PRECISIONS:
        raise RefusalError(shown(value), " | ".join(PRECISIONS))
    return value


def quantity(
    dimension: str, *, zero: bool = False, least: float = 0.0, most: float = math.inf, words: str = ""
) -> Callable:
    """A reader of positive (or not negative) quantities, at least ``least`` and at most ``most``."""

    def read(value: object) -> float:
        number = parse_quantity(value, dimension)
        if not (number > 0 or (zero and number == 0)) or not least <= number <= most:
            raise RefusalError(shown(value), words or ("0 or more" if zero else "more than 0"))
        return number

    return read


def _rising(curve: parts.Curve) -> parts.Curve:
    for (x0, _), (x1, _) in pairwise(curve):
        if x1 <= x0:
            raise RefusalError(f"a point at {x1:g} after one at {x0:g}", "points in rising order, each once")
    return curve


def _text(value: str) -> str:
    if len(value) > MAX_TEXT:
        raise RefusalError(f"{len(value)} characters", f"at most {MAX_TEXT}")
    if printable(value.replace("\n", " ")) != value.replace("\n", " "):
        raise RefusalError(shown(value), "text without control characters")
    return value


def _name(value: str) -> str:
    if not value.strip() or len(value) > 200 or "\n" in value:
        raise RefusalError(shown(value), "a name of 1 to 200 characters")
    return _text(value)


Bandwidth = Annotated[float, BeforeValidator(quantity("bandwidth"))]
Bytes = Annotated[float, BeforeValidator(quantity("bytes"))]
BytesOrNone = Annotated[float, BeforeValidator(quantity("bytes", zero=True))]
Time = Annotated[float, BeforeValidator(quantity("time"))]
TimeOrNone = Annotated[float, BeforeValidator(quantity("time", zero=True))]
Compute = Annotated[float, BeforeValidator(quantity("compute"))]
Flops = Annotated[float, BeforeValidator(quantity("flops"))]
Power = Annotated[float, BeforeValidator(quantity("power", zero=True))]
Price = Annotated[float, BeforeValidator(quantity("price", zero=True))]
Number = Annotated[float, BeforeValidator(quantity("count"))]
NumberOrNone = Annotated[float, BeforeValidator(quantity("count", zero=True))]
Fraction = Annotated[
    float, BeforeValidator(quantity("count", most=1.0, words="a fraction above 0 and at most 1"))
]
SlowFactor = Annotated[float, BeforeValidator(quantity("count", most=stragglers.MAX_FACTOR))]
BandwidthOrNone = Annotated[float, BeforeValidator(quantity("bandwidth", zero=True))]
Whole = Annotated[StrictInt, Field(ge=1, le=parts.MAX_ACCELERATORS)]
WholeOrNone = Annotated[StrictInt, Field(ge=0, le=parts.MAX_ACCELERATORS)]
Text = Annotated[str, AfterValidator(_text)]
Name = Annotated[str, AfterValidator(_name)]
Precision = Annotated[str, AfterValidator(_precision)]
Operation = Literal[
    "all_reduce", "broadcast", "all_gather", "reduce_scatter", "all_to_all", "send_recv", "shift"
]

FlopsCurve = Annotated[tuple[tuple[Flops, Fraction], ...], AfterValidator(_rising)]
BytesCurve = Annotated[tuple[tuple[Bytes, Fraction], ...], AfterValidator(_rising)]
TimeCurve = Annotated[tuple[tuple[Bytes, Time], ...], AfterValidator(_rising)]
ProcessorCurve = Annotated[tuple[tuple[Bytes, TimeOrNone], ...], AfterValidator(_rising)]
FractionCurve = Annotated[tuple[tuple[Fraction, SlowFactor], ...], AfterValidator(_rising)]
FactorCurve = Annotated[tuple[tuple[Number, Number], ...], AfterValidator(_rising)]
ShareCurve = Annotated[tuple[tuple[Number, NumberOrNone], ...], AfterValidator(_rising)]


class Strict(BaseModel):
    """Unknown keys are faults, not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)
