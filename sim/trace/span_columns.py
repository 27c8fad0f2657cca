"""Spans as columns: one numpy array for each field, and `Span` rows made when somebody looks at one.

A step of 64 stages and 512 micro-batches has 200,000 spans; as arrays they take milliseconds, as objects
most of a second. `Spans` is a sequence of `Span`, so whatever reads rows goes on as before, and what counts
or sums reads the arrays. An action's text, as `12SEND_F3`, is kept in its parts: stage, token and number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np

if TYPE_CHECKING:
    import pandas


class Span(NamedTuple):
    """One row of a trace."""

    rank: int
    stream: str
    """`compute`, or a communication dimension: `pp`, `dp`, `tp`, `ps`."""
    action: str
    """Text form of the plan's action, as `2F0`."""
    stage: int
    micro_batch: int
    start: float
    """seconds since the step began"""
    end: float
    bytes: float = 0.0
    flops: float = 0.0
    step: int = 0
    """Which of the steps a run measured; 0 in a prediction."""

    @property
    def duration(self) -> float:
        return self.end - self.start

    @property
    def kind(self) -> str:
        """The action's token without numbers, as `SEND_F`; of an overlap, `OVERLAP_F_B`."""
        return kind_of(self.action)


def kind_of(action: str) -> str:
    """The token of an action's text without numbers, as `SEND_F`; of an overlap, `OVERLAP_F_B`."""
    return action.rpartition(")")[2].strip("0123456789.")


_PARTS = re.compile(r"(0|[1-9]\d{0,8})([A-Z](?:[A-Z_]*[A-Z])?)(0|[1-9]\d{0,8})?\Z", re.ASCII)

NUMBERS = ("rank", "stage", "micro_batch", "start", "end", "bytes", "flops", "step")
"""Columns whose values are those of `Span`."""
TIMES = ("start", "end", "bytes", "flops")
CODES = ("stream_code", "token_code", "action_stage", "action_number")
COLUMNS = (*NUMBERS, *CODES)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Spans(Sequence[Span]):
    """n spans as arrays of n values, and as a sequence of `Span`. Equal to any sequence of equal rows."""

    rank: np.ndarray
    """int64"""
    stream_code: np.ndarray
    """int64, places in ``streams``"""
    action_stage: np.ndarray
    """int64, the number before the action's token; -1 where there is none"""
    token_code: np.ndarray
    """int64, places in ``tokens``"""
    action_number: np.ndarray
    """int64, the number after the action's token; -1 where there is none"""
    stage: np.ndarray
    """int64"""
    micro_batch: np.ndarray
    """int64"""
    start: np.ndarray
    """float64, seconds since the step began"""
    end: np.ndarray
    """float64, seconds"""
    bytes: np.ndarray
    """float64"""
    flops: np.ndarray
    """float64"""
    step: np.ndarray
    """int64, which of the steps a run measured; 0 in a prediction"""
    streams: tuple[str, ...]
    tokens: tuple[str, ...]
    """Tokens of actions, as `SEND_F`; what is no stage, token and number is a token as a whole."""

    @classmethod
    def of(cls, rows: Iterable[Span]) -> Spans:
        """The columns of ``rows``, in their order."""
        if isinstance(rows, Spans):
            return rows
        columns = list(zip(*rows, strict=True)) or [()] * len(Span._fields)
        values = dict(zip(Span._fields, columns, strict=True))
        streams, tokens = _Table(), _Table()
        parts = {text: _parts(text) for text in set(values["action"])}
        codes = {text: (stage, tokens[token], number) for text, (stage, token, number) in parts.items()}
        actions = np.array([codes[text] for text in values["action"]], dtype=np.int64).reshape(-1, 3)
        found: dict[str, Any] = {
            name: np.array(values[name], dtype=np.float64 if name in TIMES else np.int64) for name in NUMBERS
        }
        return cls(
            **found,
            stream_code=np.array([streams[name] for name in values["stream"]], dtype=np.int64),
            action_stage=actions[:, 0],
            token_code=actions[:, 1],
            action_number=actions[:, 2],
            streams=tuple(streams),
            tokens=tuple(tokens),
        )

    def __len__(self) -> int:
        return len(self.start)

    @overload
    def __getitem__(self, place: int) -> Span: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Span, ...]: ...
    def __getitem__(self, place: int | slice) -> Span | tuple[Span, ...]:
        if isinstance(place, slice) or "_rows" in self.__dict__:
            return self._rows[place]
        if not -len(self) <= place < len(self):
            raise IndexError(f"span {place} of {len(self)}")
        return self.take(np.array([place % len(self)]))._rows[0]

    def __iter__(self) -> Iterator[Span]:
        return iter(self._rows)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Spans):
            return self._equals(other)
        return self._rows == tuple(other) if isinstance(other, list | tuple) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self):,} spans>"

    def _equals(self, other: Spans) -> bool:
        alike = all(np.array_equal(getattr(self, name), getattr(other, name)) for name in NUMBERS)
        if not alike or self.streams != other.streams or self.tokens != other.tokens:
            return alike and self._rows == other._rows
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in CODES)

    @cached_property
    def _rows(self) -> tuple[Span, ...]:
        """All rows as objects, made once."""
        columns = {name: getattr(self, name).tolist() for name in NUMBERS}
        streams = [self.streams[code] for code in self.stream_code.tolist()]
        ordered = [columns[name] for name in Span._fields[3:]]
        return tuple(map(Span._make, zip(columns["rank"], streams, self.actions, *ordered, strict=True)))

    @cached_property
    def actions(self) -> list[str]:
        """The actions' texts."""
        tokens = self.tokens
        return [
            f"{stage if stage >= 0 else ''}{tokens[code]}{number if number >= 0 else ''}"
            for stage, code, number in zip(
                self.action_stage.tolist(),
                self.token_code.tolist(),
                self.action_number.tolist(),
                strict=True,
            )
        ]

    @property
    def duration(self) -> np.ndarray:
        """float64, seconds"""
        return self.end - self.start

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """By token: what `Span.kind` says of it."""
        return tuple(kind_of(token) for token in self.tokens)

    def on(self, stream: str) -> np.ndarray:
        """bool[n], whether spans lie on ``stream``."""
        if stream not in self.streams:
            return np.zeros(len(self), dtype=np.bool_)
        return self.stream_code == self.streams.index(stream)

    def take(self, places: np.ndarray) -> Spans:
        """The spans at ``places`` (numbers, or bool[n])."""
        return replace(self, **{name: getattr(self, name)[places] for name in COLUMNS})

    def in_order(self) -> Spans:
        """Sorted by (step, start, rank, stream, action), rows equal in all of these as they were."""
        stream, action = order_of_names(self.streams)[self.stream_code], self.action_rank
        actions = int(action.max(initial=0)) + 1
        place = (self.rank * len(self.streams) + stream) * actions + action
        order = np.argsort(place, kind="stable")
        order = order[np.argsort(self.start[order], kind="stable")]
        if self.step.any():
            order = order[np.argsort(self.step[order], kind="stable")]
        return self.take(order)

    @property
    def action_rank(self) -> np.ndarray:
        """int64[n]: numbers in the order of the actions' texts."""
        if (self.action_stage < 0).any():
            return np.unique(self.actions, return_inverse=True)[1].reshape(-1)
        number = order_of_numbers(self.action_number)
        token = order_of_tokens(self.action_stage, self.token_code, self.tokens)
        return token * (int(number.max(initial=0)) + 1) + number

    def frame(self) -> pandas.DataFrame:
        """A pandas table with a row a span and the fields of `Span` as columns."""
        import pandas

        values = {name: getattr(self, name) for name in Span._fields if name not in ("stream", "action")}
        values["stream"] = pandas.Categorical.from_codes(self.stream_code, categories=list(self.streams))  # type: ignore[arg-type]
        values["action"] = self.actions
        return pandas.DataFrame({name: values[name] for name in Span._fields})


