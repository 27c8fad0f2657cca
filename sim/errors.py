"""Everything that can go wrong, as one tree: each subclass is one exit code of the program.

A reader of files collects every fault of a file as a `Fault` and raises them all at once in one
`InputError`, so that a user mends a file in one round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class TraincastError(Exception):
    """The root; `exit_code` is what the program returns when it reaches the user."""

    exit_code = 1


class UsageError(TraincastError):
    """The command line asks for what cannot be asked."""

    exit_code = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing wrong in one place, and how to mend it."""

    path: str
    """Where in the document, as `links.ib.bandwidth` or `wires[2].to`."""
    found: str
    expected: str = ""
    hint: str = ""
    file: str = ""
    line: int = 0
    """1-based; 0 where the input has no lines."""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}: " if self.line else f"{self.file}: " if self.file else ""
        text = f"{where}{self.path}: {self.found}" if self.path else f"{where}{self.found}"
        if self.expected:
            text += f" -> expected {self.expected}"
        if self.hint:
            text += f"; {self.hint}"
        return text


class InputError(TraincastError):
    """A file or value that cannot be used; lists every fault."""

    exit_code = 3

    def __init__(self, faults: Sequence[Fault] | Fault | str):
        if isinstance(faults, str):
            faults = [Fault(path="", found=faults)]
        self.faults = [faults] if isinstance(faults, Fault) else list(faults)
        count = len(self.faults)
        lines = [str(fault) for fault in self.faults]
        super().__init__("\n".join(lines if count == 1 else [*lines, f"{count} errors"]))


class NoPlanError(TraincastError):
    """No strategy can train this job on this cluster; says how far the closest one misses."""

    exit_code = 4


class ToleranceError(TraincastError):
    """A comparison went past the tolerance it was given."""

    exit_code = 5


class RunError(TraincastError):
    """A training run failed: a worker died, raised, or produced NaN."""

    exit_code = 6


class HangError(TraincastError):
    """A training run made no progress within its time."""

    exit_code = 7


class EnvironmentMismatchError(TraincastError):
    """The machine at hand is not the one the plan was made for."""

    exit_code = 8
