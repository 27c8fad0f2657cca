"""Measurements of a machine (`traincast.measurements/1`): series of samples by what they measure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InputError

SCHEMA = "traincast.measurements/1"


@dataclass(frozen=True, slots=True)
class Point:
    """The samples of one series."""

    parameters: Mapping[str, Any]
    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]
    bytes: tuple[float, ...] = ()
    """Of what has a size instead of seconds."""

    @property
    def median_bytes(self) -> float:
        return statistics.median(self.bytes)

    @property
    def median_s(self) -> float:
        return statistics.median(self.seconds)

    @property
    def cpu_s(self) -> float:
        """Median processor seconds, 0 where they were not taken."""
        return statistics.median(self.cpu_seconds) if self.cpu_seconds else 0.0

    @property
    def own_s(self) -> float:
        """Median processor seconds of what one process computes: without the time others held its core.

        Where processor seconds were not taken, as on GPUs, those of the wall clock.
        """
        return self.cpu_s or self.median_s


class Samples:
    """The series of a measurement by what they measure."""

    def __init__(self, measurements: Mapping[str, Any]):
        if measurements.get("schema") != SCHEMA:
            raise InputError(f"schema is {measurements.get('schema')!r}; expected {SCHEMA}")
        self.machine: Mapping[str, Any] = measurements["machine"]
        self.rounds: int = measurements.get("rounds", 1)
        self._points: dict[str, list[Point]] = {}
        for item in measurements["series"]:
            sizes = tuple(item.get("bytes", ()))
            if not sizes and (not item["seconds"] or min(item["seconds"]) <= 0.0):
                raise InputError(f"series {item['what']} {item['parameters']}: seconds must be above 0")
            cpu = tuple(item.get("cpu_seconds", ()))
            point = Point(item["parameters"], tuple(item["seconds"]), cpu, sizes)
            self._points.setdefault(item["what"], []).append(point)

    def of(self, what: str) -> list[Point]:
        return self._points.get(what, [])
