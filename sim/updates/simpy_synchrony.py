"""Who may begin a round in the reference engine: what sets synchronous and asynchronous protocols apart."""

from __future__ import annotations

from .simpy_clock import Clock
from .tables import Tables


class Synchrony:
    """Workers wait here, by slot, until the protocol lets them read a shard for their next round."""

    def __init__(self, clock: Clock, tables: Tables) -> None:
        self.clock, self.tables = clock, tables
        self.granted = [clock.event() for _ in tables.slot]
        """By slot: happens when its worker may go on."""
        self.waiting: set[int] = set()
        self.clocks = [[0] * tables.workers for _ in tables.shard]
        """By shard and worker: its updates that all holders have."""
        self.steps = [0 for _ in tables.shard]
        """By shard: joint updates that all holders have."""

    def grant(self, number: int) -> None:
        """Read the shard for a worker's next round."""
        t, slot = self.tables, self.tables.slot[number]
        self.waiting.discard(number)
        slot.row = (slot.worker * t.rounds + slot.pulls) * t.shards + slot.shard
        slot.pulls += 1
        t.update[slot.row].read_s = self.clock.now
        t.update[slot.row].version = t.shard[slot.shard].applied
        self.granted[number].succeed()

    def wait(self, number: int) -> None:
        """A worker's gradient is there, so it waits for its next round."""
        self.waiting.add(number)

    def confirmed(self, number: int) -> None:
        """All holders have an update; let all go on that may."""
        slot = self.tables.slot[number]
        if self.tables.joint:
            self.steps[slot.shard] += 1
        else:
            self.wait(number)
            self.clocks[slot.shard][slot.worker] += 1
        for other in sorted(self.waiting):
            if self.tables.slot[other].shard == slot.shard:
                self.grant_if_due(other)

    def grant_if_due(self, number: int) -> None:
        """A joint step needs news for the worker that all holders have, as long as a step is left for it, of
        this shard or of one that is behind; else nobody may be too far ahead."""
        t, slot = self.tables, self.tables.slot[number]
        if t.joint:
            steps = self.steps[slot.shard]
            made_for = t.place[slot.worker].made_for
            news = made_for < steps and t.shard[slot.shard].applied == steps
            due = news and (steps < t.rounds or (t.shards > 1 and made_for < t.rounds - 1))
        else:
            due = slot.pulls < t.rounds and slot.pulls <= min(self.clocks[slot.shard]) + t.bound
        if due:
            self.grant(number)
