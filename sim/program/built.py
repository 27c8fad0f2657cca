"""A Program and what the trace must know of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .program import Program
from .span_rows import SpanRows, labelled
from .steps import Step


@dataclass(frozen=True, slots=True)
class Made:
    """What one step of a rank came to; a step that waited for others may have come to nothing itself."""

    pipeline_rank: int
    step: Step
    operations: range


@dataclass(slots=True)
class Built:
    """A Program and what the trace must know of it."""

    program: Program
    ranks: list[int]
    """Ranks that were built; each stands for all ranks alike."""
    steps: list[tuple[int, int]] = field(default_factory=list)
    """(rank, operation) of every optimizer step, in order on each rank."""
    slowness: np.ndarray | None = None
    """Factors on time by row, as operations name them (`slowdown.py`); None where all ranks are alike."""
    made: list[Made] = field(default_factory=list)
    """What each of their steps came to, in order."""
    core_s: float = 0.0
    """Seconds of the host's cores that all of it takes; 0 where every rank has a device."""

    @property
    def lanes(self) -> int:
        """Like ranks that each operation stands for."""
        return self.program.lanes

    @property
    def rows(self) -> SpanRows:
        """The spans that the program's operations show."""
        own = np.arange(len(self.program.operations))
        return labelled(self.program, own, own, np.full(len(own), -1), own, {})
