"""How far a rank has come, and whether it is waiting for others: what tells a hung rank from its victims.

One line in a file of fixed width, written in place, so that a reader never finds half of it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

NOT_STARTED = -2
_WAITS, _WORKS = "waits", "works"


class Beat(NamedTuple):
    """What a heartbeat says."""

    step: int
    """The last step that the rank has ended; -1 before the first, NOT_STARTED before it says anything."""
    waits: bool
    """Whether it is waiting for another rank."""


class Heartbeat:
    """The writing side. ``parties`` is how many threads must wait for the rank to count as waiting."""

    def __init__(self, path: Path, parties: int = 1):
        self._file = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
        self._parties, self._waiting, self._step = parties, 0, -1
        self._lock = threading.Lock()
        self._write()

    def ended(self, step: int) -> None:
        """The rank has come to the end of ``step``."""
        self._step = step
        self._write()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """What is done inside waits for other ranks."""
        self.set_waiting(True)
        try:
            yield
        finally:
            self.set_waiting(False)

    def set_waiting(self, waits: bool) -> None:
        """One more, or one fewer, of the rank's threads waits for other ranks."""
        with self._lock:
            self._waiting += 1 if waits else -1
            self._write()

    def _write(self) -> None:
        state = _WAITS if self._waiting >= self._parties else _WORKS
        os.pwrite(self._file, f"{self._step:>12} {state}\n".encode(), 0)


class Silent(Heartbeat):
    """Of threads that serve next to a worker in its process, which speaks for them."""

    def __init__(self) -> None:
        """Nothing is written."""

    def ended(self, step: int) -> None:
        """The worker says how far the rank has come."""

    def set_waiting(self, waits: bool) -> None:
        """The worker says whether the rank waits."""


def read_beat(path: Path) -> Beat:
    """What a rank said last."""
    try:
        words = path.read_text().split()
    except FileNotFoundError:
        words = []
    return Beat(int(words[0]), words[1] == _WAITS) if len(words) == 2 else Beat(NOT_STARTED, False)
