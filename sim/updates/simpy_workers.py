"""Workers of the reference engine: they pull the parameters, compute a gradient and push it, in rounds."""

from __future__ import annotations

from .events import ARRIVED, COMPUTED, PULL_IN, PULL_THERE, PULLED, PUSH_IN, PUSH_THERE
from .simpy_clock import Clock, Waiting
from .simpy_network import Network
from .simpy_servers import Servers
from .simpy_synchrony import Synchrony
from .tables import Tables


class Workers:
    """One process for each slot, a pair of worker and shard, and one for each gradient computed."""

    def __init__(
        self, clock: Clock, tables: Tables, network: Network, synchrony: Synchrony, servers: Servers
    ) -> None:
        self.clock, self.tables = clock, tables
        self.network, self.synchrony, self.servers = network, synchrony, servers
        self.computed = [clock.event() for _ in tables.slot]
        """By slot: happens when its worker's gradient is there."""

    def begin(self) -> None:
        """Let all workers begin their first round."""
        for number in range(self.tables.slots):
            self.synchrony.grant(number)
            self.clock.process(self._rounds(number))

    def _rounds(self, number: int) -> Waiting:
        """Go round with a slot's messages for as long as the protocol grants rounds."""
        t, slot = self.tables, self.tables.slot[number]
        server, place = self.servers.holder(slot.shard, 0), t.place[slot.worker]
        granted = self.synchrony.granted
        while True:
            yield granted[number]
            granted[number] = self.clock.event()
            update = t.update[slot.row]
            kinds = (PULL_IN, PULL_THERE, PULLED)
            update.pull_start, update.pull_end = yield from self.network.message(number, kinds, server, place)
            self._pulled(slot.worker, slot.row // t.shards)
            yield self.computed[number]
            self.computed[number] = self.clock.event()
            kinds = (PUSH_IN, PUSH_THERE, ARRIVED)
            update.push_start, update.push_end = yield from self.network.message(number, kinds, place, server)
            self.servers.receive(number)

    def _pulled(self, worker: int, row: int) -> None:
        """A worker computes as soon as it has all shards."""
        place = self.tables.place[worker]
        place.missing -= 1
        if place.missing == 0:
            place.missing = self.tables.shards
            slots = self.tables.slot[worker :: self.tables.workers]
            place.made_for = min(self.tables.update[slot.row].version for slot in slots)
            if not self.tables.joint or place.made_for < self.tables.rounds:
                self.clock.process(self._compute(worker, row))

    def _compute(self, worker: int, row: int) -> Waiting:
        """Compute a round part by part, and push after each what is whole by then."""
        t = self.tables
        each = t.compute_s[row * t.local_steps : (row + 1) * t.local_steps]
        for segment, share in enumerate(t.segment_share):
            seconds = [one * share for one in each]
            begun = yield from self.network.processors.work(t.place[worker], seconds)
            if segment == 0:
                t.round[row].start = begun
            t.round[row].end = self.clock.now
            yield self.clock.turn(COMPUTED, worker)
            for turn in range(t.segment_first[segment], t.segment_first[segment + 1]):
                self.computed[turn * t.workers + worker].succeed()
            yield self.clock.timeout(0)  # so that what is pushed lines up for the core first
