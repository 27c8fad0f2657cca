"""Peak memory of every rank by what fills it, when it stands there, and what would make it fit."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

from ..display import Shown
from ..hardware.cluster import Cluster
from ..memory.assumptions import assumptions
from ..memory.pass_timeline import Moment
from ..memory.peak import RankMemory, rank_memory, rank_peak, rank_walk
from ..memory.peak import memory as memory_of
from ..plan.plan import Plan
from ..plan.strategy import Strategy
from ..predict.pass_spans import pass_spans
from ..search.fit_hints import Hint, hints, largest_micro_batch
from . import inputs
from .inputs import ClusterLike
from .plans import PlanLike, plan_on

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Memory(Shown, Sequence[RankMemory]):
    """Memory of a plan on a cluster: a RankMemory for each pipeline rank, in order, then for each server."""

    plan: Plan
    cluster: Cluster
    places: tuple[RankMemory, ...]

    @overload
    def __getitem__(self, place: int) -> RankMemory: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[RankMemory]: ...
    def __getitem__(self, place: int | slice) -> RankMemory | Sequence[RankMemory]:
        return self.places[place]

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[RankMemory]:
        return iter(self.places)

    def __repr__(self) -> str:
        fullest = max(place.total_bytes for place in self.places) / 2**30
        room = f"{self.places[0].capacity_bytes / 2**30:.1f} GiB"
        verdict = "fits" if self.fits else "does not fit"
        return f"Memory({self.plan.strategy.label}: {fullest:.1f} of {room}, {verdict})"

    @property
    def names(self) -> list[str]:
        """Of the pipeline stages with their ranks, then of the servers."""
        names = []
        for stage, grid in enumerate(self.plan.grid):
            first, last = int(grid.min()), int(grid.max())
            names.append(f"stage {stage} (rank {first}{f' to {last}' if last > first else ''})")
        return names + [f"server {i} (rank {rank})" for i, rank in enumerate(self.plan.server_ranks)]

    @property
    def fits(self) -> bool:
        """Whether every rank's peak is within its accelerator's memory."""
        return all(place.fits for place in self.places)

    @property
    def fullest(self) -> int:
        """Pipeline rank with most in memory."""
        return max(range(self.plan.strategy.pp), key=lambda rank: self.places[rank].total_bytes)

    @cached_property
    def peak(self) -> dict[str, Any]:
        """When most stands on the fullest pipeline rank, and what its activations are."""
        return {"pipeline_rank": self.fullest, **asdict(rank_peak(self.plan, self.fullest))}

    @cached_property
    def hints(self) -> tuple[Hint, ...]:
        """Changes of the strategy with which it fits, the fastest first; none where it fits."""
        return () if self.fits else hints(self.plan, self.cluster)

    @cached_property
    def largest_micro_batch(self) -> int | None:
        """The largest that still fits; None where this one does not."""
        return largest_micro_batch(self.plan, self.cluster)[0] if self.fits else None

    @property
    def assumes(self) -> tuple[str, ...]:
        """What the figures rest on, in words."""
        return assumptions(self.plan.job, self.plan.strategy)

    def over_time(self, pipeline_rank: int) -> tuple[list[RankMemory], list[tuple[float, float]]]:
        """What stands on a pipeline rank during each of its passes, and when these are (start, end), in s."""
        walk = rank_walk(self.plan, pipeline_rank)
        moments: list[Moment] = [walk.moment(i) for i in range(len(walk.stages))]
        standing = [rank_memory(self.plan, self.cluster, pipeline_rank, moment) for moment in moments]
        return standing, list(pass_spans(self.plan, self.cluster, pipeline_rank))

    def frame(self) -> DataFrame:
        """A row for each pipeline rank and server: bytes by what fills them, and their sum."""
        from pandas import DataFrame

        rows = [{**asdict(place), "total_bytes": place.total_bytes, "fits": place.fits} for place in self]
        return DataFrame(rows, index=self.names)

    def to_dict(self, *, with_hints: bool = True) -> dict[str, Any]:
        """What `memory --json` prints."""
        found = self.hints if with_hints else ()
        return {
            "schema": "traincast.memory/1",
            "places": [_row(name, place) for name, place in zip(self.names, self, strict=True)],
            "peak": self.peak,
            "fits": self.fits,
            "largest_micro_batch": self.largest_micro_batch,
            "hints": [_hint_row(hint) for hint in found],
            "assumes": self.assumes,
        }


def _row(name: str, place: RankMemory) -> dict[str, Any]:
    return {
        "ranks": name,
        **asdict(place),
        "allocated_bytes": place.allocated_bytes,
        "allocator_bytes": place.allocator_bytes,
        "total_bytes": place.total_bytes,
        "fits": place.fits,
    }


def _hint_row(hint: Hint) -> dict[str, Any]:
    numbers = {
        name: getattr(hint, name) for name in ("peak_bytes", "saved_bytes", "step_time_s", "slower", "text")
    }
    return {"changes": hint.changes, "accelerators": hint.strategy.world_size, **numbers}


def memory(
    what: PlanLike,
    cluster: ClusterLike,
    strategy: Strategy | None = None,
    *,
    schedule_csv: str | os.PathLike[str] | None = None,
    **fields: Any,
) -> Memory:
    """Peak memory of every pipeline rank and server of a plan, by what fills it, in bytes.

    Arguments are as in `simulate`. Hints, the largest micro-batch and the moment of the peak are found when
    they are asked for.

    >>> import traincast as tc
    >>> found = tc.memory("llama3-8b", "hgx-h100", dp=8, global_batch=32, seq_len=4096)
    >>> found.fits, found[0].short_bytes > 2**30
    (False, True)
    >>> found.hints[0].step_time_s < found.hints[-1].step_time_s
    True
    >>> tc.memory("llama3-8b", "hgx-h100", tp=8, global_batch=32, seq_len=4096).fits
    True

    Raises:
        InputError, UsageError: as `simulate`.
    """
    machine = inputs.cluster(cluster)
    plan = plan_on(machine, what, strategy, schedule_csv=schedule_csv, **fields)
    return Memory(plan=plan, cluster=machine, places=memory_of(plan, machine))
