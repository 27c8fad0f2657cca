"""Processors of the reference engine: what computes gradients, applies updates and handles messages."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence

import simpy

from .simpy_clock import Clock
from .tables import Place, Tables


class Processors:
    """simpy resources, which serve in order of arrival; cores serve in turns."""

    def __init__(self, clock: Clock, tables: Tables) -> None:
        self.clock, self.tables = clock, tables
        self.stations = [simpy.Resource(clock) for _ in tables.processor]

    def work(self, place: Place, durations: Sequence[float]) -> Generator[simpy.Event, None, float]:
        """Let a place's processor work through ``durations``; where it is a core, in turns with all others.

        Returns when it began.
        """
        processor, whole = self.tables.processor[place.processor], 0.0
        if not self.tables.sliced:
            for seconds in durations:
                processor.busy += seconds
            return (yield from self._serve(place.processor, durations))
        for seconds in durations:
            whole += seconds
        processor.busy += whole
        turns = max(1, math.ceil(whole / self._slice_s(place)))
        begun = yield from self._serve(place.processor, [whole / turns])
        for _ in range(turns - 1):
            yield from self._serve(place.processor, [whole / turns])
        return begun

    def _slice_s(self, place: Place) -> float:
        """A server runs through once it has its turn on a core."""
        t = self.tables
        return t.slice_s if any(place is worker for worker in t.place[: t.workers]) else math.inf

    def _serve(self, number: int, durations: Sequence[float]) -> Generator[simpy.Event, None, float]:
        """Work without a break; returns when it began."""
        with self.stations[number].request() as mine:
            yield mine
            begun = self.clock.now
            for seconds in durations:
                yield self.clock.timeout(seconds)
        return begun
