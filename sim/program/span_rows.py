"""The rows of a trace that operations show, as columns, but for their times."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from .program import Program, SpanLabel

COLUMNS = (
    "rank", "stream_code", "action_stage", "token_code", "action_number", "stage", "micro_batch", "bytes",
    "flops",
)  # fmt: skip
"""Of a trace, in the order in which templates are made."""

_TEXT = re.compile(r"(\d+)([A-Z](?:[A-Z_]*[A-Z])?)(\d*)\Z")


@dataclass(frozen=True, kw_only=True)
class SpanRows:
    """s spans, each like one of t templates, whose columns are those of `sim.trace`."""

    begins: np.ndarray
    """int64[s]: the operation that begins each"""
    ends: np.ndarray
    """int64[s]: the operation that ends it"""
    like: np.ndarray
    """int64[s]: its template"""
    number: np.ndarray
    """int64[s]: its micro-batch, where that is not the template's; else -1"""
    token: np.ndarray | None
    """int64[s]: its token, where actions have texts of their own; -1 is the template's"""
    templates: Mapping[str, np.ndarray]
    """By name of a column: float64[t] of bytes and FLOPs, int64[t] of all others."""
    streams: tuple[str, ...]
    tokens: tuple[str, ...]
    _orders: dict[Callable[[SpanRows], np.ndarray], np.ndarray] = field(default_factory=dict)

    def ordered(self, by: Callable[[SpanRows], np.ndarray]) -> np.ndarray:
        """int64[s]: the order that ``by`` gives these spans, found once."""
        if by not in self._orders:
            self._orders[by] = by(self)
        return self._orders[by]

    def columns(self, order: np.ndarray | slice) -> dict[str, np.ndarray]:
        """The columns of a trace, but for times, of the spans at the places ``order``."""
        like, number = self.like[order], self.number[order]
        found = {name: column[like] for name, column in self.templates.items()}
        own = number >= 0
        for name in ("micro_batch", "action_number"):
            found[name] = np.where(own, number, found[name])
        if self.token is not None:
            token = self.token[order]
            named = token >= 0
            found["token_code"] = np.where(named, token, found["token_code"])
            found["action_number"] = np.where(named, -1, found["action_number"])
        return found


class _Table(dict[str, int]):
    def __missing__(self, text: str) -> int:
        self[text] = len(self)
        return self[text]


def labelled(
    program: Program,
    of_template: np.ndarray,
    whole: np.ndarray,
    micro_batch: np.ndarray,
    of_action: np.ndarray,
    texts: Mapping[int, str],
) -> SpanRows:
    """The spans of operations that repeat those of ``program``.

    ``of_template`` says by operation which of the program it repeats, ``whole`` of the program's which it is
    itself, ``micro_batch`` its number where it has its own (-1 elsewhere), ``of_action`` its action, and
    ``texts`` what an action is called that is more than stage, kind and number.
    """
    streams, tokens = _Table(), _Table()
    last, flops = _groups(program)
    counts = np.array([len(op.spans) if op.parent < 0 else 0 for op in program.operations], dtype=np.int64)
    own = [
        (*_numbers(label, streams, tokens), op.size_bytes, flops[op.id], last[op.id])
        for op in program.operations
        if op.parent < 0
        for label in op.spans
    ]
    table = np.array(own, dtype=np.float64).reshape(-1, 10)
    first = np.concatenate([[0], np.cumsum(counts)])
    each = counts[of_template]
    begins = np.repeat(np.arange(len(of_template)), each)
    start = np.concatenate([[0], np.cumsum(each)])
    row = np.repeat(first[of_template] - start[:-1], each) + np.arange(start[-1])
    template, ended = of_template[begins], table[:, 9].astype(np.int64)[row]
    token = None
    if texts:
        token = np.full(len(row), -1)
        for place in np.flatnonzero(table[row, 2] < 0).tolist():
            token[place] = tokens[texts[int(of_action[begins[place]])]]
    return SpanRows(
        begins=begins,
        ends=np.where(ended == template, begins, whole[ended]),
        like=row,
        number=micro_batch[begins],
        token=token,
        templates={
            name: table[:, place].astype(np.int64) if place < 7 else table[:, place].copy()
            for place, name in enumerate(COLUMNS)
        },
        streams=tuple(streams),
        tokens=tuple(tokens),
    )


def _groups(program: Program) -> tuple[dict[int, int], dict[int, float]]:
    """By operation that others lengthen: the last of them, and FLOPs of all."""
    last: dict[int, int] = {}
    flops: dict[int, float] = {}
    for op in program.operations:
        root = op.id if op.parent < 0 else op.parent
        last[root] = op.id
        flops[root] = flops.get(root, 0.0) + op.flops
    return last, flops


def _numbers(label: SpanLabel, streams: _Table, tokens: _Table) -> tuple[int, ...]:
    """Rank, stream, the action's stage, token and number, and the columns stage and micro-batch."""
    match = _TEXT.match(label.action)
    parts = (int(match[1]), match[2], int(match[3] or -1)) if match else (-1, label.action, -1)
    stage, token, number = parts
    return label.rank, streams[label.stream], stage, tokens[token], number, label.stage, label.micro_batch
