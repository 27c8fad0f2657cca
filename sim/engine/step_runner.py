"""Running a step's arrays: deterministic in one walk, with factors drawn as lanes of the same arrays."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from ..hardware.cluster import Cluster
from ..program.arrays import flat_arrays
from ..program.flat import Folded
from ..program.step_arrays import StepArrays
from ..variability.jitter import LaneFactors
from .lane_order import LaneOrder, as_numbered
from .lanes import LaneTimes, run_lanes
from .runner import LaneRun, Played, Runner, Seconds, lanes_to_show
from .walk import Walked, walk


class StepRunner(Runner):
    """Runs one step's arrays, as often as is wanted."""

    def __init__(self, step: StepArrays, cluster: Cluster, world_size: int):
        super().__init__(cluster, world_size, step.slowness)
        self.step = step

    def deterministic(self) -> Played:
        """No jitter and no transient stragglers."""
        if self.slowness is None:
            walked = self._walked
            alike = LaneRun(lane=0, starts=walked.starts, ends=walked.ends)
            return Played(makespan=float(walked.ends.max(initial=0.0)), lanes=(alike,))
        lanes = lanes_to_show(self.slowness, self.step.ranks, self._folded.lanes)
        times = self._run(LaneFactors(slow=self.slowness), [(0, lane) for lane in lanes])
        runs = [
            LaneRun(lane=lane, starts=self._by_operation(starts), ends=self._by_operation(ends))
            for lane, starts, ends in zip(lanes, times.starts, times.ends, strict=True)
        ]
        return Played(makespan=float(times.makespans[0]), lanes=tuple(runs))

    def makespans(self, count: int, seed: int) -> list[float]:
        """Of ``count`` runs with factors drawn, over all lanes."""
        return self._run(self._factors(count, seed), []).makespans.tolist()

    def ends(self, count: int, seed: int) -> list[Seconds]:
        """Of the same runs, when each operation ended on lane 0."""
        times = self._run(self._factors(count, seed), [(sample, 0) for sample in range(count)])
        return [self._by_operation(ends) for ends in times.ends]

    def _run(self, factors: LaneFactors, keep: list[tuple[int, int]]) -> LaneTimes:
        return run_lanes(self._folded, factors, keep=keep, order=self._order)

    def _by_operation(self, walked: np.ndarray) -> np.ndarray:
        """Values in the order of the walk, by operation."""
        found = np.empty_like(walked)
        found[self._walked.order] = walked
        return found

    @cached_property
    def _walked(self) -> Walked:
        return walk(self.step)

    @cached_property
    def _order(self) -> LaneOrder:
        return as_numbered(self._folded.flat)

    @cached_property
    def _folded(self) -> Folded:
        """The arrays in the order of the walk, whose numbers jitter is drawn by."""
        step, order = self.step, self._walked.order
        number = np.empty(len(order) + 1, dtype=np.int64)
        number[order], number[-1] = np.arange(len(order)), -1
        before = number[np.concatenate([self._walked.previous, step.waits], axis=1)[order]]
        targets, column = np.nonzero(before >= 0)
        sources = before[targets, column]
        count = len(order)
        flat = flat_arrays(
            None,
            step.durations[order],
            (sources, targets, np.zeros(len(sources))),
            np.zeros(count + 1, dtype=np.int64),
            np.zeros(0, dtype=np.int32),
            resources=0,
        )
        return Folded(
            flat=flat,
            axes=step.axes,
            sync=step.sync[order],
            pattern=step.pattern[order],
            rank=step.rank[order],
        )
