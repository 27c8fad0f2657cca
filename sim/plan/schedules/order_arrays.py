"""Orders of passes as arrays: a regular order is a function of rank and place, and needs no Actions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..action import Kind

PASS_KINDS = (Kind.FORWARD, Kind.BACKWARD, Kind.INPUT_GRADIENT, Kind.WEIGHT_GRADIENT)
"""Kinds of passes; arrays hold their places here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderArrays:
    """The passes of all ranks in order, where every rank has the same number n of them."""

    kind: np.ndarray
    """int32[ranks, n], places in `PASS_KINDS`"""
    stage: np.ndarray
    """int32[ranks, n]"""
    micro_batch: np.ndarray
    """int32[ranks, n]"""


def whole_backwards(
    forward: np.ndarray, backward: np.ndarray, micro_batch: np.ndarray, chunk: np.ndarray, chunks: int
) -> OrderArrays:
    """The arrays of an order with whole backwards, on ranks that hold ``chunks`` stages each, in a loop.

    ``forward`` and ``backward`` (int64[ranks, n]) say at which place a rank makes its n-th forward and its
    n-th backward. The n-th forward is that of ``micro_batch[n]`` through the rank's stage ``chunk[n]``
    (int64[n] both), counted from its first; the n-th backward is of the same micro-batch, its stages
    counted from the last.
    """
    ranks, count = forward.shape
    rank = np.arange(ranks)[:, None]
    made = OrderArrays(
        kind=np.full((ranks, 2 * count), PASS_KINDS.index(Kind.FORWARD), dtype=np.int32),
        stage=np.empty((ranks, 2 * count), dtype=np.int32),
        micro_batch=np.empty((ranks, 2 * count), dtype=np.int32),
    )
    made.kind[rank, backward] = PASS_KINDS.index(Kind.BACKWARD)
    made.stage[rank, forward] = chunk * ranks + rank
    made.stage[rank, backward] = (chunks - 1 - chunk) * ranks + rank
    made.micro_batch[rank, forward] = made.micro_batch[rank, backward] = micro_batch
    return made
