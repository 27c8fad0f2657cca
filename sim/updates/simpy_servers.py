"""Servers of the reference engine: they gather gradients, apply updates and pass them on to other holders."""

from __future__ import annotations

from collections.abc import Generator

import simpy

from .events import APPLIED, ARRIVED, CONFIRMED, PUSH, PUSH_IN, PUSH_THERE
from .simpy_clock import Clock, Waiting
from .simpy_network import Network
from .simpy_synchrony import Synchrony
from .tables import Place, Tables, Update


class Servers:
    """One process for each update, from its gradients until all holders have it."""

    def __init__(self, clock: Clock, tables: Tables, network: Network, synchrony: Synchrony) -> None:
        self.clock, self.tables = clock, tables
        self.network, self.synchrony = network, synchrony
        self.gathered: list[list[Update]] = [[] for _ in tables.shard]
        """By shard: the gradients of the step under way."""

    def holder(self, shard: int, hop: int) -> Place:
        """The shard's ``hop``-th server."""
        t = self.tables
        return t.place[t.workers + (t.server_of[shard] + hop) % t.servers]

    def receive(self, number: int) -> None:
        """Take a slot's gradient: as an update of its own, or as part of a joint step."""
        if self.tables.joint:
            self._gather(number)
        else:
            self.clock.process(self._update(number, [self.tables.update[self.tables.slot[number].row]]))

    def _gather(self, number: int) -> None:
        """Count a gradient in if its step still takes any; else drop it, and let its worker go on."""
        t, slot = self.tables, self.tables.slot[number]
        shard, update = t.shard[slot.shard], t.update[slot.row]
        self.synchrony.wait(number)
        if t.place[slot.worker].made_for < shard.closed:
            self.synchrony.grant_if_due(number)
            return
        update.place = shard.closed
        self.gathered[slot.shard].append(update)
        if len(self.gathered[slot.shard]) == t.needed:
            updates, self.gathered[slot.shard] = self.gathered[slot.shard], []
            shard.closed += 1
            self.clock.process(self._update(t.slot_of[slot.shard * t.workers], updates))

    def _update(self, number: int, gradients: list[Update]) -> Waiting:
        """Apply gradients as one update on the first holder, then on the others."""
        t, slot = self.tables, self.tables.slot[number]
        begun = yield from self._apply(number)
        for gradient in gradients:
            gradient.apply_start, gradient.applied_s = begun, self.clock.now
            gradient.place = t.shard[slot.shard].applied
        t.shard[slot.shard].applied += 1
        if t.holders > 1:
            if t.chain:
                yield self.clock.process(self._chain(number))
            else:
                copies = [self._copy(number, 0, hop) for hop in range(1, t.holders)]
                yield self.clock.all_of([self.clock.process(copy) for copy in copies])
            yield self.clock.turn(CONFIRMED, number, t.latency_s)
        self.synchrony.confirmed(number)

    def _chain(self, number: int) -> Waiting:
        for hop in range(1, self.tables.holders):
            yield from self._copy(number, hop - 1, hop)

    def _copy(self, number: int, source: int, target: int) -> Waiting:
        """Pass an update on from one holder of its shard to another, which applies it too."""
        item, shard = number + target * self.tables.slots, self.tables.slot[number].shard
        yield self.clock.turn(PUSH, item)
        ends = self.holder(shard, source), self.holder(shard, target)
        yield from self.network.message(item, (PUSH_IN, PUSH_THERE, ARRIVED), *ends)
        yield from self._apply(item)

    def _apply(self, item: int) -> Generator[simpy.Event, None, float]:
        """Let a holder's processor apply an update; returns when it began."""
        t = self.tables
        shard, hop = t.slot[item % t.slots].shard, item // t.slots
        begun = yield from self.network.processors.work(self.holder(shard, hop), [t.shard[shard].apply_s])
        yield self.clock.turn(APPLIED, item)
        return begun
