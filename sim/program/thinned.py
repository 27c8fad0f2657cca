"""A plan with most of its repetitions left out, and what was left out as columns.

Micro-batches do the same again and again. `thin` keeps of every rank the first pass of each kind and stage,
one message over each boundary, and all that happens once: reductions, optimizer steps and the passes that
these wait for. `build.py` builds that as it builds any plan; `step_arrays.py` repeats what it made.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

import numpy as np

from ..plan.action import Kind
from ..plan.action_table import CODE, KINDS, ActionTable, among, table_of
from ..plan.plan import Plan

FORWARDS = (Kind.FORWARD,)
GRADIENTS = (Kind.BACKWARD, Kind.INPUT_GRADIENT)
"""What makes the gradient of a stage's input."""
COMPLETING = (Kind.BACKWARD, Kind.WEIGHT_GRADIENT)
_PASSES = (Kind.FORWARD, Kind.BACKWARD, Kind.INPUT_GRADIENT, Kind.WEIGHT_GRADIENT)


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The n actions of all pipeline ranks, rank after rank, and the m passes that they are made of."""

    first: np.ndarray
    """int64[ranks + 1]: the actions of rank r are those from ``first[r]`` up to ``first[r + 1]``"""
    kind: np.ndarray
    """int64[n], places in `action_table.KINDS`"""
    stage: np.ndarray
    """int64[n]"""
    micro_batch: np.ndarray
    """int64[n]"""
    part_of: np.ndarray
    """int64[m]: the action that a pass is, or is a part of"""
    part_kind: np.ndarray
    """int64[m]"""
    part_stage: np.ndarray
    """int64[m]"""
    part_micro_batch: np.ndarray
    """int64[m]"""

    @property
    def count(self) -> int:
        return len(self.kind)

    @property
    def rank(self) -> np.ndarray:
        """int64[n]"""
        return np.repeat(np.arange(len(self.first) - 1), np.diff(self.first))


def columns_of(plan: Plan) -> Columns:
    """The columns of the plan's actions."""
    rows = [(CODE[action.kind], action.stage, action.micro_batch) for own in plan.actions for action in own]
    kind, stage, micro_batch = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    passes = np.flatnonzero(among(kind, (*_PASSES, Kind.OVERLAP)))
    parts = np.stack([passes, kind[passes], stage[passes], micro_batch[passes]], axis=1)
    if (parts[:, 1] == CODE[Kind.OVERLAP]).any():
        every = [action for own in plan.actions for action in own]
        parts = np.array(
            [
                (place, CODE[part.kind], part.stage, part.micro_batch)
                for place in passes.tolist()
                for part in every[place].passes
            ]
        )
    return Columns(
        first=np.concatenate([[0], np.cumsum([len(own) for own in plan.actions])]),
        kind=kind,
        stage=stage,
        micro_batch=micro_batch,
        part_of=parts[:, 0],
        part_kind=parts[:, 1],
        part_stage=parts[:, 2],
        part_micro_batch=parts[:, 3],
    )


@dataclass(frozen=True, kw_only=True)
class Repeats:
    """What of some lists of actions is kept, and what the others repeat."""

    columns: Columns
    kept: np.ndarray
    """bool[n]"""
    like: np.ndarray
    """int64[n]: the kept action that a pass or a send repeats; -1 of all others"""
    message: np.ndarray
    """int64[n]: of a receive, the action that sends; -1 of all others"""
    maker: np.ndarray
    """int64[n]: of a send, the action whose result it sends; -1 of all others"""
    received: np.ndarray
    """int64[m]: by pass, the send whose message it waits for; -1 for none"""

    @property
    def share(self) -> float:
        """Kept actions among all."""
        return float(self.kept.sum()) / max(1, self.columns.count)


@dataclass(frozen=True, kw_only=True)
class Thinned:
    """A plan of few actions, and where those and their like are in the whole one."""

    plan: Plan
    repeats: Repeats


class _Places:
    """Actions by direction (0 forward, 1 backward), stage and micro-batch; -1 where there is none."""

    def __init__(self, stages: int, micro_batches: int) -> None:
        self.table = np.full((2, stages + 2, micro_batches), -1)

    def put(self, direction: int, stage: np.ndarray, micro_batch: np.ndarray, place: np.ndarray) -> None:
        self.table[direction, stage + 1, micro_batch] = place

    def get(self, direction: np.ndarray | int, stage: np.ndarray, micro_batch: np.ndarray) -> np.ndarray:
        return self.table[direction, stage + 1, micro_batch]


def thin(plan: Plan) -> Thinned | None:
    """``plan`` without its repetitions; None where a message is sent or received without the other."""
    table = table_of(plan.actions)
    repeats = _repeats(columns_of(plan)) if table is None else _of_table(table)
    if repeats is None:
        return None
    first, places = repeats.columns.first, np.flatnonzero(repeats.kept)
    cuts = np.searchsorted(places, first).tolist()
    if table is not None:
        kept = table.rows(places)
    else:
        every = [action for own in plan.actions for action in own]
        kept = tuple(every[place] for place in places.tolist())
    actions = tuple(kept[begin:end] for begin, end in pairwise(cuts))
    return Thinned(plan=replace(plan, actions=actions), repeats=repeats)


