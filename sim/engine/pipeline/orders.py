"""Orders of a pipeline's passes as arrays: what `engine_pipeline` runs, and how the regular ones are made.

A schedule of `schedules` is a list of Actions for every pipeline rank; `pass_orders` turns any of them into
arrays. The regular orders are functions of rank and place, so `regular_orders` makes them at once, without
an Action: 64 ranks with 512 micro-batches take a millisecond.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import InputError
from ...plan.action import Actions, Kind

FORWARD, BACKWARD, INPUT_GRADIENT, WEIGHT_GRADIENT = range(4)
"""Numbers of the kinds of passes in arrays."""

_KINDS = {
    Kind.FORWARD: FORWARD,
    Kind.BACKWARD: BACKWARD,
    Kind.INPUT_GRADIENT: INPUT_GRADIENT,
    Kind.WEIGHT_GRADIENT: WEIGHT_GRADIENT,
}


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
    """The arrays of `gpipe`, `1f1b` or `interleaved`, equal to `pass_orders` of their Actions.

    Rank r holds the stages r, r + ranks, r + 2 ranks …; whether a schedule is possible is not checked.

    Raises:
        InputError: another name.
    """
    if name not in REGULAR:
        raise InputError(f"orders of {name!r} are not made as arrays; expected {' | '.join(REGULAR)}")
    total = virtual_stages * micro_batches
    number, rank = np.arange(total), np.arange(ranks)[:, None]
    forward, backward = REGULAR[name](rank, number, ranks, virtual_stages, micro_batches)
    index, chunk = _chunks(number, ranks, virtual_stages, micro_batches)
    kind = np.full((ranks, 2 * total), FORWARD, dtype=np.int32)
    stage = np.empty((ranks, 2 * total), dtype=np.int32)
    micro_batch = np.empty((ranks, 2 * total), dtype=np.int32)
    kind[rank, backward] = BACKWARD
    stage[rank, forward] = chunk * ranks + rank
    stage[rank, backward] = (virtual_stages - 1 - chunk) * ranks + rank
    micro_batch[rank, forward] = micro_batch[rank, backward] = index
    return PassOrders(
        first=np.arange(ranks + 1) * (2 * total),
        kind=kind.reshape(-1),
        stage=stage.reshape(-1),
        micro_batch=micro_batch.reshape(-1),
        together=np.zeros(kind.size, dtype=np.bool_),
        stage_rank=np.arange(ranks * virtual_stages) % ranks,
        micro_batches=micro_batches,
    )


def _chunks(
    number: np.ndarray, ranks: int, virtual_stages: int, micro_batches: int
) -> tuple[np.ndarray, np.ndarray]:
    """Micro-batch and chunk of a rank's n-th forward: in rounds of about as many as there are ranks."""
    if virtual_stages == 1:
        return number, np.zeros_like(number)
    in_round = micro_batches // max(1, micro_batches // ranks)
    index = number // (in_round * virtual_stages) * in_round + number % in_round
    return index, number // in_round % virtual_stages


def _gpipe_places(
    rank: np.ndarray, number: np.ndarray, ranks: int, virtual_stages: int, micro_batches: int
) -> tuple[np.ndarray, np.ndarray]:
    """All forwards, then all backwards."""
    forward = np.broadcast_to(number, (ranks, len(number)))
    return forward, forward + len(number)


def _1f1b_places(
    rank: np.ndarray, number: np.ndarray, ranks: int, virtual_stages: int, micro_batches: int
) -> tuple[np.ndarray, np.ndarray]:
    """Warm-up forwards, then backward and forward in turn, then the other backwards."""
    warmup = np.minimum(micro_batches, ranks - rank)
    forward = np.where(number < warmup, number, 2 * number - warmup + 1)
    return forward, number + np.minimum(warmup + number, micro_batches)


def _interleaved_places(
    rank: np.ndarray, number: np.ndarray, ranks: int, virtual_stages: int, micro_batches: int
) -> tuple[np.ndarray, np.ndarray]:
    """Warm-up as `torch.distributed.pipelining.ScheduleInterleaved1F1B` has it, then forward and backward in
    turn, then the other backwards (Narayanan et al. 2021, section 2.2)."""
    in_round = micro_batches // max(1, micro_batches // ranks)
    total = len(number)
    warmup = np.minimum(total, (virtual_stages - 1) * in_round + 2 * (ranks - 1 - rank))
    forward = np.where(number < warmup, number, 2 * number - warmup)
    backward = np.where(number < total - warmup, warmup + 2 * number + 1, total + number)
    return forward, backward


REGULAR: dict[str, Callable[..., tuple[np.ndarray, np.ndarray]]] = {
    "gpipe": _gpipe_places,
    "1f1b": _1f1b_places,
    "interleaved": _interleaved_places,
}
"""Places of every rank's n-th forward and backward, (int64[ranks, n], int64[ranks, n])."""
