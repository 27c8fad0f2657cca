"""Flows: max-min fair at every moment, no link over its capacity, and the closed forms where they hold."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traincast.sim.errors import InputError
from traincast.sim.network.fabrics.fat_tree import Shape, fat_tree
from traincast.sim.network.fabrics.switch import switch
from traincast.sim.network.flows.flows import (
    Flows,
    Network,
    Rounds,
    finish_times,
    flows_on,
    max_min_rates,
    rates_at,
    round_ends,
)

CLOSE = 1e-12


def flows_of(routes: list[list[int]], sizes, starts=None, weights=None) -> Flows:
    count = len(routes)
    return Flows(
        offsets=np.cumsum([0, *map(len, routes)]),
        links=np.array([link for route in routes for link in route], np.int32),
        sizes=np.broadcast_to(np.asarray(sizes, float), count),
        starts=np.zeros(count) if starts is None else np.asarray(starts, float),
        weights=None if weights is None else np.asarray(weights, float),
    )


def network_of(*bandwidth: float, latency: float = 0.0) -> Network:
    return Network(bandwidth=np.array(bandwidth), latency=np.full(len(bandwidth), latency))


@st.composite
def cases(draw) -> tuple[Flows, Network]:
    """Few links and values, so that ties are common."""
    links = draw(st.integers(1, 6))
    some_links = st.lists(st.integers(0, links - 1), min_size=1, max_size=4, unique=True)
    routes = draw(st.lists(some_links, min_size=1, max_size=14))
    count = len(routes)

    def several(low: float, high: float, size: int) -> list[float]:
        values = st.one_of(st.integers(int(low), int(high)).map(float), st.floats(low, high))
        return draw(st.lists(values, min_size=size, max_size=size))

    flows = flows_of(routes, several(1, 9, count), several(0, 3, count), several(1, 4, count))
    return flows, Network(bandwidth=np.array(several(1, 5, links)), latency=np.array(several(0, 2, links)))


def naive_rates(flows: Flows, network: Network, under_way: np.ndarray) -> np.ndarray:
    """Progressive filling as in the textbook: all rise together, the fullest link stops its flows."""
    owner = np.repeat(np.arange(len(flows)), np.diff(flows.offsets))
    weights = np.ones(len(flows)) if flows.weights is None else flows.weights
    rates, rising = np.zeros(len(flows)), under_way.copy()
    while rising.any():
        left = network.bandwidth - np.bincount(flows.links, rates[owner], len(network.bandwidth))
        weight = np.bincount(flows.links, (weights * rising)[owner], len(network.bandwidth))
        levels = np.divide(left, weight, out=np.full(len(left), np.inf), where=weight > 0)
        full = levels <= levels.min() * (1 + 1e-13)
        stopped = rising & (np.bincount(owner, full[flows.links], len(flows)) > 0)
        rates[stopped] = levels.min() * weights[stopped]
        rising &= ~stopped
    return rates


def naive_finish_times(flows: Flows, network: Network) -> np.ndarray:
    """Everything anew at every start and end."""
    owner = np.repeat(np.arange(len(flows)), np.diff(flows.offsets))
    ready = flows.starts + np.bincount(owner, network.latency[flows.links], len(flows))
    left, finish, now = flows.sizes.copy(), np.full(len(flows), np.nan), 0.0
    while np.isnan(finish).any():
        under_way = np.isnan(finish) & (ready <= now)
        rates = naive_rates(flows, network, under_way)
        ends = np.full(len(flows), np.inf)
        ends[under_way] = now + left[under_way] / rates[under_way]
        moment = min(ends.min(), ready[ready > now].min(initial=np.inf))
        over = ends <= moment * (1 + 1e-14)
        finish[over] = ends[over]
        left -= rates * (moment - now)
        now = moment
    return finish


@settings(max_examples=150)
@given(cases())
def test_times_are_those_of_filling_everything_anew(case):
    """Solving only what changed changes nothing; starts, latencies, weights and ties included."""
    flows, network = case
    np.testing.assert_allclose(finish_times(flows, network), naive_finish_times(flows, network), rtol=CLOSE)


@settings(max_examples=100)
@given(cases(), st.floats(0, 12))
def test_rates_are_feasible_and_max_min_fair_at_any_moment(case, moment):
    """No link carries more than it can, and every flow crosses a full link on which none is faster."""
    flows, network = case
    rates = rates_at(flows, network, moment)
    owner = np.repeat(np.arange(len(flows)), np.diff(flows.offsets))
    load = np.bincount(flows.links, rates[owner], len(network.bandwidth))
    assert (load <= network.bandwidth * (1 + CLOSE)).all()
    levels = rates / flows.weights
    highest = np.zeros(len(load))
    np.maximum.at(highest, flows.links, levels[owner])
    full = load >= network.bandwidth * (1 - CLOSE)
    for flow in np.flatnonzero(rates):
        links = flows.links[flows.offsets[flow] : flows.offsets[flow + 1]]
        assert any(full[link] and levels[flow] >= highest[link] * (1 - CLOSE) for link in links)


@settings(max_examples=100)
@given(cases())
def test_all_bytes_arrive(case):
    """The rates between the events add up to the sizes."""
    flows, network = case
    finish = finish_times(flows, network)
    owner = np.repeat(np.arange(len(flows)), np.diff(flows.offsets))
    ready = flows.starts + np.bincount(owner, network.latency[flows.links], len(flows))
    moments = np.unique([0.0, *ready, *finish])
    sent = np.zeros(len(flows))
    for begin, end in pairwise(moments):
        if end - begin > 1e-9:  # less are moments that differ by rounding only
            sent += rates_at(flows, network, (begin + end) / 2) * (end - begin)
    np.testing.assert_allclose(sent, flows.sizes, rtol=1e-6)


@settings(max_examples=60)
@given(cases(), st.randoms())
def test_the_order_of_flows_changes_nothing(case, random):
    flows, network = case
    order = list(range(len(flows)))
    random.shuffle(order)
    routes = [flows.links[flows.offsets[i] : flows.offsets[i + 1]].tolist() for i in order]
    shuffled = flows_of(routes, flows.sizes[order], flows.starts[order], flows.weights[order])
    np.testing.assert_allclose(
        finish_times(shuffled, network), finish_times(flows, network)[order], rtol=CLOSE
    )


@settings(max_examples=60)
@given(cases(), st.floats(1.0, 4.0))
def test_twice_the_bandwidth_is_half_the_time(case, factor):
    """All links faster by a factor, nothing to wait for: all times shorter by it."""
    flows, network = case
    at_once = replace(flows, starts=np.zeros(len(flows)))
    slow = Network(bandwidth=network.bandwidth, latency=np.zeros(len(network.latency)))
    fast = replace(slow, bandwidth=network.bandwidth * factor)
    np.testing.assert_allclose(finish_times(at_once, fast) * factor, finish_times(at_once, slow), rtol=CLOSE)


@settings(max_examples=60)
@given(st.lists(st.floats(1, 9), min_size=1, max_size=9), st.floats(0.5, 3), st.floats(1, 3))
def test_a_wider_bottleneck_never_delays_the_last(sizes, narrow, factor):
    """One link that all cross, behind ports of their own."""
    flows = flows_of([[i + 1, 0] for i in range(len(sizes))], sizes)
    last = [
        finish_times(flows, network_of(width, *[1.0] * len(sizes))).max()
        for width in (narrow, narrow * factor)
    ]
    assert last[1] <= last[0] * (1 + CLOSE)


@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_flows_through_one_link_take_as_many_times_as_long(count):
    flows = flows_of([[0]] * count, 3.0)
    assert finish_times(flows, network_of(2.0, latency=0.25)).tolist() == pytest.approx(
        [0.25 + count * 1.5] * count
    )


def test_sizes_one_to_three_on_one_link():
    """Thirds until the first ends, then halves, then all."""
    flows = flows_of([[0]] * 3, [1.0, 2.0, 3.0])
    network = network_of(1.0)
    assert finish_times(flows, network).tolist() == pytest.approx([3.0, 5.0, 6.0])
    assert rates_at(flows, network, 4.0).tolist() == pytest.approx([0.0, 0.5, 0.5])
    assert max_min_rates(flows, network).tolist() == pytest.approx([1 / 3] * 3)


def test_a_flow_over_two_links_is_held_by_the_narrower():
    """The parking lot (Bertsekas & Gallager 1992, section 6.5.2): who is held elsewhere leaves room."""
    flows = flows_of([[0, 1], [0], [1], [1]], 1.0)
    assert max_min_rates(flows, network_of(1.0, 1.0)).tolist() == pytest.approx([1 / 3, 2 / 3, 1 / 3, 1 / 3])


def test_weights_share_a_link():
    flows = flows_of([[0], [0]], [3.0, 1.0], weights=[3.0, 1.0])
    assert finish_times(flows, network_of(2.0)).tolist() == pytest.approx([2.0, 2.0])


def test_what_needs_no_link_or_carries_nothing_takes_no_time():
    flows = flows_of([[], [0], [0]], [5.0, 0.0, 1.0], [1.0, 2.0, 0.0])
    assert finish_times(flows, network_of(1.0, latency=0.5)).tolist() == [1.0, 2.5, 1.5]


def test_a_step_of_a_ring_has_no_contention_on_a_switch():
    """Every host sends to its right: all at full speed."""
    hosts = np.arange(16)
    flows, network = flows_on(switch(16, bandwidth=4.0, latency=0.5), hosts, np.roll(hosts, -1), 8.0)
    assert finish_times(flows, network).tolist() == pytest.approx([1.0 + 2.0] * 16)


@pytest.mark.parametrize("over", [1.0, 2.0, 4.0])
def test_symmetric_traffic_takes_what_static_shares_say(over):
    """A shift by one leaf of an oversubscribed tree: as much slower as uplinks are fewer."""
    tree = fat_tree(
        Shape(hosts=64, radix=8, oversubscription=over),
        bandwidth=1.0,
        latency=0.0,
        trunk_bandwidth=1.0,
        trunk_latency=0.0,
    )
    hosts = np.arange(64)
    flows, network = flows_on(tree, hosts, (hosts + 8) % 64, 3.0)
    load = np.bincount(flows.links, minlength=tree.links).max()
    assert load == over
    assert finish_times(flows, network).tolist() == pytest.approx([3.0 * load] * 64)


def test_numba_gives_the_same_to_the_last_bit():
    random = np.random.default_rng(7)
    tree = fat_tree(
        Shape(hosts=64, radix=8, oversubscription=2.0),
        bandwidth=1.0,
        latency=0.01,
        trunk_bandwidth=1.0,
        trunk_latency=0.01,
    )
    sources = random.integers(0, 64, 200)
    flows, network = flows_on(tree, sources, random.permutation(200) % 64, random.exponential(1.0, 200))
    plain, native = (finish_times(flows, network, compiled=compiled) for compiled in (False, True))
    assert plain.tolist() == native.tolist()


def test_rounds_follow_each_other_and_repeat():
    """Two chains on one link: 2 x 1 byte then 1, against one of 4: halves until 6 s, then all."""
    flows = flows_of([[0], [0], [0]], [1.0, 1.0, 4.0])
    rounds = Rounds(
        first=np.array([0, 1, 2, 3]),
        begin=np.array([0.0, -1.0, 0.0]),
        after=np.array([1, -1, -1]),
        repeats=np.array([2, 1, 1]),
    )
    assert round_ends(flows, network_of(1.0), rounds).tolist() == pytest.approx([4.0, 6.0, 7.0])


def test_no_flows_at_all():
    assert finish_times(flows_of([], []), network_of(1.0)).tolist() == []


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"links": np.array([0, 2])}, "cross links 0 .. 2 of 2"),
        ({"sizes": np.array([1.0, -1.0])}, "size of flow 1 is -1.0; expected a finite number 0 or more"),
        ({"starts": np.array([np.nan, 0.0])}, "start of flow 0 is nan"),
        ({"starts": np.zeros(3)}, "2 routes, 2 sizes and 3 starts"),
        ({"weights": np.array([1.0, 0.0])}, "weight of flow 1 is 0.0; expected a finite number above 0"),
        ({"offsets": np.array([0, 2, 1])}, "offsets of routes do not rise"),
    ],
)
def test_flows_that_cannot_be_are_refused(change, found):
    flows = replace(flows_of([[0], [1]], 1.0), **change)
    with pytest.raises(InputError, match=found):
        finish_times(flows, network_of(1.0, 1.0))


def test_links_that_cannot_be_are_refused():
    for bandwidth in (0.0, np.inf, -1.0):
        with pytest.raises(InputError, match="bandwidth of link 0"):
            finish_times(flows_of([[0]], 1.0), network_of(bandwidth))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"first": np.array([0, 0])}, "do not divide 1 flows"),
        ({"repeats": np.array([0])}, "less than once"),
        ({"after": np.array([1])}, "begins round 1 of 1"),
    ],
)
def test_rounds_that_cannot_be_are_refused(change, found):
    rounds = Rounds(first=np.array([0, 1]), begin=np.zeros(1), after=np.array([-1]), repeats=np.array([1]))
    with pytest.raises(InputError, match=found):
        round_ends(flows_of([[0]], 1.0), network_of(1.0), replace(rounds, **change))
