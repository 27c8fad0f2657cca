"""The update protocols as events of a heap: the kernel that `compiled` runs, plain or under numba.

Events happen in order of (time, kind, item); that order is the contract, ties included. The heap holds kind
and item as one number, kind * items + item. An item is a worker (COMPUTED), or a slot; a copy of an update
that goes to a shard's further holders is slot + hop * slots. Interfaces and processors serve in order of
arrival:

    start = max(now, end of what was taken in hand before), end = start + duration

and a message is whole at max(end at the receiver, end at the sender + latency). Processors that are cores are
shared: a worker's job has as many turns of equal length as it needs of at most `slice_s`, and goes behind all
that wait after each; a server sleeps between messages, so the host lets it run through once it has its turn.
There a message is also a job of its sender's core while it travels, and of its receiver's once it is whole.
Each function is written in what CPython and numba both run.
"""

from __future__ import annotations

import math
from heapq import heappop, heappush
from typing import Any

from .cores import end_turn, occupy
from .events import (
    APPLIED,
    ARRIVED,
    COMPUTED,
    CONFIRMED,
    PULL_HANDED,
    PULL_IN,
    PULL_THERE,
    PULLED,
    PUSH,
    PUSH_HANDED,
    PUSH_IN,
    PUSH_THERE,
    TURN,
)
from .tables import Tables


def run_kernel(t: Tables) -> int:
    """Play all rounds; fills ``t`` and returns the number of events."""
    events = [(0.0, 0) for _ in range(0)]
    for slot in range(t.slots):
        grant(t, events, 0.0, slot)
    count = 0
    while events:
        now, key = heappop(events)
        kind, item = key // t.items, key % t.items
        count += 1
        if kind == TURN:
            end_turn(t, events, now, item)
        elif kind == COMPUTED:
            computed(t, events, now, item)
        elif kind == PUSH:
            push(t, events, now, item)
        elif kind == PUSH_IN:
            push_in(t, events, now, item)
        elif kind == PUSH_THERE:
            push_there(t, events, now, item)
        elif kind == ARRIVED:
            arrived(t, events, now, item)
        elif kind == APPLIED:
            applied(t, events, now, item)
        elif kind == CONFIRMED:
            confirmed(t, events, now, item)
        elif kind == PULL_IN:
            pull_in(t, events, now, item)
        elif kind == PULL_THERE:
            pull_there(t, events, now, item)
        elif kind == PULLED:
            pulled(t, events, now, item)
    return count


def grant(t: Tables, events: Any, now: float, number: int) -> None:
    """The server reads the shard for a worker's next round and answers with it."""
    slot = t.slot[number]
    slot.row = (slot.worker * t.rounds + slot.pulls) * t.shards + slot.shard
    slot.pulls += 1
    slot.waiting = False
    update = t.update[slot.row]
    update.read_s = now
    update.version = t.shard[slot.shard].applied
    if slot.at_home:
        update.pull_start = now
        heappush(events, (now, PULLED * t.items + number))
        return
    source = holder(t, slot.shard, 0)
    if t.sliced and t.handling_s[slot.shard] > 0:
        seconds = t.handling_s[slot.shard]
        occupy(t, events, now, source.processor, seconds, math.inf, PULL_HANDED * t.items + number)
    update.pull_start = send(t, now, number, slot.shard, source.interface)
    heappush(events, (update.pull_start + t.latency_s, PULL_IN * t.items + number))


def holder(t: Tables, shard: int, hop: int) -> Any:
    """The place of a server that holds a shard; its own is hop 0."""
    return t.place[t.workers + (t.server_of[shard] + hop) % t.servers]


def send(t: Tables, now: float, item: int, shard: int, number: int) -> float:
    """Take a message in hand at the sender; returns when it begins."""
    duration = t.transfer_s[shard * len(t.interface) + number]
    interface = t.interface[number]
    start = max(now, interface.out_free)
    interface.out_free = start + duration
    interface.out_busy += duration
    t.tail[item] = interface.out_free + t.latency_s
    return start


def receive(t: Tables, now: float, item: int, shard: int, number: int) -> float:
    """Take a message in hand at the receiver; returns when it is whole."""
    duration = t.transfer_s[shard * len(t.interface) + number]
    interface = t.interface[number]
    interface.in_free = max(now, interface.in_free) + duration
    interface.in_busy += duration
    return max(interface.in_free, t.tail[item])


def pull_in(t: Tables, events: Any, now: float, number: int) -> None:
    """The head of the parameters comes to the worker's interface."""
    slot = t.slot[number]
    whole = receive(t, now, number, slot.shard, t.place[slot.worker].interface)
    heappush(events, (whole, (PULL_THERE if t.sliced else PULLED) * t.items + number))


