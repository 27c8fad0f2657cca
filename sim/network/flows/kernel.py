"""Max-min fair rates of flows, kept up from event to event; runs interpreted and under numba alike.

Rates are found by progressive filling (Bertsekas & Gallager 1992, section 6.5.2): the rates of all flows rise
together, a rate being a flow's weight times the common level; a link that is full stops the flows that
cross it. When flows come or go, only what that changes is filled anew, in the order of levels:

- A link that lost flows, or whose flows are stopped earlier elsewhere, frees the flows that it had stopped,
  once the level is where it had stopped them; before that nothing of theirs differs.
- A link that gained flows stops them, and those it had let pass faster, at the level at which it is full now.

Either touches the other links of these flows, which come later in the order. What is never touched keeps
its rate, so an event costs what it changes, not what there is.
"""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush
from typing import Any, NamedTuple

TIE = 1e-14
"""Levels and moments that differ by less, relatively, are one: rounding makes differences of about 1e-16."""

IDLE, HELD, RISING, STOPPED = range(4)
"""A flow is not under way; keeps its rate; is being filled; was stopped in this filling."""

NOTHING = -1.0
"""No event of a link is due."""

DIRTY, CHANGED = range(2)
"""Places in `State.lengths`. These two are no lists: where a list may grow, numba counts the references to
all arrays anew at every call, which takes longer than the work."""

UNTOUCHED, LATER, SOONER = range(3)
"""Nothing changed on a link; flows were stopped, so that its next event comes no sooner; it may."""


class State(NamedTuple):
    """Flows, links and rounds as arrays (or lists, when interpreted). A hop is one link of one route."""

    first: Any
    """int64[n + 1]: hops of flow i are those from first[i] up to first[i + 1]"""
    link: Any
    """int64[h], of each hop"""
    flow: Any
    """int64[h], of each hop"""
    weight: Any
    size: Any
    """bytes"""
    delay: Any
    """seconds from the beginning of its round until a flow is under way"""
    mark: Any
    """`IDLE`, `HELD`, `RISING` or `STOPPED`"""
    level: Any
    """at which a flow was stopped: its rate by its weight"""
    bottleneck: Any
    """int64[n], the link that stopped it"""
    rate: Any
    """bytes/s since `since`"""
    left: Any
    """bytes at `since`"""
    since: Any
    finish: Any
    """seconds: when the flow ends if its rate stays"""
    capacity: Any
    """bytes/s of each link"""
    base: Any
    """int64[links + 1]: where each link's hops begin in `member`"""
    count: Any
    """int64[links], hops of flows that are under way"""
    member: Any
    """int64[h], these hops by link, in no order"""
    place: Any
    """int64[h]: where in its link's part of `member` a hop is"""
    due: Any
    """level of the next event of a link in a filling, or `NOTHING`"""
    frees: Any
    """whether that event frees flows; else it stops them"""
    stale: Any
    """whether that event may come later than was said"""
    touched: Any
    """`UNTOUCHED`, or what a link waits to be looked at again for: `LATER` or `SOONER`"""
    dirty: Any
    """int64[links], the links that wait to be looked at again"""
    changed: Any
    """int64[n], the flows whose rates may have changed"""
    lengths: Any
    """int64[2]: how many are in `dirty` and in `changed`"""
    round: Any
    """int64[n], the round of each flow"""
    round_first: Any
    """int64[r + 1]: flows of a round are those from round_first[i] up to round_first[i + 1]"""
    round_begin: Any
    """seconds, of rounds that begin by themselves; else below 0"""
    round_next: Any
    """int64[r], the round that begins when this one is over for the last time; else -1"""
    round_repeats: Any
    """int64[r], how often a round is still run"""
    round_open: Any
    """int64[r], flows of a round that are not over"""
    round_end: Any
    """seconds: latest end of a flow of the round yet"""


def run_kernel(s: State, until: float) -> None:
    """Run all flows, or up to ``until`` seconds; fills `finish`, `rate` and `round_end`."""
    starting = [(0.0, 0) for _ in range(0)]
    ending = [(0.0, 0) for _ in range(0)]
    room = 1000
    for number in range(len(s.round_begin)):
        if s.round_begin[number] >= 0:
            begin_round(s, number, s.round_begin[number], starting)
    while True:
        now = next_moment(s, starting, ending)
        if now > until or now == math.inf:
            return
        now = end_flows(s, now, starting, ending)
        start_flows(s, now, starting)
        fill(s)
        set_rates(s, now, ending)
        if len(ending) > room:
            ending = [entry for entry in ending if is_valid(s.mark, s.finish, entry)]
            heapify(ending)
            room = 1000 + 4 * len(ending)


