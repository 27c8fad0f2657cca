"""The reference engine of update protocols: workers, servers and interfaces as simpy processes.

To be believed by reading. Interfaces and processors are simpy resources, which serve in order of arrival.
What happens at one moment happens in order of (kind, item), as in `kernel.py`: a process takes its turn
there by waiting for `_turn`. simpy's own events have priorities 0 and 1, so that all that follows at once
from a turn is done before the next turn.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import cast

import simpy
from simpy.events import EventPriority
from simpy.resources.resource import Request

from .events import (
    APPLIED,
    ARRIVED,
    COMPUTED,
    CONFIRMED,
    PULL_IN,
    PULL_THERE,
    PULLED,
    PUSH,
    PUSH_IN,
    PUSH_THERE,
)
from .model import UpdateModel
from .record import UpdateRecord
from .tables import Place, Update, listed, make_record, make_tables

Waiting = Generator[simpy.Event, None, None]


def run(model: UpdateModel) -> UpdateRecord:
    """The record of a checked model with servers."""
    simulation = _Simulation(model)
    simulation.env.run()
    return make_record(simulation.tables)


class _Simulation:
    """One process for each pair of worker and shard, which goes round with its messages."""

    def __init__(self, model: UpdateModel) -> None:
        self.env = simpy.Environment(initial_time=0.0)
        self.tables = t = listed(make_tables(model))
        self.out = [simpy.Resource(self.env) for _ in t.interface]
        self.incoming = [simpy.Resource(self.env) for _ in t.interface]
        self.processors = [simpy.Resource(self.env) for _ in t.processor]
        self.computed = [self.env.event() for _ in t.slot]
        self.granted = [self.env.event() for _ in t.slot]
        self.waiting: set[int] = set()
        self.clocks = [[0] * t.workers for _ in t.shard]
        """By shard and worker: its updates that all holders have."""
        self.steps = [0 for _ in t.shard]
        """By shard: joint updates that all holders have."""
        self.gathered: list[list[Update]] = [[] for _ in t.shard]
        """By shard: the gradients of the step under way."""
        for number in range(t.slots):
            self._grant(number)
            self.env.process(self._rounds(number))

    def _turn(self, kind: int, item: int, delay: float = 0.0) -> simpy.Event:
        """Happens in ``delay`` seconds, after all of that moment that comes before (kind, item)."""
        turn = simpy.Event(self.env)
        turn._ok, turn._value = True, None  # as `succeed` does, which knows no priority
        priority = 2 + kind * self.tables.items + item
        self.env.schedule(turn, cast(EventPriority, priority), delay)
        return turn

    # Workers

    def _rounds(self, number: int) -> Waiting:
        t, slot = self.tables, self.tables.slot[number]
        server, place = self._holder(slot.shard, 0), t.place[slot.worker]
        while True:
            yield self.granted[number]
            self.granted[number] = self.env.event()
            update = t.update[slot.row]
            kinds = (PULL_IN, PULL_THERE, PULLED)
            update.pull_start, update.pull_end = yield from self._message(number, kinds, server, place)
            self._pulled(slot.worker, slot.row // t.shards)
            yield self.computed[number]
            self.computed[number] = self.env.event()
            kinds = (PUSH_IN, PUSH_THERE, ARRIVED)
            update.push_start, update.push_end = yield from self._message(number, kinds, place, server)
            if t.joint:
                self._gather(number)
            else:
                self.env.process(self._update(number, [update]))

    def _pulled(self, worker: int, row: int) -> None:
        place = self.tables.place[worker]
        place.missing -= 1
        if place.missing == 0:
            place.missing = self.tables.shards
            self.env.process(self._compute(worker, row))

    def _compute(self, worker: int, row: int) -> Waiting:
        t = self.tables
        number = t.place[worker].processor
        each = t.compute_s[row * t.local_steps : (row + 1) * t.local_steps]
        t.round[row].start = yield from self._occupy(number, each, t.slice_s)
        t.round[row].end = self.env.now
        yield self._turn(COMPUTED, worker)
        for number in range(worker, t.slots, t.workers):
            self.computed[number].succeed()

    # The network

    def _holder(self, shard: int, hop: int) -> Place:
        """The shard's ``hop``-th server."""
        return self.tables.place[self.tables.workers + (shard + hop) % self.tables.servers]

    def _message(
        self, item: int, kinds: tuple[int, int, int], source: Place, target: Place
    ) -> Generator[simpy.Event, None, tuple[float, float]]:
        """Carry a shard from place to place, between a worker and a server at its place at once.

        On cores it takes time of the sender's while it travels, and of the receiver's after. Returns when it
        began and when it was there.
        """
        slot = self.tables.slot[item % self.tables.slots]
        begun = there = self.env.now
        handling_s = self.tables.handling_s[slot.shard] if self.tables.sliced else 0.0
        if item >= self.tables.slots or not slot.at_home:
            if handling_s > 0:
                self.env.process(self._occupy(source.processor, [handling_s], self._slice_s(source)))
            leaving = self.out[source.interface].request()
            yield leaving
            begun = self.env.now
            left = self.env.process(self._leave(source.interface, slot.shard, leaving))
            yield self._turn(kinds[0], item, self.tables.latency_s)
            with self.incoming[target.interface].request() as mine:
                yield mine
                seconds = self._seconds(slot.shard, target.interface)
                self.tables.interface[target.interface].in_busy += seconds
                yield self.env.timeout(seconds)
            yield left
            there = self.env.now
            if self.tables.sliced:
                yield self._turn(kinds[1], item)
            if handling_s > 0:
                yield from self._occupy(target.processor, [handling_s], self._slice_s(target))
        yield self._turn(kinds[2], item)
        return begun, there

    def _leave(self, source: int, shard: int, leaving: Request) -> Waiting:
        """Hold the sender's interface; over when the last byte is at the receiver's."""
        seconds = self._seconds(shard, source)
        self.tables.interface[source].out_busy += seconds
        yield self.env.timeout(seconds)
        self.out[source].release(leaving)
        yield self.env.timeout(self.tables.latency_s)

    def _seconds(self, shard: int, interface: int) -> float:
        return self.tables.transfer_s[shard * len(self.out) + interface]

    # Servers

    def _gather(self, number: int) -> None:
        """Count a gradient in if its step still takes any; else drop it, and let its worker go on."""
        t, slot = self.tables, self.tables.slot[number]
        shard, update = t.shard[slot.shard], t.update[slot.row]
        self.waiting.add(number)
        if update.version < shard.closed:
            if self._may_go_on(number):
                self._grant(number)
            return
        update.place = shard.closed
        self.gathered[slot.shard].append(update)
        if len(self.gathered[slot.shard]) == t.needed:
            updates, self.gathered[slot.shard] = self.gathered[slot.shard], []
            shard.closed += 1
            self.env.process(self._update(t.slot_of[slot.shard * t.workers], updates))

    def _update(self, number: int, gradients: list[Update]) -> Waiting:
        """Apply gradients as one update on the first holder, then on the others."""
        t, slot = self.tables, self.tables.slot[number]
        begun = yield from self._apply(number)
        for gradient in gradients:
            gradient.apply_start, gradient.applied_s = begun, self.env.now
            gradient.place = t.shard[slot.shard].applied
        t.shard[slot.shard].applied += 1
        if t.holders > 1:
            if t.chain:
                yield self.env.process(self._chain(number))
            else:
                copies = [self._copy(number, 0, hop) for hop in range(1, t.holders)]
                yield self.env.all_of([self.env.process(copy) for copy in copies])
            yield self._turn(CONFIRMED, number, t.latency_s)
        self._confirmed(number, slot.shard)

    def _chain(self, number: int) -> Waiting:
        for hop in range(1, self.tables.holders):
            yield from self._copy(number, hop - 1, hop)

    def _copy(self, number: int, source: int, target: int) -> Waiting:
        """Pass an update on from one holder of its shard to another, which applies it too."""
        item, shard = number + target * self.tables.slots, self.tables.slot[number].shard
        yield self._turn(PUSH, item)
        ends = self._holder(shard, source), self._holder(shard, target)
        yield from self._message(item, (PUSH_IN, PUSH_THERE, ARRIVED), *ends)
        yield from self._apply(item)

    def _apply(self, item: int) -> Generator[simpy.Event, None, float]:
        """Let a holder's processor apply an update; returns when it began."""
        t = self.tables
        shard = t.slot[item % t.slots].shard
        processor = self._holder(shard, item // t.slots).processor
        begun = yield from self._occupy(processor, [t.shard[shard].apply_s], math.inf)
        yield self._turn(APPLIED, item)
        return begun

    def _occupy(
        self, number: int, durations: list[float], slice_s: float
    ) -> Generator[simpy.Event, None, float]:
        """Let a processor work through ``durations``, or, where it is a core, in turns with all others.

        Returns when it began.
        """
        processor, whole = self.tables.processor[number], 0.0
        if not self.tables.sliced:
            for seconds in durations:
                processor.busy += seconds
            return (yield from self._work(number, durations))
        for seconds in durations:
            whole += seconds
        processor.busy += whole
        turns = max(1, math.ceil(whole / slice_s))
        begun = yield from self._work(number, [whole / turns])
        for _ in range(turns - 1):
            yield from self._work(number, [whole / turns])
        return begun

    def _slice_s(self, place: Place) -> float:
        """A server runs through once it has its turn on a core."""
        t = self.tables
        return t.slice_s if any(place is worker for worker in t.place[: t.workers]) else math.inf

    def _work(self, number: int, durations: list[float]) -> Generator[simpy.Event, None, float]:
        """Work without a break; returns when it began."""
        with self.processors[number].request() as mine:
            yield mine
            begun = self.env.now
            for seconds in durations:
                yield self.env.timeout(seconds)
        return begun

    def _confirmed(self, number: int, shard: int) -> None:
        """Let all go on that may."""
        if self.tables.joint:
            self.steps[shard] += 1
        else:
            self.waiting.add(number)
            self.clocks[shard][self.tables.slot[number].worker] += 1
        for other in sorted(self.waiting):
            if self.tables.slot[other].shard == shard and self._may_go_on(other):
                self._grant(other)

    def _may_go_on(self, number: int) -> bool:
        """A joint step needs news that all holders have; else nobody may be too far ahead."""
        t, slot = self.tables, self.tables.slot[number]
        if t.joint:
            steps = self.steps[slot.shard]
            return t.update[slot.row].version < steps < t.rounds and t.shard[slot.shard].applied == steps
        return slot.pulls < t.rounds and slot.pulls <= min(self.clocks[slot.shard]) + t.bound

    def _grant(self, number: int) -> None:
        """Read the shard for a worker's next round."""
        t, slot = self.tables, self.tables.slot[number]
        self.waiting.discard(number)
        slot.row = (slot.worker * t.rounds + slot.pulls) * t.shards + slot.shard
        slot.pulls += 1
        t.update[slot.row].read_s = self.env.now
        t.update[slot.row].version = t.shard[slot.shard].applied
        self.granted[number].succeed()
