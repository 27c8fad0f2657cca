"""Orders of a pipeline's passes as arrays: what `worklist` runs, and how the regular ones are made.

A schedule of `schedules` is a list of Actions for every pipeline rank; `pass_orders` turns any of them into
arrays. The regular orders are functions of rank and place, so `regular_orders` makes them at once, without
an Action: 64 ranks with 512 micro-batches take a millisecond.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import InputError
from ...plan.action import Actions
from ...plan.schedules import PipelineShape, find_schedule, schedules
from ...plan.schedules.order_arrays import PASS_KINDS

FORWARD, BACKWARD, INPUT_GRADIENT, WEIGHT_GRADIENT = range(4)
"""Numbers of the kinds of passes in arrays."""

_KINDS = {kind: number for number, kind in enumerate(PASS_KINDS)}


@dataclass(frozen=True, slots=True, kw_only=True)
class PassOrders:
    """n passes of all pipeline ranks, rank after rank, each rank's in order."""

    first: np.ndarray
    """int64[ranks + 1], the passes of rank r are those from ``first[r]`` up to ``first[r + 1]``"""
    kind: np.ndarray
    """int32[n], FORWARD, BACKWARD, INPUT_GRADIENT or WEIGHT_GRADIENT"""
    stage: np.ndarray
    """int32[n]"""
    micro_batch: np.ndarray
    """int32[n]"""
    together: np.ndarray
    """bool[n], a pass that overlaps with the next: both start when both can and end together"""
    stage_rank: np.ndarray
    """int64[stages], the rank that holds a stage"""
    micro_batches: int

    @property
    def ranks(self) -> int:
        return len(self.first) - 1

    @property
    def stages(self) -> int:
        return len(self.stage_rank)

    @property
    def passes(self) -> int:
        return len(self.kind)


def pass_orders(orders: Sequence[Actions], stage_rank: Sequence[int]) -> PassOrders:
    """The arrays of ``orders``, by rank; ``stage_rank`` says which rank holds each stage.

    Raises:
        InputError: an action that is no pass, on a rank that does not hold its stage, or that is there twice.
    """
    rows: list[tuple[int, int, int, bool]] = []
    first = [0]
    for rank, actions in enumerate(orders):
        for action in actions:
            parts = action.passes
            for place, part in enumerate(parts):
                if part.kind not in _KINDS or part.micro_batch < 0:
                    raise InputError(
                        f"rank {rank}: {part} is no pass; expected F, B, I or W of a micro-batch"
                    )
                if not 0 <= part.stage < len(stage_rank) or stage_rank[part.stage] != rank:
                    raise InputError(f"rank {rank}: {part} is of a stage that this rank does not hold")
                rows.append((_KINDS[part.kind], part.stage, part.micro_batch, place < len(parts) - 1))
        first.append(len(rows))
    if len({row[:3] for row in rows}) < len(rows):
        raise InputError("a pass is there twice in the schedule")
    kind, stage, index, together = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    return PassOrders(
        first=np.array(first, dtype=np.int64),
        kind=kind.astype(np.int32),
        stage=stage.astype(np.int32),
        micro_batch=index.astype(np.int32),
        together=together.astype(np.bool_),
        stage_rank=np.array(stage_rank, dtype=np.int64),
        micro_batches=int(index.max(initial=-1)) + 1,
    )


def regular_orders(name: str, ranks: int, virtual_stages: int, micro_batches: int) -> PassOrders:
    """The arrays of a regular schedule, as `gpipe` or `1f1b`, equal to `pass_orders` of its Actions.

    Whether the schedule exists at these sizes is not checked.

    Raises:
        InputError: the schedule is unknown, or its order is not made as arrays.
    """
    schedule = find_schedule(name)
    if schedule.order_arrays is None:
        regular = " | ".join(one.name for one in schedules() if one.order_arrays)
        raise InputError(f"orders of {name!r} are not made as arrays; expected {regular}")
    made = schedule.order_arrays(
        PipelineShape(ranks=ranks, virtual_stages=virtual_stages, micro_batches=micro_batches)
    )
    passes = made.kind.shape[1]
    return PassOrders(
        first=np.arange(ranks + 1) * passes,
        kind=made.kind.reshape(-1),
        stage=made.stage.reshape(-1),
        micro_batch=made.micro_batch.reshape(-1),
        together=np.zeros(ranks * passes, dtype=np.bool_),
        stage_rank=np.array([schedule.stage_rank(stage, ranks) for stage in range(ranks * virtual_stages)]),
        micro_batches=micro_batches,
    )
