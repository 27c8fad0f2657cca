"""Messages of the reference engine: two interfaces that serve in order of arrival, and a latency between."""

from __future__ import annotations

from collections.abc import Generator

import simpy
from simpy.resources.resource import Request

from .simpy_clock import Clock, Waiting
from .simpy_processors import Processors
from .tables import Place, Tables


class Network:
    """Every interface is two simpy resources, as it sends and receives at once."""

    def __init__(self, clock: Clock, tables: Tables, processors: Processors) -> None:
        self.clock, self.tables, self.processors = clock, tables, processors
        self.outgoing = [simpy.Resource(clock) for _ in tables.interface]
        self.incoming = [simpy.Resource(clock) for _ in tables.interface]

    def message(
        self, item: int, kinds: tuple[int, int, int], source: Place, target: Place
    ) -> Generator[simpy.Event, None, tuple[float, float]]:
        """Carry a shard from place to place, between a worker and a server at its place at once.

        ``kinds`` of events: its head is at the receiver, it is there whole, and it has been handled. On cores
        it takes time of the sender's while it travels, and of the receiver's after. Returns when it began and
        when it was there.
        """
        t, slot = self.tables, self.tables.slot[item % self.tables.slots]
        head_in, whole_there, handled = kinds
        begun = there = self.clock.now
        handling_s = t.handling_s[slot.shard] if t.sliced else 0.0
        if item >= t.slots or not slot.at_home:
            if handling_s > 0:
                self.clock.process(self.processors.work(source, [handling_s]))
            leaving = self.outgoing[source.interface].request()
            yield leaving
            begun = self.clock.now
            left = self.clock.process(self._leave(source.interface, slot.shard, leaving))
            yield self.clock.turn(head_in, item, t.latency_s)
            yield from self._enter(target.interface, slot.shard)
            yield left
            there = self.clock.now
            if t.sliced:
                yield self.clock.turn(whole_there, item)
            if handling_s > 0:
                yield from self.processors.work(target, [handling_s])
        yield self.clock.turn(handled, item)
        return begun, there

    def _leave(self, interface: int, shard: int, leaving: Request) -> Waiting:
        """Hold the sender's interface; over when the last byte is at the receiver's."""
        seconds = self._seconds(shard, interface)
        self.tables.interface[interface].out_busy += seconds
        yield self.clock.timeout(seconds)
        self.outgoing[interface].release(leaving)
        yield self.clock.timeout(self.tables.latency_s)

    def _enter(self, interface: int, shard: int) -> Waiting:
        """Hold the receiver's interface."""
        with self.incoming[interface].request() as mine:
            yield mine
            seconds = self._seconds(shard, interface)
            self.tables.interface[interface].in_busy += seconds
            yield self.clock.timeout(seconds)

    def _seconds(self, shard: int, interface: int) -> float:
        return self.tables.transfer_s[shard * len(self.tables.interface) + interface]
