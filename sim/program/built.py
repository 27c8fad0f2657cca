"""A Program and what the trace must know of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .program import Program


@dataclass(slots=True)
class Built:
    """A Program and what the trace must know of it."""

    program: Program
    ranks: list[int]
    """Ranks that were built; each stands for all ranks alike."""
    updates: list[tuple[int, int, int, int]] = field(default_factory=list)
    """Parameter servers: (worker, server, pull operation, step operation) of every update."""
    steps: list[tuple[int, int]] = field(default_factory=list)
    """(rank, operation) of every optimizer step, in order on each rank."""
    slowness: np.ndarray | None = None
    """Factors on time by row, as operations name them (`slowness.py`); None where all ranks are alike."""
