"""Every judged row as one line of CSV: what was measured, what was predicted, how far off, or why not."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable

from ..files.writer import write_text_atomic
from .validation import Judged

COLUMNS = (
    *("file", "line", "source", "table", "model", "accelerator", "gpus", "seq_len", "global_batch"),
    *("strategy", "measured_s", "predicted_s", "p5_s", "p95_s", "error_pct"),
    *("ran", "predicted_fits", "measured_bytes", "predicted_bytes", "memory_error_pct", "left_out"),
)
_AS_PRINTED = ("source", "table", "model", "accelerator", "gpus", "seq_len", "global_batch")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet would take for a formula at the start of a text."""


def write_rows(judged: Iterable[Judged], path: str | os.PathLike[str]) -> None:
    """Write one line for each of ``judged``, in order.

    Raises:
        UsageError: the file cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_line(one) for one in judged)
    write_text_atomic(path, text.getvalue())


def _line(one: Judged) -> dict[str, object]:
    line: dict[str, object] = {name: _safe(one.row.get(name)) for name in _AS_PRINTED}
    line |= {"file": _safe(one.row.file), "line": one.row.line, "left_out": _safe(one.reason)}
    case, prediction = one.case, one.prediction
    if case is not None and prediction is not None:
        line |= {
            "strategy": case.strategy.label,
            "measured_s": _number(case.step_s),
            "predicted_s": _number(prediction.step_s),
            "p5_s": _number(prediction.low_s),
            "p95_s": _number(prediction.high_s),
            "error_pct": _number(one.error_pct),
            "ran": "" if case.ran is None else case.ran,
            "predicted_fits": prediction.fits,
            "measured_bytes": _number(case.memory_bytes),
            "predicted_bytes": _number(prediction.memory_bytes),
            "memory_error_pct": _number(one.memory_error_pct),
        }
    return line


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _safe(text: str) -> str:
    """``text``, unable to act as a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text
