"""`measurements.json`, the raw samples of a calibration, validated as untrusted input."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..sim.errors import Fault, InputError
from .result_file import MAX_FAULTS, place_of, read_json

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Bytes = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Series(BaseModel):
    """Samples of one thing, measured again and again."""

    model_config = ConfigDict(frozen=True)

    what: str
    """`gemm`, `memory`, `forward`, `all_reduce` …"""
    parameters: dict[str, Any] = {}
    """What it depends on: sizes, shapes, ranks."""
    seconds: list[Seconds] = []
    """None of what has bytes instead."""
    bytes: list[Bytes] = []

    @model_validator(mode="after")
    def _is_measured(self) -> Series:
        if not self.seconds and not self.bytes:
            raise ValueError(f"a series of {self.what} without samples")
        return self


class Measurements(BaseModel):
    """The document; fields that the report does not show are ignored."""

    model_config = ConfigDict(frozen=True)

    schema_: str = Field(alias="schema", pattern=r"^traincast\.measurements/1$")
    machine: dict[str, Any] = {}
    rounds: int = 1
    series: list[Series] = []


def read_measurements(path: Path) -> Measurements:
    """Read the file at ``path``. Raises InputError listing what is wrong with it."""
    try:
        return Measurements.model_validate(read_json(path))
    except ValidationError as error:
        raise InputError(
            [
                Fault(file=str(path), path=place_of(fault["loc"]), found=fault["msg"])
                for fault in error.errors(include_url=False)[:MAX_FAULTS]
            ]
        ) from error
