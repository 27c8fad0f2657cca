"""What came of an update model: when every gradient was read for, computed, pushed and applied."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

WARMUP = 0.25
"""Share of the first updates that is left out of rates, while the workers fall out of step."""


@dataclass(frozen=True, kw_only=True, eq=False)
class UpdateRecord:
    """Arrays over n workers, r rounds and s shards; what never happened is NaN, or -1 where it counts."""

    joint: bool
    """Whether several gradients make one update."""
    read_s: np.ndarray
    """float64[n, r, s]: when the server read the shard for this round's pull."""
    version: np.ndarray
    """int64[n, r, s]: updates of the shard that had been applied by then."""
    pull_start_s: np.ndarray
    pull_end_s: np.ndarray
    """float64[n, r, s]: the pull's message begins to leave the server; is whole at the worker."""
    compute_start_s: np.ndarray
    compute_end_s: np.ndarray
    """float64[n, r]"""
    push_start_s: np.ndarray
    push_end_s: np.ndarray
    """float64[n, r, s]: the gradient begins to leave the worker; is whole at the server."""
    apply_start_s: np.ndarray
    applied_s: np.ndarray
    """float64[n, r, s]: when the update that the gradient is part of begins and is done."""
    place: np.ndarray
    """int64[n, r, s]: updates of the shard applied before this one; -1 where the gradient was dropped."""
    out_busy_s: np.ndarray
    in_busy_s: np.ndarray
    """float64[interface]"""
    processor_busy_s: np.ndarray
    """float64[n + servers]: workers' processors, then servers'; a shared one counts for its worker."""

    @property
    def makespan_s(self) -> float:
        """When the last update is applied."""
        return float(np.nanmax(self.applied_s))

    @property
    def staleness(self) -> np.ndarray:
        """int64[u]: of every gradient applied, in order of application on the first shard.

        How many updates were applied between the read that the gradient was computed on and its own.
        """
        place, version = self.place[:, :, 0].reshape(-1), self.version[:, :, 0].reshape(-1)
        applied = np.flatnonzero(place >= 0)
        order = applied[np.argsort(place[applied], kind="stable")]
        return place[order] - version[order]

    @property
    def dropped(self) -> int:
        """Gradients that arrived too late to count, on the first shard."""
        arrived = ~np.isnan(self.push_end_s[:, :, 0])
        late = np.isnan(self.applied_s[:, :, 0]) & (self.place[:, :, 0] < 0)
        return int(np.count_nonzero(arrived & late))

    @property
    def step_time_s(self) -> float:
        """Seconds of one step in the steady state.

        Joint: from one update to the next. Else the time in which as many gradients are applied as there
        are workers: n over the sum of their rates, taken after a warm-up and until the first worker has
        made its last update, so that nobody runs alone.
        """
        if self.joint:
            return _joint_period(self.applied_s, self.place)
        return _individual_period(self.applied_s)

    def utilisation(self, busy_s: np.ndarray) -> np.ndarray:
        """``busy_s`` as shares of the makespan."""
        return busy_s / self.makespan_s if self.makespan_s else np.zeros_like(busy_s)

    def same_as(self, other: UpdateRecord) -> bool:
        """Whether both are equal to the last bit."""
        own = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self) if f.name != "joint")
        return all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in own)


def _joint_period(applied_s: np.ndarray, place: np.ndarray) -> float:
    """A step is over when its last shard is; a single step is the whole run."""
    ends = np.full(int(place.max()) + 1, -np.inf)
    done = place >= 0
    np.maximum.at(ends, place[done], applied_s[done])
    return float((ends[-1] - ends[0]) / (len(ends) - 1)) if len(ends) > 1 else float(ends[0])


def _individual_period(applied_s: np.ndarray) -> float:
    ends = applied_s.max(axis=2)
    stop = ends[:, -1].min()
    rates = []
    for own in ends:
        counted = own[int(len(own) * WARMUP) :]
        counted = counted[counted <= stop]
        if len(counted) > 1 and counted[-1] > counted[0]:
            rates.append((len(counted) - 1) / (counted[-1] - counted[0]))
    return len(ends) / sum(rates) if rates else float(stop)
