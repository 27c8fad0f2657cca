"""The server of a convergence run: takes what workers push in the order in which it comes, and decides who
may go on.

A message is float64: the move of the parameters, then a header. From a worker the header is (version read,
round, seconds when sent); from the server (version, whether to stop, seconds when sent). All processes are
on one machine, so they share the monotonic clock.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor

HEADER = 3
PULL, PUSH = 1, 2
"""Message tags."""


@dataclass(slots=True, kw_only=True)
class Noted:
    """What one phase measured at the server; times are seconds since it began."""

    updates: list[tuple[int, int, int, int, float]] = field(default_factory=list)
    """(worker, round, version read, place, applied) of every gradient applied."""
    dropped: int = 0
    snapshots: list[tuple[float, Tensor]] = field(default_factory=list)
    """Parameters after every round of updates."""
    arrivals_s: list[float] = field(default_factory=list)
    """Of every push, from its worker's send to its arrival."""
    apply_s: list[float] = field(default_factory=list)
    send_s: list[float] = field(default_factory=list)
    """Of every answer, what it held the server up."""


class ConvergeServer:
    """One phase: one protocol from the first parameters until its time is over."""

    def __init__(self, initial: Tensor, workers: int, protocol: tuple[str, int], horizon_s: float):
        self.parameters = initial.clone()
        self.workers, self.horizon_s = workers, horizon_s
        name, count = protocol
        self.joint = name in ("sync", "backup", "local")
        self.needed = workers - (count if name == "backup" else 0)
        self.bound = count if name == "stale" else None
        self.version = 0
        self.clocks = [0] * workers
        self.gathered: list[tuple[int, int, int, Tensor]] = []
        self.waiting: set[int] = set()
        self.noted = Noted()
        self.begun = 0.0

    def run(self) -> Noted:
        """Serve until everybody has been told to stop."""
        self.begun = time.monotonic()
        self.noted.snapshots.append((0.0, self.parameters.clone()))
        self.waiting = set(range(self.workers))
        self._answer_all(stop=False)
        buffer = torch.empty(len(self.parameters) + HEADER, dtype=torch.float64)
        stopped = 0
        while stopped < self.workers:
            worker = dist.recv(buffer, tag=PUSH)
            now = time.monotonic() - self.begun
            self.waiting.add(worker)
            if now < self.horizon_s:
                self._take(worker, buffer, now)
            else:
                stopped += self._answer_all(stop=True)
        return self.noted

    def _take(self, worker: int, message: Tensor, now: float) -> None:
        version, turn, sent = (float(value) for value in message[-HEADER:])
        self.noted.arrivals_s.append(now + self.begun - sent)
        gradient = (worker, int(turn), int(version), message[:-HEADER].clone())
        if not self.joint:
            self.clocks[worker] += 1
            self._apply([gradient], now)
        elif int(version) < self.version:
            self.noted.dropped += 1
        else:
            self.gathered.append(gradient)
            if len(self.gathered) == self.needed:
                gradients, self.gathered = self.gathered, []
                self._apply(gradients, now)
        self._answer_all(stop=False)

    def _apply(self, gradients: list[tuple[int, int, int, Tensor]], begun: float) -> None:
        self.parameters += torch.stack([move for _, _, _, move in gradients]).mean(dim=0)
        now = time.monotonic() - self.begun
        self.noted.apply_s.append(now - begun)
        self.noted.updates += [(w, turn, version, self.version, now) for w, turn, version, _ in gradients]
        self.version += 1
        if self.joint or self.version % self.workers == 0:
            self.noted.snapshots.append((now, self.parameters.clone()))

    def _answer_all(self, *, stop: bool) -> int:
        """Answer all that may go on; returns how many."""
        answered = 0
        for worker in sorted(self.waiting):
            if stop or self._may_go_on(worker):
                self._answer(worker, stop)
                answered += 1
        return answered

    def _may_go_on(self, worker: int) -> bool:
        if self.joint:
            # Whoever's gradient is gathered waits for its step; all others wait for nothing.
            return all(worker != gathered for gathered, _, _, _ in self.gathered)
        return self.bound is None or self.clocks[worker] <= min(self.clocks) + self.bound

    def _answer(self, worker: int, stop: bool) -> None:
        begun = time.monotonic()
        header = torch.tensor([float(self.version), float(stop), begun], dtype=torch.float64)
        dist.send(torch.cat([self.parameters, header]), worker, tag=PULL)
        self.waiting.discard(worker)
        self.noted.send_s.append(time.monotonic() - begun)
