"""Measurements of a machine (`traincast.measurements/1`): series of samples by what they measure.

Where the speed probe was taken around samples, all of them are told for one speed of the processor, that at
which one rank by itself takes the probe in its median time: a shared machine's cores change theirs.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InputError

SCHEMA = "traincast.measurements/1"
CONCURRENCY, SLICE = "concurrency", "slice"
SPEEDLESS = (CONCURRENCY, SLICE)
"""Series that have nothing to do with the speed of a processor."""


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
        self.probe_s = _usual_probe_s(measurements["series"])
        """Of the speed at which all samples are told; 0 where nobody looked."""
        self.concurrency = _concurrency(measurements["series"])
        """By number of ranks that compute at once: factor on what one computes, the speed probe included."""
        self._points: dict[str, list[Point]] = {}
        for item in measurements["series"]:
            sizes = tuple(item.get("bytes", ()))
            if not sizes and (not item["seconds"] or min(item["seconds"]) <= 0.0):
                raise InputError(f"series {item['what']} {item['parameters']}: seconds must be above 0")
            speeds = self._speeds(item)
            cpu = _times(item.get("cpu_seconds", ()), speeds)
            point = Point(item["parameters"], _times(item["seconds"], speeds), cpu, sizes)
            self._points.setdefault(item["what"], []).append(point)

    def _speeds(self, item: Mapping[str, Any]) -> Sequence[float]:
        """How fast the processor was at each sample of a series; empty where nobody looked."""
        usual = self.probe_s * self.concurrency.get(item.get("company", 1), 1.0)
        probes = item.get("probes", ()) if item["what"] not in SPEEDLESS else ()
        return [usual / probe for probe in probes if usual]

    def of(self, what: str) -> list[Point]:
        return self._points.get(what, [])


def _usual_probe_s(series: Sequence[Mapping[str, Any]]) -> float:
    """The median of the speed probes that one rank took by itself; 0 without any."""
    probes = [p for item in series if item.get("company", 1) == 1 for p in item.get("probes", ())]
    return statistics.median(probes) if probes else 0.0


def _concurrency(series: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """The median ratio of what ranks computed together and alone, one right after the other, by their number.

    Of processor seconds, which grow where ranks share caches, memory and execution units, and do not where
    some other program holds a core: that is this minute's, not the machine's.
    """
    ratios: dict[int, list[float]] = {}
    for item in series:
        if item["what"] == CONCURRENCY:
            ratios.setdefault(item["parameters"]["processes"], []).extend(item["seconds"])
    return {1: 1.0, **{count: statistics.median(own) for count, own in sorted(ratios.items())}}


def _times(seconds: Sequence[float], speeds: Sequence[float]) -> tuple[float, ...]:
    if not speeds or not seconds:
        return tuple(seconds)
    return tuple(s * speed for s, speed in zip(seconds, speeds, strict=True))