def joined(parts: Sequence[Spans]) -> Spans:
    """Several tables as one, row after row."""
    if len(parts) == 1:
        return parts[0]
    streams, tokens = _Table(), _Table()
    columns: dict[str, list[np.ndarray]] = {name: [] for name in COLUMNS}
    for part in parts:
        for name in COLUMNS:
            columns[name].append(getattr(part, name))
        for name, table, own in (("stream_code", streams, part.streams), ("token_code", tokens, part.tokens)):
            codes = np.array([table[text] for text in own], dtype=np.int64)
            columns[name][-1] = codes[columns[name][-1]] if len(codes) else columns[name][-1]
    whole: dict[str, Any] = {name: np.concatenate(arrays) for name, arrays in columns.items()}
    return Spans(**whole, streams=tuple(streams), tokens=tuple(tokens))


class _Table(dict[str, int]):
    """Numbers of texts, in the order in which they come."""

    def __missing__(self, text: str) -> int:
        self[text] = len(self)
        return self[text]


def _parts(action: str) -> tuple[int, str, int]:
    """Stage, token and number of an action's text; what is not of this form is all token."""
    match = _PARTS.match(action)
    if match is None:
        return -1, action, -1
    return int(match[1]), match[2], int(match[3]) if match[3] else -1


def order_of_names(names: tuple[str, ...]) -> np.ndarray:
    """By code: the place of its name in order of names."""
    order = np.empty(len(names), dtype=np.int64)
    order[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
    return order


def order_of_tokens(stage: np.ndarray, token_code: np.ndarray, tokens: tuple[str, ...]) -> np.ndarray:
    """int64[n]: numbers in the order of actions' texts up to their last number; no stage is -1.

    A token follows the stage's digits and is above them, and no token begins another.
    """
    return _order_of_texts(stage, "~") * (len(tokens) + 1) + order_of_names(tokens)[token_code]


def order_of_numbers(numbers: np.ndarray) -> np.ndarray:
    """int64[n]: numbers in the order of their texts; -1 is no text."""
    return _order_of_texts(numbers, "")


def _order_of_texts(numbers: np.ndarray, end: str) -> np.ndarray:
    """Each number's place among all in the order of their texts followed by ``end``; -1 is no text."""
    most = int(numbers.max(initial=-1))
    if most > 4 * len(numbers) + 1000:
        known, numbers = np.unique(numbers, return_inverse=True)
        values = known.tolist()
    else:
        values = [*range(most + 1), -1]
    place = np.empty(len(values), dtype=np.int64)
    texts = [f"{value}{end}" if value >= 0 else "" for value in values]
    place[sorted(range(len(values)), key=texts.__getitem__)] = np.arange(len(values))
    return place[numbers]
