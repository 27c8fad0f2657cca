"""What a pipeline schedule is: its order of passes, and all that the rest of the program asks about it.

A schedule is one file of this folder that defines ``SCHEDULE = Schedule(...)``, or a `Schedule` that
somebody registers. Nothing else in the program names it: options, rules, placement of stages, memory,
bounds and the search read the descriptor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...errors import Fault
from ..action import Actions
from ..pass_times import PassTimes
from ..stage_placement import loop
from .order_arrays import OrderArrays

Orders = tuple[Actions, ...]
"""By pipeline rank: its passes in order."""

AFTER_THE_OTHERS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineShape:
    """The pipeline that an order of passes is made for."""

    ranks: int
    virtual_stages: int
    """Stages that each rank holds."""
    micro_batches: int
    """Of one step; of a schedule that never drains the pipeline, of all the steps it is played for."""
    times: PassTimes | None = None
    """Seconds of the passes by stage, for schedules that arrange themselves by them; None says that nobody
    knows them."""

    @property
    def stages(self) -> int:
        """Over all ranks."""
        return self.ranks * self.virtual_stages

    @property
    def pass_times(self) -> PassTimes:
        """`times`, or all passes alike."""
        return self.times or PassTimes.alike(self.stages)

    def micro_batch_fault(self, expected: str) -> Fault:
        """A rule about the number of micro-batches that is broken."""
        return Fault(path="job.global_batch", found=f"{self.micro_batches} micro-batches", expected=expected)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unflushed:
    """How a schedule that never drains the pipeline keeps and updates weights."""

    weight_versions: Callable[[int, int], int]
    """Copies of its weights that a pipeline rank keeps, of (rank, ranks)."""
    updates_every_micro_batch: bool
    """Weights are updated after each backward, not once for each global batch."""


def _no_rules(_: PipelineShape) -> list[Fault]:
    return []


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """One pipeline schedule."""

    name: str
    generate: Callable[[PipelineShape], Orders] | None
    """The passes of each rank, compute only: sends, receives and reductions are added to any order. None
    where the plan brings the orders itself."""
    place: int = AFTER_THE_OTHERS
    """Where lists of schedules have it; those with the same place go by name."""
    virtual_stages: int | None = 1
    """Stages that each rank holds; None leaves it open."""
    stage_rank: Callable[[int, int], int] = loop
    """The rank that holds a stage, of (stage, ranks)."""
    splits_backward: bool = False
    """Some backwards are made in two halves, I and W."""
    overlaps: bool = False
    """Some forwards run side by side with a backward."""
    arranged_by_times: bool = False
    """The order depends on the seconds of the passes."""
    unflushed: Unflushed | None = None
    """Set where the pipeline is never drained between steps."""
    rules: Callable[[PipelineShape], list[Fault]] = _no_rules
    """What keeps it from a shape whose `virtual_stages` are right."""
    order_arrays: Callable[[PipelineShape], OrderArrays] | None = None
    """The order of `generate` as arrays, where it is a function of rank and place."""
    searched_with: tuple[int, ...] = ()
    """Virtual stages with which the search tries it; none keeps it out of the search. Where
    `virtual_stages` is open, only those that divide the model's blocks evenly are tried."""

    @property
    def is_plain(self) -> bool:
        """One stage a rank, whole backwards one at a time, a drained pipeline: what the executor runs."""
        return (
            self.generate is not None
            and self.virtual_stages == 1
            and not (self.splits_backward or self.overlaps)
            and self.unflushed is None
        )
