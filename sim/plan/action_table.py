"""Actions as columns: the lists of all pipeline ranks in a few arrays, and Actions made when somebody looks.

64 ranks with 512 micro-batches have 200,000 actions; as arrays they are made in milliseconds. A rank's list
is an `ActionList`, a sequence of `Action` that equals, and hashes as, the tuple of the same actions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import numpy as np

from .action import Action, Actions, Kind

KINDS = tuple(Kind)
CODE = {kind: code for code, kind in enumerate(KINDS)}
"""Numbers of kinds in columns: their places in `KINDS`."""

NUMBERS = ("stage", "micro_batch", "bucket", "rank")
"""Numbers of actions that a table has; all others are none."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ActionTable:
    """n actions of all pipeline ranks, rank after rank: fields of `Action`, -1 where there is none."""

    first: np.ndarray
    """int64[ranks + 1]: the actions of rank r are those from ``first[r]`` up to ``first[r + 1]``"""
    kind: np.ndarray
    """int64[n], places in `KINDS`"""
    stage: np.ndarray
    """int64[n]"""
    micro_batch: np.ndarray
    """int64[n]"""
    bucket: np.ndarray
    """int64[n]"""
    rank: np.ndarray
    """int64[n]"""

    @property
    def holder(self) -> np.ndarray:
        """int64[n]: the pipeline rank whose action it is."""
        return np.repeat(np.arange(len(self.first) - 1), np.diff(self.first))

    @cached_property
    def lists(self) -> tuple[ActionList, ...]:
        """By rank."""
        bounds = zip(self.first[:-1].tolist(), self.first[1:].tolist(), strict=True)
        return tuple(ActionList(self, begin, end) for begin, end in bounds)

    def rows(self, places: slice | Sequence[int] | np.ndarray) -> tuple[Action, ...]:
        """The actions at ``places``, as objects."""
        kinds = [KINDS[code] for code in self.kind[places].tolist()]
        stage, micro_batch, bucket, rank = (getattr(self, name)[places].tolist() for name in NUMBERS)
        return tuple(
            Action(s, k, m, b, -1, -1, -1, r)
            for s, k, m, b, r in zip(stage, kinds, micro_batch, bucket, rank, strict=True)
        )


class ActionList(Sequence[Action]):
    """What one pipeline rank does: a part of a table."""

    def __init__(self, table: ActionTable, begin: int, end: int) -> None:
        self.table, self.begin, self.end = table, begin, end

    def __len__(self) -> int:
        return self.end - self.begin

    @overload
    def __getitem__(self, place: int) -> Action: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Action, ...]: ...
    def __getitem__(self, place: int | slice) -> Action | tuple[Action, ...]:
        if isinstance(place, slice) or "_rows" in self.__dict__:
            return self._rows[place]
        if not -len(self) <= place < len(self):
            raise IndexError(f"action {place} of {len(self)}")
        return self.table.rows([self.begin + place % len(self)])[0]

    def __iter__(self) -> Iterator[Action]:
        return iter(self._rows)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ActionList):
            return self is other or all(
                np.array_equal(self.column(name), other.column(name)) for name in ("kind", *NUMBERS)
            )
        return self._rows == other if isinstance(other, tuple) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._rows)

    def __repr__(self) -> str:
        return f"<{len(self):,} actions>"

    def column(self, name: str) -> np.ndarray:
        """This rank's part of a column of the table."""
        return getattr(self.table, name)[self.begin : self.end]

    @cached_property
    def _rows(self) -> tuple[Action, ...]:
        return self.table.rows(slice(self.begin, self.end))


def table_of(actions: Sequence[Actions]) -> ActionTable | None:
    """The table of which ``actions`` are all lists in order; None if they are no such lists."""
    first = actions[0] if actions else None
    if not isinstance(first, ActionList) or len(actions) != len(first.table.lists):
        return None
    own = zip(actions, first.table.lists, strict=True)
    return first.table if all(one is other for one, other in own) else None


def codes_of(*kinds: Kind) -> list[int]:
    """Their numbers in columns."""
    return [CODE[kind] for kind in kinds]


def among(codes: np.ndarray, kinds: Sequence[Kind]) -> np.ndarray:
    """bool[n], whether ``codes`` are of ``kinds``."""
    found = np.zeros(len(KINDS), dtype=np.bool_)
    found[codes_of(*kinds)] = True
    return found[codes]


def table_from(first: np.ndarray, kind: np.ndarray, **numbers: np.ndarray) -> ActionTable:
    """A table with these columns, and -1 in the others."""
    none = np.full(len(kind), -1)
    return ActionTable(first=first, kind=kind, **{name: numbers.get(name, none) for name in NUMBERS})


def with_more(table: ActionTable, before: np.ndarray, kind: np.ndarray, **numbers: np.ndarray) -> ActionTable:
    """``table`` with m actions more, each ahead of that at the place ``before`` (int64[m], rising), in order.

    Where one rank ends and another begins, what is put there belongs to the rank that ends.
    """
    more = np.searchsorted(before, table.first[1:], side="right")
    added = {"kind": kind, **numbers}
    columns = {
        name: np.insert(getattr(table, name), before, added.get(name, -1)) for name in ("kind", *NUMBERS)
    }
    return ActionTable(first=np.concatenate([[0], table.first[1:] + more]), **columns)
