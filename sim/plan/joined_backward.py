"""Backwards in halves, and those that are so only by name: the first does all of it, the second nothing.

torch's checkpoint computes a block again for every call that differentiates it, and the halves of a backward
are one such call for the inputs and one for each group of weights. So the executor differentiates a stage
whose blocks are checkpointed in one go, when the gradient of its input is due.
"""

from __future__ import annotations

from collections.abc import Iterable

from .action import Actions, Kind
from .strategy_fields import StrategyFields

CHECKPOINTED = ("full", "selective_op")
"""Recompute policies that torch's checkpoint is behind."""


def joins_halves(strategy: StrategyFields) -> bool:
    """Whether an `I` is the whole backward, and a `W` nothing, when ``strategy`` is executed."""
    return strategy.recompute in CHECKPOINTED


def has_halves(orders: Iterable[Actions]) -> bool:
    """Whether a backward of these lists comes in halves, `I` and `W`."""
    return any(part.kind is Kind.WEIGHT_GRADIENT for own in orders for a in own for part in a.passes)
