"""A pipeline's timeline as text: a line for every rank, a letter for every moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..sim.pipeline import Timeline

_LETTERS = {"F": "F", "B": "B", "I": "I", "W": "W"}
IDLE = "·"


def drawing(timeline: Timeline, columns: int, ranks: int) -> list[str]:
    """Lines that show every pass to scale, or none where ``columns`` or ``ranks`` are too few.

    A pass is its letter and micro-batch, as `F3`, followed by `-` until it ends; later stages of a rank
    have small letters.
    """
    shortest = min(
        (end - start for rank in range(len(timeline.orders)) for _, start, end in timeline.passes(rank)
         if end > start),
        default=0.0,
    )  # fmt: skip
    if not shortest or len(timeline.orders) > ranks:
        return []
    most = max(part.index for own in timeline.orders for action in own for part in action.passes)
    cell = shortest / (1 + len(str(most)))
    if timeline.makespan_s / cell > columns:
        return []
    return [_line(timeline, rank, cell) for rank in range(len(timeline.orders))]


def _line(timeline: Timeline, rank: int, cell: float) -> str:
    text = [IDLE] * round(timeline.makespan_s / cell)
    first = min(part.stage for action in timeline.orders[rank] for part in action.passes)
    for part, start, end in timeline.passes(rank):
        name = _LETTERS[part.kind] if part.stage == first else _LETTERS[part.kind].lower()
        left, right = round(start / cell), round(end / cell)
        label = f"{name}{part.index}".ljust(right - left, "-")[: right - left]
        text[left:right] = label
    return f"rank {rank:>2} {''.join(text)}"
