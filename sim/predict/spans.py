"""The spans of a predicted step: what operations show, with the times of a run, in the order of a trace."""

from __future__ import annotations

import numpy as np

from ..engine.runner import LaneRun, Played
from ..program.span_rows import SpanRows
from ..trace.span_columns import order_of_names, order_of_numbers, order_of_tokens
from ..trace.trace import Spans, joined


def spans_of(rows: SpanRows, played: Played) -> Spans:
    """The spans of all lanes that are shown, in order."""
    if len(played.lanes) > 1 or rows.token is not None or (rows.templates["action_stage"] < 0).any():
        return joined([_of_lane(rows, run, slice(None)) for run in played.lanes]).in_order()
    run = next(iter(played.lanes))
    by_place = rows.ordered(_by_place)
    start = np.asarray(run.starts)[rows.begins[by_place]]
    return _of_lane(rows, run, by_place[np.argsort(start, kind="stable")])


def _of_lane(rows: SpanRows, run: LaneRun, order: np.ndarray | slice) -> Spans:
    columns = rows.columns(order)
    columns["rank"] = columns["rank"] + run.lane
    return Spans(
        **columns,
        start=np.asarray(run.starts)[rows.begins[order]],
        end=np.asarray(run.ends)[rows.ends[order]],
        step=np.zeros(len(columns["rank"]), dtype=np.int64),
        streams=rows.streams,
        tokens=rows.tokens,
    )


def _by_place(rows: SpanRows) -> np.ndarray:
    """The spans in the order of rank, stream and action, which is that of those that start together."""
    found = rows.templates
    stream = order_of_names(rows.streams)[found["stream_code"]]
    action = order_of_tokens(found["action_stage"], found["token_code"], rows.tokens)
    numbers = np.where(rows.number >= 0, rows.number, found["action_number"][rows.like])
    place = (found["rank"] * len(rows.streams) + stream) * (int(action.max(initial=0)) + 1) + action
    number = order_of_numbers(numbers)
    return np.argsort(place[rows.like] * (int(number.max(initial=0)) + 1) + number, kind="stable")