def pull_there(t: Tables, events: Any, now: float, number: int) -> None:
    """All the parameters are at the worker's core, which handles them."""
    slot = t.slot[number]
    t.update[slot.row].pull_end = now
    if t.handling_s[slot.shard] > 0:
        processor = t.place[slot.worker].processor
        seconds = t.handling_s[slot.shard]
        occupy(t, events, now, processor, seconds, t.slice_s, PULLED * t.items + number)
    else:
        heappush(events, (now, PULLED * t.items + number))


def pulled(t: Tables, events: Any, now: float, number: int) -> None:
    """A worker that has all shards begins a round."""
    slot = t.slot[number]
    if not t.sliced or slot.at_home:
        t.update[slot.row].pull_end = now
    place = t.place[slot.worker]
    place.missing -= 1
    if place.missing > 0:
        return
    place.missing = t.shards
    place.row = slot.row // t.shards
    place.segment = 0
    if t.joint:
        place.made_for = t.rounds
        for number in range(slot.worker, t.slots, t.workers):
            place.made_for = min(place.made_for, t.update[t.slot[number].row].version)
        if place.made_for == t.rounds:
            return
    compute(t, events, now, slot.worker)


def compute(t: Tables, events: Any, now: float, worker: int) -> None:
    """A worker computes a part of one gradient, or of as many as there are local steps."""
    place = t.place[worker]
    row, share = place.row, t.segment_share[place.segment]
    if t.sliced:
        seconds = 0.0
        for step in range(row * t.local_steps, (row + 1) * t.local_steps):
            seconds += t.compute_s[step] * share
        occupy(t, events, now, place.processor, seconds, t.slice_s, COMPUTED * t.items + worker)
        return
    processor = t.processor[place.processor]
    end = max(now, processor.free)
    if place.segment == 0:
        t.round[row].start = end
    for step in range(row * t.local_steps, (row + 1) * t.local_steps):
        end = end + t.compute_s[step] * share
        processor.busy += t.compute_s[step] * share
    processor.free = end
    heappush(events, (end, COMPUTED * t.items + worker))


def computed(t: Tables, events: Any, now: float, worker: int) -> None:
    """A worker pushes the shards whose gradients are whole, and computes on."""
    place = t.place[worker]
    if t.sliced and place.segment == 0:
        t.round[place.row].start = t.job[COMPUTED * t.items + worker].begun
    t.round[place.row].end = now
    for turn in range(t.segment_first[place.segment], t.segment_first[place.segment + 1]):
        number = turn * t.workers + worker
        slot = t.slot[number]
        update = t.update[slot.row]
        if slot.at_home:
            update.push_start = now
            heappush(events, (now, ARRIVED * t.items + number))
        else:
            hand_over(t, events, now, number, t.place[worker].processor)
            update.push_start = send(t, now, number, slot.shard, t.place[worker].interface)
            heappush(events, (update.push_start + t.latency_s, PUSH_IN * t.items + number))
    place.segment += 1
    if place.segment < t.segments:
        compute(t, events, now, worker)


def hand_over(t: Tables, events: Any, now: float, item: int, processor: int) -> None:
    """Take the time of the sender's core that a push costs."""
    seconds = t.handling_s[t.slot[item % t.slots].shard]
    if t.sliced and seconds > 0:
        slice_s = t.slice_s if item < t.slots else math.inf
        occupy(t, events, now, processor, seconds, slice_s, PUSH_HANDED * t.items + item)


def push(t: Tables, events: Any, now: float, item: int) -> None:
    """A holder passes an update on to another."""
    hop, shard = item // t.slots, t.slot[item % t.slots].shard
    source = holder(t, shard, hop - 1 if t.chain else 0)
    hand_over(t, events, now, item, source.processor)
    start = send(t, now, item, shard, source.interface)
    heappush(events, (start + t.latency_s, PUSH_IN * t.items + item))


