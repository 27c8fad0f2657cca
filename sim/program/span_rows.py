"""The rows of a trace that operations show, as columns, but for their times."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .program import Program, SpanLabel

_TEXT = re.compile(r"(\d+)([A-Z](?:[A-Z_]*[A-Z])?)(\d*)\Z")


@dataclass(frozen=True, kw_only=True)
class SpanRows:
    """s spans: the operation that begins each, the one that ends it, and the columns of `sim.trace`."""

    begins: np.ndarray
    """int64[s]"""
    ends: np.ndarray
    """int64[s]"""
    rank: np.ndarray
    stream_code: np.ndarray
    action_stage: np.ndarray
    token_code: np.ndarray
    action_number: np.ndarray
    stage: np.ndarray
    micro_batch: np.ndarray
    bytes: np.ndarray
    flops: np.ndarray
    streams: tuple[str, ...]
    tokens: tuple[str, ...]

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """Those that a trace has, by name."""
        names = ("rank", "stream_code", "action_stage", "token_code", "action_number", "stage")
        return {name: getattr(self, name) for name in (*names, "micro_batch", "bytes", "flops")}


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
    ints = table[:, :7].astype(np.int64)
    template, ended = of_template[begins], table[:, 9].astype(np.int64)[row]
    number = micro_batch[begins]
    columns = dict(zip(("rank", "stream_code", "action_stage", "token_code"), ints[row].T, strict=False))
    token, shown = columns["token_code"], np.where(number >= 0, number, ints[row, 4])
    if texts:
        token, shown = token.copy(), shown.copy()
        for place in np.flatnonzero(columns["action_stage"] < 0).tolist():
            token[place], shown[place] = tokens[texts[int(of_action[begins[place]])]], -1
    return SpanRows(
        begins=begins,
        ends=np.where(ended == template, begins, whole[ended]),
        rank=columns["rank"],
        stream_code=columns["stream_code"],
        action_stage=columns["action_stage"],
        token_code=token,
        action_number=shown,
        stage=ints[row, 5],
        micro_batch=np.where(number >= 0, number, ints[row, 6]),
        bytes=table[row, 7],
        flops=table[row, 8],
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
