"""Who may go on with a portion of the parameters: the update protocols, without torch or time.

    sync, backup:B, local:H   gradients are put together: a step takes the first that come of those made for
                              it, all or all but B; a late one is dropped, and its worker goes on
    async, stale:K            each gradient is a step of its own; nobody begins a round more than K ahead of
                              the slowest

A worker makes its gradients for the lowest version that it read of any portion, so no portion gets more than
a step ahead of another (as TensorFlow's SyncReplicasOptimizer counts steps), and somebody can always go on.
`sim/updates/` plays the same rules (`simpy_synchrony.py`) in virtual time. The ledger also writes down what
it decides, which is all that one process needs to come to the same parameters (`replay.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from ...sim.plan.strategy import Strategy


def puts_together(strategy: Strategy) -> bool:
    """Whether several workers' gradients, or parameters, make one update."""
    return strategy.protocol[0] in ("sync", "backup", "local")


class Member(NamedTuple):
    """One gradient: a worker's, of its ``turn``-th round."""

    worker: int
    turn: int


@dataclass
class Ledger:
    """One portion's versions, and who has read which."""

    workers: int
    rounds: int
    """Updates of a joint portion; else rounds of each worker."""
    joint: bool
    needed: int
    """Gradients that make a joint update."""
    bound: int
    """Rounds that a worker may be ahead of the slowest."""
    applied: int = 0
    """Updates so far: the version."""
    closed: int = 0
    """Joint updates whose gradients are all there."""
    confirmed: int = 0
    """Joint updates that all holders have."""
    gathered: list[Member] = field(default_factory=list)
    """Gradients of the joint update that is open."""
    waiting: set[int] = field(default_factory=set)
    reads: list[list[int]] = field(default_factory=list)
    """By worker and turn: the version that it read; the last is what it ended with."""
    updates: list[list[Member]] = field(default_factory=list)
    """By version, from the first on: the gradients that made it."""
    staleness: list[int] = field(default_factory=list)
    """Of every gradient applied: updates between the read that it was computed on and its own."""
    dropped: int = 0

    def __post_init__(self) -> None:
        self.waiting |= set(range(self.workers))
        self.clocks = [0] * self.workers
        """By worker: its updates that all holders have."""
        self.made_for = [-1] * self.workers
        """By worker: the step that its last gradient was made for."""
        self.reads = [[] for _ in range(self.workers)]

    @classmethod
    def of(cls, strategy: Strategy, rounds: int) -> Ledger:
        """The ledger of one portion for ``rounds`` rounds of ``strategy``."""
        name, number = strategy.protocol
        return cls(
            workers=strategy.dp,
            rounds=rounds,
            joint=puts_together(strategy),
            needed=strategy.dp - (number if name == "backup" else 0),
            bound=number if name == "stale" else rounds,
        )

    def due(self) -> list[tuple[int, int]]:
        """(worker, version to read) of all that wait and may go on now, which they then do. After the last
        round that is the version to end with."""
        found = [(worker, self.applied) for worker in sorted(self.waiting) if self._may_read(worker)]
        for worker, version in found:
            self.waiting.discard(worker)
            self.reads[worker].append(version)
        return found

    def _may_read(self, worker: int) -> bool:
        """Joint: news for it that all holders have. Else: it is not too far ahead, or at its end."""
        if self.joint:
            return self.made_for[worker] < self.confirmed == self.applied
        turns = len(self.reads[worker])
        return turns >= self.rounds or turns <= min(self.clocks) + self.bound

    def arrive(self, worker: int, step: int) -> list[Member]:
        """Take a worker's gradient, made for ``step``; the gradients to apply now as one update, if any."""
        member = Member(worker, len(self.reads[worker]) - 1)
        if not self.joint:
            return [member]
        self.waiting.add(worker)
        self.made_for[worker] = step
        if step != self.closed:
            self.dropped += 1
            return []
        self.gathered.append(member)
        if len(self.gathered) < self.needed:
            return []
        members, self.gathered = self.gathered, []
        self.closed += 1
        return members

    def apply(self, members: list[Member]) -> None:
        """The first holder has applied an update."""
        self.staleness += [self.applied - self.reads[one.worker][one.turn] for one in members]
        self.updates.append(members)
        self.applied += 1

    def confirm(self, members: list[Member]) -> None:
        """All holders have an update."""
        if self.joint:
            self.confirmed += 1
            return
        for member in members:
            self.clocks[member.worker] += 1
            self.waiting.add(member.worker)

    @property
    def done(self) -> int:
        """Rounds that are over for everybody: joint updates, or the slowest worker's."""
        return self.applied if self.joint else min(self.clocks)
