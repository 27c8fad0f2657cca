"""Running a built Program: deterministic or with factors drawn, rank by rank where ranks differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module

import numpy as np

from ..errors import InputError
from ..hardware.cluster import Cluster
from ..hardware.straggler_factors import transient_factors
from ..program.arrays import flatten
from ..program.built import Built
from ..program.flat import fold
from ..program.fold import unfold
from ..variability.jitter import LaneFactors
from .compiled import run_flat
from .lanes import run_lanes

ENGINES = {"compiled": ".compiled", "simpy": ".reference"}

SHOWN_LANES = 16
"""Ranks of one pipeline stage that a trace shows beside the first, where they differ from it."""

Seconds = Sequence[float] | np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneRun:
    """One lane of a run: when each operation began and ended there."""

    lane: int
    starts: Seconds
    ends: Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """One deterministic run."""

    makespan: float
    """seconds, over all lanes"""
    lanes: tuple[LaneRun, ...]
    """Lane 0, and those that are slower or faster than it."""


class Runner:
    """What runs have in common: the factors on durations, as the cluster has them."""

    def __init__(self, cluster: Cluster, world_size: int, slowness: np.ndarray | None):
        self.cluster, self.world_size, self.slowness = cluster, world_size, slowness

    def deterministic(self) -> Played:
        """No jitter and no transient stragglers."""
        raise NotImplementedError

    def makespans(self, count: int, seed: int) -> list[float]:
        """Of ``count`` runs with factors drawn, over all lanes."""
        raise NotImplementedError

    def ends(self, count: int, seed: int) -> list[Seconds]:
        """Of the same runs, when each operation ended on lane 0."""
        raise NotImplementedError

    def _factors(self, count: int, seed: int) -> LaneFactors:
        return LaneFactors(
            cv=self.cluster.jitter, seed=seed, samples=range(count), slow=self._slow(count, seed)
        )

    @property
    def has_factors(self) -> bool:
        """Whether samples differ."""
        return self.cluster.jitter > 0 or (
            self.cluster.stragglers is not None and self.cluster.stragglers.transient is not None
        )

    def _slow(self, count: int, seed: int) -> np.ndarray | None:
        """Rows of slowness by sample: what is always so, times the transient stragglers of each."""
        always = self.slowness
        if self.cluster.stragglers is None or self.cluster.stragglers.transient is None:
            return always
        rows = np.ones(self.world_size) if always is None else always
        drawn = np.tile(rows, (count, 1))
        for sample in range(count):
            own = transient_factors(self.cluster, seed, sample, self.world_size)
            drawn[sample, : self.world_size] *= own
        return drawn


class ProgramRunner(Runner):
    """Runs one built Program, as often as is wanted."""

    def __init__(self, built: Built, cluster: Cluster, world_size: int, engine: str = "compiled"):
        if engine not in ENGINES:
            raise InputError(f"engine {engine!r} is unknown; expected {' | '.join(ENGINES)}")
        super().__init__(cluster, world_size, built.slowness)
        self.built, self.engine = built, engine
        self.program = built.program

    def deterministic(self) -> Played:
        """No jitter and no transient stragglers."""
        if self.built.slowness is None:
            starts, ends = import_module(ENGINES[self.engine], __package__).run(self.program)
            alike = LaneRun(lane=0, starts=starts, ends=ends)
            return Played(makespan=float(max(ends, default=0.0)), lanes=(alike,))
        factors = LaneFactors(slow=self.built.slowness)
        lanes = lanes_to_show(self.built.slowness, self.built.ranks, self.program.lanes)
        if self.engine == "simpy" or self._has_resources:
            return self._unfolded(factors, lanes)
        times = run_lanes(self._folded, factors, keep=[(0, lane) for lane in lanes])
        runs = [
            LaneRun(lane=lane, starts=times.starts[place], ends=times.ends[place])
            for place, lane in enumerate(lanes)
        ]
        return Played(makespan=float(times.makespans[0]), lanes=tuple(runs))

    def makespans(self, count: int, seed: int) -> list[float]:
        """Of ``count`` runs with factors drawn, over all lanes."""
        factors = self._factors(count, seed)
        if self._has_resources:
            return [max(self._flat_run(factors, sample)) for sample in range(count)]
        return run_lanes(self._folded, factors).makespans.tolist()

    def ends(self, count: int, seed: int) -> list[Seconds]:
        """Of the same runs, when each operation ended on lane 0."""
        factors = self._factors(count, seed)
        if self._has_resources:
            return [self._flat_run(factors, sample) for sample in range(count)]
        return list(run_lanes(self._folded, factors, keep=[(sample, 0) for sample in range(count)]).ends)

    @property
    def _has_resources(self) -> bool:
        return any(op.resources for op in self.program.operations)

    @cached_property
    def _folded(self):
        return fold(self.program)

    @cached_property
    def _flat(self):
        return flatten(self.program)

    @cached_property
    def _owners(self) -> np.ndarray:
        return np.array([op.rank for op in self.program.operations], dtype=np.int64)

    def _flat_run(self, factors: LaneFactors, sample: int) -> Seconds:
        durations = np.array([op.duration for op in self.program.operations])
        drawn = factors.durations(durations, sample, ranks=self._owners)
        return run_flat(self._flat, drawn)[1]

    def _unfolded(self, factors: LaneFactors, lanes: list[int]) -> Played:
        """All lanes written out, which either engine runs."""
        unfolded = unfold(self.program)
        own = unfolded.program
        owners = np.array([op.rank for op in own.operations], dtype=np.int64)
        durations = np.array([op.duration for op in own.operations])
        drawn = factors.durations(durations, 0, unfolded.base, unfolded.lane, owners)
        starts, ends = map(np.array, import_module(ENGINES[self.engine], __package__).run(own, drawn))
        runs = [
            LaneRun(
                lane=lane,
                starts=starts[[first[lane] for first in unfolded.first]],
                ends=ends[[last[lane] for last in unfolded.last]],
            )
            for lane in lanes
        ]
        return Played(makespan=float(ends.max(initial=0.0)), lanes=tuple(runs))


def lanes_to_show(slowness: np.ndarray, ranks: Sequence[int], lanes: int) -> list[int]:
    """Lane 0, and lanes on which some rank differs from lane 0's."""
    by_stage = np.stack([slowness[rank : rank + lanes] for rank in ranks])
    differs = (by_stage != by_stage[:, :1]).any(axis=0)
    return [0, *np.flatnonzero(differs).tolist()[:SHOWN_LANES]]