def begin_round(s: State, number: int, now: float, starting: list) -> None:
    """Let the flows of a round start, each after its delay."""
    s.round_open[number] = s.round_first[number + 1] - s.round_first[number]
    s.round_end[number] = now
    for flow in range(s.round_first[number], s.round_first[number + 1]):
        heappush(starting, (now + s.delay[flow], flow))


def is_valid(mark: Any, finish: Any, entry: tuple) -> bool:
    """Whether a flow still ends when it was said to."""
    return mark[entry[1]] != IDLE and finish[entry[1]] == entry[0]


def next_moment(s: State, starting: list, ending: list) -> float:
    """When the next flow starts or ends; infinite if none does."""
    while ending and not is_valid(s.mark, s.finish, ending[0]):
        heappop(ending)
    now = math.inf
    if ending:
        now = ending[0][0]
    if starting and starting[0][0] < now:
        now = starting[0][0]
    return now


def end_flows(s: State, now: float, starting: list, ending: list) -> float:
    """Take off all flows that end at ``now``, but for rounding; the end of the last."""
    limit = now * (1 + TIE)
    while ending and ending[0][0] <= limit:
        entry = heappop(ending)
        if is_valid(s.mark, s.finish, entry):
            now = max(now, entry[0])
            leave(s, entry[1])
            end_one(s, entry[1], entry[0], starting)
    return now


def end_one(s: State, flow: int, now: float, starting: list) -> None:
    """Note the end of a flow; the last of a round begins the next."""
    number = s.round[flow]
    s.round_open[number] -= 1
    s.round_end[number] = max(s.round_end[number], now)
    if s.round_open[number] == 0:
        s.round_repeats[number] -= 1
        after = number if s.round_repeats[number] > 0 else s.round_next[number]
        if after >= 0:
            begin_round(s, after, s.round_end[number], starting)


def start_flows(s: State, now: float, starting: list) -> None:
    """Let all flows enter whose delay is over; those that have no way to go, or nothing to carry, end."""
    while starting and starting[0][0] <= now:
        moment, flow = heappop(starting)
        if s.first[flow] == s.first[flow + 1] or s.size[flow] == 0:
            s.finish[flow] = moment
            end_one(s, flow, moment, starting)
        else:
            enter(s, flow, now)
            note_change(s, flow)


def enter(s: State, flow: int, now: float) -> None:
    """Put a flow on its links."""
    s.mark[flow], s.level[flow], s.rate[flow] = RISING, 0.0, 0.0
    s.left[flow], s.since[flow] = s.size[flow], now
    for hop in range(s.first[flow], s.first[flow + 1]):
        link = s.link[hop]
        s.place[hop] = s.base[link] + s.count[link]
        s.member[s.place[hop]] = hop
        s.count[link] += 1
        touch(s, link, SOONER)


def leave(s: State, flow: int) -> None:
    """Take a flow off its links; the last hop in a link's list fills the gap."""
    s.mark[flow], s.rate[flow] = IDLE, 0.0
    for hop in range(s.first[flow], s.first[flow + 1]):
        link = s.link[hop]
        s.count[link] -= 1
        last = s.member[s.base[link] + s.count[link]]
        s.member[s.place[hop]] = last
        s.place[last] = s.place[hop]
        touch(s, link, SOONER)


def touch(s: State, link: int, why: int) -> None:
    """Have a link looked at again."""
    if s.touched[link] == UNTOUCHED:
        s.dirty[s.lengths[DIRTY]] = link
        s.lengths[DIRTY] += 1
    s.touched[link] = max(s.touched[link], why)


def note_change(s: State, flow: int) -> None:
    """Have the rate of a flow set after the filling."""
    s.changed[s.lengths[CHANGED]] = flow
    s.lengths[CHANGED] += 1