@lru_cache(maxsize=16)
def _of_table(table: ActionTable) -> Repeats | None:
    """Kept, since the plans of equal strategies share their table."""
    passes = np.flatnonzero(among(table.kind, _PASSES))
    columns = Columns(
        first=table.first,
        kind=table.kind,
        stage=table.stage,
        micro_batch=table.micro_batch,
        part_of=passes,
        part_kind=table.kind[passes],
        part_stage=table.stage[passes],
        part_micro_batch=table.micro_batch[passes],
    )
    return _repeats(columns)


def _repeats(columns: Columns) -> Repeats | None:
    kind, stage, micro_batch = columns.kind, columns.stage, columns.micro_batch
    stages = int(columns.part_stage.max(initial=0)) + 1
    size = (stages, int(max(micro_batch.max(initial=0), columns.part_micro_batch.max(initial=0))) + 1)
    made, sent, received = _Places(*size), _Places(*size), _Places(*size)
    own = (columns.part_stage, columns.part_micro_batch, columns.part_of)
    message, maker = np.full(columns.count, -1), np.full(columns.count, -1)
    for way, kinds, send, receive in (
        (0, FORWARDS, Kind.SEND_F, Kind.RECV_F),
        (1, GRADIENTS, Kind.SEND_B, Kind.RECV_B),
    ):
        makes = among(columns.part_kind, kinds)
        made.put(way, *(column[makes] for column in own))
        sends = np.flatnonzero(kind == CODE[send])
        maker[sends] = made.get(way, stage[sends], micro_batch[sends])
        sent.put(way, stage[sends] + 1 - 2 * way, micro_batch[sends], sends)
        gets = np.flatnonzero(kind == CODE[receive])
        message[gets] = sent.get(way, stage[gets], micro_batch[gets])
        received.put(way, stage[gets], micro_batch[gets], message[gets])
        if (maker[sends] < 0).any() or (message[gets] < 0).any() or len(sends) != len(gets):
            return None
    backward = among(columns.part_kind, GRADIENTS)
    comes = received.get(backward.astype(np.int64), columns.part_stage, columns.part_micro_batch)
    comes = np.where(columns.part_kind == CODE[Kind.WEIGHT_GRADIENT], -1, comes)
    like = _like(columns)
    kept = _kept(columns, like, comes, message, maker)
    return Repeats(columns=columns, kept=kept, like=like, message=message, maker=maker, received=comes)


def _like(columns: Columns) -> np.ndarray:
    """By pass and send: the first of its kind and stage."""
    like = np.full(columns.count, -1)
    stages = int(columns.stage.max(initial=0)) + 1
    plain = np.flatnonzero(among(columns.kind, (*_PASSES, Kind.SEND_F, Kind.SEND_B)))
    key = columns.kind[plain] * stages + columns.stage[plain]
    first = np.full(len(KINDS) * stages, -1)
    first[key[::-1]] = plain[::-1]
    like[plain] = first[key]
    overlaps = np.flatnonzero(columns.kind == CODE[Kind.OVERLAP])
    begin = np.searchsorted(columns.part_of, overlaps)
    firsts: dict[tuple[int, ...], int] = {}
    pairs = [columns.part_kind[begin], columns.part_stage[begin]]
    pairs += [columns.part_kind[begin + 1], columns.part_stage[begin + 1]] if len(begin) else []
    for place, *pair in zip(overlaps.tolist(), *(column.tolist() for column in pairs), strict=True):
        like[place] = firsts.setdefault(tuple(pair), place)
    return like


def _kept(
    columns: Columns, like: np.ndarray, received: np.ndarray, message: np.ndarray, maker: np.ndarray
) -> np.ndarray:
    """bool[n]: the first of each kind, what happens once, and what of that waits for each other."""
    is_pass = np.zeros(columns.count, dtype=np.bool_)
    is_pass[columns.part_of] = True
    plain = is_pass | (maker >= 0) | (message >= 0)
    own = np.arange(columns.count)
    kept = ~plain
    before = np.maximum.accumulate(np.where(is_pass, own, -1))
    waiting = np.flatnonzero(~plain & (before >= columns.first[columns.rank]))
    kept[before[waiting]] = True
    kept[_reduced(columns, before)] = True
    once = np.flatnonzero(kept[columns.part_of] & (received >= 0))
    kept |= like == own
    # A pass that is cut shows its parts apart where it waits for a message, so it must have that.
    sends = np.concatenate([np.flatnonzero(kept & (maker >= 0)), received[once]])
    kept[sends] = True
    kept[maker[sends]] = True
    taken = np.zeros(columns.count, dtype=np.bool_)
    taken[sends] = True
    gets = np.flatnonzero(message >= 0)
    kept[gets[taken[message[gets]]]] = True
    return kept


def _reduced(columns: Columns, before: np.ndarray) -> list[int]:
    """Actions that complete the gradients which a reduction sums: the last of its stage before it."""
    found: list[int] = []
    reductions = np.flatnonzero(columns.kind == CODE[Kind.REDUCE_GRAD])
    if not len(reductions):
        return found
    completing = np.flatnonzero(among(columns.part_kind, COMPLETING))
    completed = np.full(columns.count, -1)
    completed[columns.part_of[completing]] = columns.part_stage[completing]
    for place, stage in zip(reductions.tolist(), columns.stage[reductions].tolist(), strict=True):
        last = int(before[place])
        while last >= 0 and completed[last] != stage:
            last = int(before[last - 1]) if last else -1
        found += [last] if last >= 0 else []
    return found