def push_in(t: Tables, events: Any, now: float, item: int) -> None:
    """The head of a gradient or an update comes to a server's interface."""
    shard = t.slot[item % t.slots].shard
    whole = receive(t, now, item, shard, holder(t, shard, item // t.slots).interface)
    heappush(events, (whole, (PUSH_THERE if t.sliced else ARRIVED) * t.items + item))


def push_there(t: Tables, events: Any, now: float, item: int) -> None:
    """All of a gradient or an update is at a server's core, which handles it."""
    slot = t.slot[item % t.slots]
    if item < t.slots:
        t.update[slot.row].push_end = now
    if t.handling_s[slot.shard] > 0:
        processor = holder(t, slot.shard, item // t.slots).processor
        occupy(t, events, now, processor, t.handling_s[slot.shard], math.inf, ARRIVED * t.items + item)
    else:
        heappush(events, (now, ARRIVED * t.items + item))


def arrived(t: Tables, events: Any, now: float, item: int) -> None:
    """The server has a gradient: it applies it, or gathers it with the others of its step."""
    if item < t.slots and (not t.sliced or t.slot[item].at_home):
        t.update[t.slot[item].row].push_end = now
    if item < t.slots and t.joint:
        gather(t, events, now, item)
    else:
        apply(t, events, now, item)


def gather(t: Tables, events: Any, now: float, number: int) -> None:
    """Count a gradient in if its step still takes any; else drop it, and let its worker go on."""
    slot = t.slot[number]
    shard, update = t.shard[slot.shard], t.update[slot.row]
    slot.waiting = True
    if t.place[slot.worker].made_for == shard.closed:
        update.place = shard.closed
        shard.gathered += 1
        if shard.gathered == t.needed:
            shard.gathered = 0
            shard.closed += 1
            apply(t, events, now, t.slot_of[slot.shard * t.workers])
    elif may_read(t, slot.shard, number):
        grant(t, events, now, number)


def apply(t: Tables, events: Any, now: float, item: int) -> None:
    """A holder's processor takes an update in hand."""
    slot = t.slot[item % t.slots]
    shard = t.shard[slot.shard]
    number = holder(t, slot.shard, item // t.slots).processor
    if t.sliced:
        occupy(t, events, now, number, shard.apply_s, math.inf, APPLIED * t.items + item)
        return
    processor = t.processor[number]
    start = max(now, processor.free)
    processor.free = start + shard.apply_s
    processor.busy += shard.apply_s
    if item < t.slots and not t.joint:
        t.update[slot.row].apply_start = start
    elif item < t.slots:
        for other in range(slot.shard * t.workers, (slot.shard + 1) * t.workers):
            update = t.update[t.slot[t.queue[other]].row]
            if update.place == shard.closed - 1:
                update.apply_start = start
    heappush(events, (start + shard.apply_s, APPLIED * t.items + item))


def applied(t: Tables, events: Any, now: float, item: int) -> None:
    """A holder has the update; the others get it from it, and the workers go on when all have it."""
    hop, number = item // t.slots, item % t.slots
    slot = t.slot[number]
    if hop == 0:
        note_update(t, now, number)
        slot.unconfirmed = t.holders - 1
        if t.holders == 1:
            confirmed(t, events, now, number)
        last = min(2, t.holders) if t.chain else t.holders
        for other in range(1, last):
            heappush(events, (now, PUSH * t.items + number + other * t.slots))
        return
    slot.unconfirmed -= 1
    if slot.unconfirmed == 0:
        heappush(events, (now + t.latency_s, CONFIRMED * t.items + number))
    elif t.chain:
        heappush(events, (now, PUSH * t.items + item + t.slots))


def note_update(t: Tables, now: float, number: int) -> None:
    """The parameters have changed: write down which gradients did it."""
    slot = t.slot[number]
    shard = t.shard[slot.shard]
    if t.joint:
        for other in range(slot.shard * t.workers, (slot.shard + 1) * t.workers):
            update = t.update[t.slot[t.queue[other]].row]
            if update.place == shard.applied:
                note_times(t, now, number, update)
    else:
        update = t.update[slot.row]
        update.place = shard.applied
        note_times(t, now, number, update)
    shard.applied += 1


def note_times(t: Tables, now: float, number: int, update: Any) -> None:
    """Write down when an update was applied, on cores also when that began."""
    update.applied_s = now
    if t.sliced:
        update.apply_start = t.job[APPLIED * t.items + number].begun


def confirmed(t: Tables, events: Any, now: float, number: int) -> None:
    """All holders have the update: whoever waited for it reads the new parameters."""
    shard = t.slot[number].shard
    if not advance(t, shard, number):
        if may_read(t, shard, number):
            grant(t, events, now, number)
        return
    for place in range(shard * t.workers, (shard + 1) * t.workers):
        other = t.queue[place]
        if t.slot[other].waiting and may_read(t, shard, other):
            grant(t, events, now, other)


def may_read(t: Tables, number_of_shard: int, number: int) -> bool:
    """Whether a waiting worker's next round may begin.

    Joint: when there is news for it and all holders have it, as long as a step is left for it, of this shard
    or of one that is behind. Else: when it is not too far ahead.
    """
    shard, slot = t.shard[number_of_shard], t.slot[number]
    if t.joint:
        made_for = t.place[slot.worker].made_for
        news = made_for < shard.slowest and shard.applied == shard.slowest
        return news and (shard.slowest < t.rounds or (t.shards > 1 and made_for < t.rounds - 1))
    return slot.pulls < t.rounds and slot.pulls - t.bound <= shard.slowest


def advance(t: Tables, number_of_shard: int, number: int) -> bool:
    """Count an update that all holders have; whether others than its own worker may wait for it."""
    shard, slot = t.shard[number_of_shard], t.slot[number]
    if t.joint:
        shard.slowest += 1
        return True
    slot.waiting = True
    slot.clock += 1
    if slot.clock - 1 != shard.slowest:
        return False
    shard.at_slowest -= 1
    if shard.at_slowest > 0:
        return False
    shard.slowest += 1
    for place in range(number_of_shard * t.workers, (number_of_shard + 1) * t.workers):
        if t.slot[t.queue[place]].clock == shard.slowest:
            shard.at_slowest += 1
    return True
