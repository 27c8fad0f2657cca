"""Collectives in closed form: limits, known values and what must never happen."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traincast.sim.errors import InputError
from traincast.sim.network import algorithms as collectives
from traincast.sim.network.algorithms import collective_s
from traincast.sim.plan import choices

OPERATIONS = st.sampled_from(["all_reduce", "all_gather", "reduce_scatter", "broadcast"])
ALGORITHMS = st.sampled_from(["ring", "tree", "auto"])
SIZES = st.floats(0, 1e12)
RANKS = st.integers(1, 4096)
BANDWIDTHS = st.floats(1e3, 1e13)
LATENCIES = st.floats(0, 1)


def test_ring_all_reduce_approaches_two_sizes():
    """2(n-1)/n of the size, whatever the latency of nothing is."""
    for ranks in (2, 3, 8, 1000):
        seconds = collectives.ring_all_reduce_s(1e9, ranks, 1e9, 0.0)
        assert seconds == pytest.approx(2 * (ranks - 1) / ranks)


def test_ring_steps_cost_latency():
    """2(n-1) hops for an all-reduce, n-1 for its halves."""
    assert collectives.ring_all_reduce_s(0.0, 8, 1e9, 1e-6) == pytest.approx(14e-6)
    assert collectives.ring_all_gather_s(0.0, 8, 1e9, 1e-6) == pytest.approx(7e-6)
    assert collectives.ring_reduce_scatter_s(0.0, 8, 1e9, 1e-6) == pytest.approx(7e-6)


def test_trees_cost_the_logarithm_of_latency():
    """Two sizes and 2 log2(n) hops."""
    assert collectives.tree_all_reduce_s(1e9, 1024, 1e9, 1e-3) == pytest.approx(2.02)
    assert collectives.tree_broadcast_s(1e9, 8, 1e9, 1e-3) == pytest.approx(1.003)


def test_auto_takes_trees_for_small_messages_and_rings_for_large_ones():
    """As NCCL's tuner, the cheaper prediction."""
    small, large = (collective_s("all_reduce", size, 256, 25e9, 5e-6) for size in (1e3, 1e10))
    assert small == collectives.tree_all_reduce_s(1e3, 256, 25e9, 5e-6)
    assert large == collectives.ring_all_reduce_s(1e10, 256, 25e9, 5e-6)


def test_host_staged_collectives_are_those_of_gloo():
    """A reduce-scatter costs an all-reduce; a broadcast to 4 stores and forwards 3 sizes, to 2 one."""
    of = lambda operation, ranks=4: collective_s(operation, 1e6, ranks, 1e6, 0.0, host_staged=True)  # noqa: E731
    assert of("reduce_scatter") == of("all_reduce") == pytest.approx(1.5)
    assert of("all_gather") == pytest.approx(0.75)
    assert of("broadcast") == pytest.approx(3.0)
    assert of("broadcast", 2) == pytest.approx(1.0)


def test_host_staged_latency_is_that_of_gloo():
    """4 ranks: 14 one-way delays for an all-reduce, 6 for an all-gather, 2 for a broadcast."""
    hops = {
        operation: collective_s(operation, 0.0, 4, 1e9, 1.0, host_staged=True)
        for operation in ("all_reduce", "all_gather", "broadcast")
    }
    assert hops == {"all_reduce": pytest.approx(14), "all_gather": pytest.approx(6), "broadcast": 2}


@given(OPERATIONS, ALGORITHMS, SIZES, BANDWIDTHS, LATENCIES, st.booleans())
def test_one_rank_costs_nothing(operation, algorithm, size, bandwidth, latency, staged):
    """There is nobody to talk to."""
    assert collective_s(operation, size, 1, bandwidth, latency, algorithm=algorithm, host_staged=staged) == 0


@given(OPERATIONS, ALGORITHMS, SIZES, RANKS, BANDWIDTHS, LATENCIES, st.floats(1, 100), st.booleans())
def test_a_better_link_never_hurts(operation, algorithm, size, ranks, bandwidth, latency, factor, staged):
    """More bandwidth or less latency takes no longer; more bytes no less."""
    how = {"algorithm": algorithm, "host_staged": staged}
    seconds = collective_s(operation, size, ranks, bandwidth, latency, **how)
    assert collective_s(operation, size, ranks, bandwidth * factor, latency, **how) <= seconds
    assert collective_s(operation, size, ranks, bandwidth, latency / factor, **how) <= seconds
    assert collective_s(operation, size * factor, ranks, bandwidth, latency, **how) >= seconds


@given(st.sampled_from(["all_reduce", "broadcast"]), SIZES, RANKS, BANDWIDTHS, LATENCIES)
def test_auto_is_the_minimum(operation, size, ranks, bandwidth, latency):
    """Never above either algorithm, and always one of them."""
    ring, tree, auto = (
        collective_s(operation, size, ranks, bandwidth, latency, algorithm=a)
        for a in ("ring", "tree", "auto")
    )
    assert auto == min(ring, tree)


@given(SIZES, st.integers(2, 4096), BANDWIDTHS, LATENCIES)
def test_an_all_reduce_is_its_two_halves(size, ranks, bandwidth, latency):
    """Reduce-scatter and all-gather, one after the other."""
    halves = collectives.ring_reduce_scatter_s(size, ranks, bandwidth, latency)
    halves += collectives.ring_all_gather_s(size, ranks, bandwidth, latency)
    assert math.isclose(collectives.ring_all_reduce_s(size, ranks, bandwidth, latency), halves)


def test_point_to_point_is_latency_and_bytes():
    """One message."""
    assert collectives.point_to_point_s(1e6, 1e9, 1e-5) == pytest.approx(1.01e-3)


@pytest.mark.parametrize(
    ("operation", "ranks", "bandwidth", "algorithm", "found"),
    [
        ("all_reduce", 0, 1e9, "auto", "0 ranks"),
        ("all_reduce", 2, 0.0, "auto", "0.0 bytes/s"),
        ("gather", 2, 1e9, "auto", "'gather' is not a collective"),
        ("all_reduce", 2, 1e9, "butterfly", "'butterfly' is not a collective algorithm"),
    ],
)
def test_what_cannot_be_is_refused(operation, ranks, bandwidth, algorithm, found):
    """With the value in the message."""
    with pytest.raises(InputError, match=found):
        collective_s(operation, 1e6, ranks, bandwidth, 0.0, algorithm=algorithm)


def test_every_algorithm_that_a_strategy_may_name_is_there():
    assert choices.COLLECTIVE_ALGORITHMS == collectives.COLLECTIVE_ALGORITHMS