def fill(s: State) -> None:
    """Find the rates anew where flows came, went or were freed.

    By turns: say what is due next at the links that were touched; do what is due at the lowest level. An
    event that comes no sooner than was said is looked at again when its turn comes. The two halves are one
    function for the reason at `DIRTY`.
    """
    events = [(0.0, 0) for _ in range(0)]
    level = 0.0
    while True:
        while s.lengths[DIRTY] > 0:
            s.lengths[DIRTY] -= 1
            link = s.dirty[s.lengths[DIRTY]]
            s.stale[link] = s.touched[link] == LATER and s.due[link] != NOTHING
            s.touched[link] = UNTOUCHED
            if not s.stale[link]:
                full, rising = full_level(s, link, level)
                slowest_own, fastest = held_levels(s, link)
                s.frees[link] = slowest_own < full * (1 - TIE)
                is_due = s.frees[link] or rising or fastest > full * (1 + TIE)
                s.due[link] = min(slowest_own, full) if is_due else NOTHING
                if s.due[link] != NOTHING:
                    heappush(events, (s.due[link], link))
        if not events:
            break
        level = events[0][0]
        limit = level * (1 + TIE)
        while events and events[0][0] <= limit:
            due, link = heappop(events)
            if s.due[link] == due:
                s.due[link] = NOTHING
                if s.stale[link]:
                    touch(s, link, SOONER)
                elif s.frees[link]:
                    free(s, link)
                else:
                    stop(s, link, due)
    for place in range(s.lengths[CHANGED]):
        s.mark[s.changed[place]] = HELD


def full_level(s: State, link: int, level: float) -> tuple[float, bool]:
    """(level at which a link is full, whether any of its flows are rising).

    Flows that keep their rate take no more than that, which leaves more to others: as the level found rises
    past them, it is found again without them.
    """
    before = -1
    while True:
        room, weight = s.capacity[link], 0.0
        held, rising = 0, 0
        for place in range(s.base[link], s.base[link] + s.count[link]):
            flow = s.flow[s.member[place]]
            if s.mark[flow] == RISING:
                rising += 1
                weight += s.weight[flow]
            elif s.mark[flow] == STOPPED or s.level[flow] * (1 + TIE) < level:
                room -= s.level[flow] * s.weight[flow]
            else:
                held += 1
                weight += s.weight[flow]
        level = room / weight if held + rising > 0 else math.inf
        if held == before or held == 0:
            return level, rising > 0
        before = held


def held_levels(s: State, link: int) -> tuple[float, float]:
    """(lowest level of the flows that ``link`` itself had stopped, highest of all) that keep their rate."""
    slowest_own, fastest = math.inf, 0.0
    for place in range(s.base[link], s.base[link] + s.count[link]):
        flow = s.flow[s.member[place]]
        if s.mark[flow] == HELD:
            fastest = max(fastest, s.level[flow])
            if s.bottleneck[flow] == link:
                slowest_own = min(slowest_own, s.level[flow])
    return slowest_own, fastest


def free(s: State, link: int) -> None:
    """Let the flows rise that ``link`` had stopped."""
    for place in range(s.base[link], s.base[link] + s.count[link]):
        flow = s.flow[s.member[place]]
        if s.mark[flow] == HELD and s.bottleneck[flow] == link:
            s.mark[flow] = RISING
            note_change(s, flow)
            touch_route(s, flow, SOONER)


def stop(s: State, link: int, level: float) -> None:
    """Stop at ``level`` the flows on ``link`` that are rising, or were faster."""
    for place in range(s.base[link], s.base[link] + s.count[link]):
        flow = s.flow[s.member[place]]
        is_held = s.mark[flow] == HELD
        if s.mark[flow] == RISING or (is_held and s.level[flow] > level * (1 + TIE)):
            if is_held:
                note_change(s, flow)
            s.mark[flow], s.level[flow], s.bottleneck[flow] = STOPPED, level, link
            touch_route(s, flow, LATER)


def touch_route(s: State, flow: int, why: int) -> None:
    """Have all links of a flow looked at again."""
    for hop in range(s.first[flow], s.first[flow + 1]):
        touch(s, s.link[hop], why)


def set_rates(s: State, now: float, ending: list) -> None:
    """Go on at the new rates, and say when the flows will end."""
    for place in range(s.lengths[CHANGED]):
        flow = s.changed[place]
        rate = s.level[flow] * s.weight[flow]
        if rate != s.rate[flow]:
            s.left[flow] = max(0.0, s.left[flow] - s.rate[flow] * (now - s.since[flow]))
            s.since[flow], s.rate[flow] = now, rate
            s.finish[flow] = now + s.left[flow] / rate
            heappush(ending, (s.finish[flow], flow))
    s.lengths[CHANGED] = 0
