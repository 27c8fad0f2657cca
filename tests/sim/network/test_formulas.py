"""Collective algorithms against the textbooks, and against each other."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import INFINIBAND, gpu_cluster

from traincast.sim.errors import InputError
from traincast.sim.hardware.cluster import FabricSpec
from traincast.sim.network import formulas as forms
from traincast.sim.network.algorithms import (
    ALGORITHMS,
    COLLECTIVE_ALGORITHMS,
    OPERATIONS,
    Tier,
    collective_s,
    hierarchical_s,
)
from traincast.sim.network.transport import transport

GIB = 2.0**30
ALL = [(name, operation) for name, known in ALGORITHMS.items() for operation in known]
POWERS = st.integers(1, 12).map(lambda power: 2**power)


def steps(formula, ranks: int) -> float:
    """Latencies of a collective of nothing."""
    return formula(0.0, ranks, 1.0, 1.0)


def sizes(formula, ranks: int) -> float:
    """Buffers that the busiest rank moves one after the other."""
    return formula(1.0, ranks, 1.0, 0.0)


def test_steps_and_bytes_of_eight_ranks():
    """(latencies, buffers) as the sources of each formula have them."""
    found = {key: (steps(ALGORITHMS[key[0]][key[1]], 8), sizes(ALGORITHMS[key[0]][key[1]], 8)) for key in ALL}
    part = 7 / 8
    assert found == {
        ("ring", "all_reduce"): (14, 2 * part),
        ("ring", "all_gather"): (7, part),
        ("ring", "reduce_scatter"): (7, part),
        ("ring", "broadcast"): (7, 1),
        ("ring", "all_to_all"): (7, part),
        ("tree", "all_reduce"): (6, 2),
        ("tree", "broadcast"): (3, 1),
        ("binary_tree", "all_reduce"): (6, 4),
        ("binary_tree", "broadcast"): (3, 2),
        ("binomial_tree", "all_reduce"): (6, 6),
        ("binomial_tree", "broadcast"): (3, 3),
        ("halving_doubling", "all_reduce"): (6, 2 * part),
        ("halving_doubling", "all_gather"): (3, part),
        ("halving_doubling", "reduce_scatter"): (3, part),
        ("halving_doubling", "broadcast"): (6, 2 * part),
        ("halving_doubling", "all_to_all"): (3, 1.5),
        ("direct", "all_reduce"): (2, 2 * part),
        ("direct", "all_gather"): (1, part),
        ("direct", "reduce_scatter"): (1, part),
        ("direct", "broadcast"): (1, 7),
        ("direct", "all_to_all"): (1, part),
        ("in_network", "all_reduce"): (2, 1),
        ("in_network", "all_gather"): (2, part),
        ("in_network", "reduce_scatter"): (2, part),
        ("in_network", "broadcast"): (2, 1),
    }


def test_ranks_that_are_no_power_of_two_cost_extra():
    """Six ranks: two hand their buffer on first; Bruck moves 3 + 2 + 2 of 6 blocks."""
    assert steps(forms.halving_doubling_all_reduce_s, 6) == 6
    assert sizes(forms.halving_doubling_all_reduce_s, 6) == pytest.approx(2 * 3 / 4 + 2)
    assert sizes(forms.halving_reduce_scatter_s, 6) == pytest.approx(3 / 4 + 1 + 1 / 6)
    assert steps(forms.doubling_all_gather_s, 6) == 3
    assert sizes(forms.bruck_all_to_all_s, 6) == pytest.approx((3 + 2 + 2) / 6)


@given(
    st.sampled_from(ALL),
    st.just(0.0) | st.floats(1, 1e12),
    st.integers(1, 5000),
    st.floats(1, 1e12),
    st.just(0.0) | st.floats(1e-12, 1),
)
def test_every_form_is_latencies_and_bytes(key, size, ranks, bandwidth, latency):
    """Linear in both, nothing for one rank, never quicker than what a rank must receive."""
    formula = ALGORITHMS[key[0]][key[1]]
    seconds = formula(size, ranks, bandwidth, latency)
    assert seconds == pytest.approx(
        steps(formula, ranks) * latency + sizes(formula, ranks) * size / bandwidth
    )
    assert (seconds == 0) == (ranks == 1 or (size == 0 and latency == 0))
    if ranks > 1:
        assert sizes(formula, ranks) >= (ranks - 1) / ranks * (1 - 1e-12)
        assert steps(formula, ranks) >= 1


@given(POWERS, st.floats(1, 1e12))
def test_rings_and_halving_move_the_same_bytes(ranks, size):
    """Both are optimal in bandwidth where ranks are a power of two; latency decides."""
    ring, halving = (
        forms.ring_all_reduce_s(size, ranks, 1e9, 0.0),
        forms.halving_doubling_all_reduce_s(size, ranks, 1e9, 0.0),
    )
    assert ring == pytest.approx(halving)
    assert steps(forms.halving_doubling_all_reduce_s, ranks) <= steps(forms.ring_all_reduce_s, ranks)


@given(
    st.sampled_from(OPERATIONS),
    st.sampled_from(COLLECTIVE_ALGORITHMS),
    st.integers(2, 4096),
    st.floats(1, 1e12),
)
def test_every_name_serves_every_operation(operation, algorithm, ranks, size):
    """What has no form of its own is a ring."""
    seconds = collective_s(operation, size, ranks, 1e9, 1e-6, algorithm=algorithm)
    assert seconds > 0
    if operation not in ALGORITHMS.get(algorithm, OPERATIONS):
        assert seconds == collective_s(operation, size, ranks, 1e9, 1e-6, algorithm="ring")


# Tiers


@given(
    st.integers(2, 64), st.integers(2, 64), st.floats(1, 1e12), st.sampled_from(["all_reduce", "all_gather"])
)
def test_equal_tiers_move_as_much_as_one_ring(inner, outer, size, operation):
    """(a-1)/a + (b-1)/(ab) = (ab-1)/(ab), with far fewer steps."""
    tiers = [Tier(ranks=count, bandwidth=1e9, latency=0.0) for count in (inner, outer)]
    flat = collective_s(operation, size, inner * outer, 1e9, 0.0, algorithm="ring")
    assert hierarchical_s(operation, size, tiers) == pytest.approx(flat)


def test_an_all_reduce_over_two_tiers_by_hand():
    """Inside at 100 the whole, across at 10 an eighth."""
    tiers = [Tier(ranks=8, bandwidth=100.0, latency=0.1), Tier(ranks=4, bandwidth=10.0, latency=1.0)]
    seconds = 2 * (7 * 0.1 + 7 / 8 * 800 / 100) + 2 * (3 * 1.0 + 3 / 4 * 100 / 10)
    assert hierarchical_s("all_reduce", 800.0, tiers) == pytest.approx(seconds)
    cluster = gpu_cluster()
    inside = 2 * (7 * 2e-6 + 7 / 8 * GIB / 300e9)
    across = 2 * (3 * 5e-6 + 3 / 4 * GIB / 8 / 25e9)
    assert transport(cluster, "all_reduce", range(32), GIB, algorithm="hierarchical") == pytest.approx(
        inside + across
    )


def test_an_all_to_all_between_nodes_uses_each_ranks_own_nic():
    """24 of 31 partners are beyond the NIC."""
    seconds = transport(gpu_cluster(), "all_to_all", range(32), GIB)
    assert seconds == pytest.approx(5e-6 + 24 / 32 * GIB / 25e9)


# On topologies, against the textbook


def flat(kind: str, ranks: int, **changes):
    """``ranks`` accelerators with 50 GB/s ports and 1 us a hop on a fabric."""
    port = replace(INFINIBAND, bandwidth=50e9, latency=1e-6)
    spec = FabricSpec(kind=kind, **changes)
    return gpu_cluster(nodes=ranks, per_node=1, links={"ib": port}, fabric=spec)


RANKS = [2**power for power in range(3, 13)]


@pytest.mark.parametrize("ranks", RANKS)
def test_a_gibibyte_on_a_switch_takes_what_the_textbook_says(ranks):
    """Ring, halving-doubling and tree, of 8 to 4,096 ranks."""
    cluster = flat("switch", ranks)
    expected = {
        "ring": 2 * (ranks - 1) * (1e-6 + GIB / ranks / 50e9),
        "halving_doubling": 2 * (ranks.bit_length() - 1) * 1e-6 + 2 * (ranks - 1) / ranks * GIB / 50e9,
        "tree": 2 * (ranks.bit_length() - 1) * 1e-6 + 2 * GIB / 50e9,
    }
    for algorithm, seconds in expected.items():
        found = transport(cluster, "all_reduce", range(ranks), GIB, algorithm=algorithm)
        assert found == pytest.approx(seconds, rel=0.01)


@pytest.mark.parametrize("ranks", RANKS)
def test_a_gibibyte_on_a_ring_takes_what_the_textbook_says(ranks):
    """Neighbours only: 2(n-1) steps of size/n (Patarasuk & Yuan 2009)."""
    found = transport(flat("torus", ranks, dimensions=(ranks,)), "all_reduce", range(ranks), GIB)
    assert found == pytest.approx(2 * (ranks - 1) * (1e-6 + GIB / ranks / 50e9), rel=0.01)


@pytest.mark.parametrize("ranks", RANKS[1:])
def test_a_gibibyte_on_two_tiers_takes_what_the_textbook_says(ranks):
    """Leaves of eight under spines: rings inside, rings of an eighth across (BlueConnect); one ring."""
    cluster = flat("fat_tree", ranks, radix=8)
    leaves, up = ranks // 8, 2e-6
    hierarchical = 2 * 7 * (1e-6 + GIB / 8 / 50e9) + 2 * (leaves - 1) * (up + GIB / 8 / leaves / 50e9)
    found = transport(cluster, "all_reduce", range(ranks), GIB, algorithm="hierarchical")
    assert found == pytest.approx(hierarchical, rel=0.01)
    ring = 2 * (ranks - 1) * ((7 * 1e-6 + up) / 8 + GIB / ranks / 50e9)
    assert transport(cluster, "all_reduce", range(ranks), GIB, algorithm="ring") == pytest.approx(
        ring, rel=0.01
    )


@pytest.mark.parametrize("nodes", [1, 4, 64, 512])
def test_a_gibibyte_on_nodes_takes_what_the_textbook_says(nodes):
    """Eight a node on NVLink, nodes on InfiniBand, without a fabric: the two tiers of most clusters."""
    cluster = gpu_cluster(nodes=nodes)
    inside = 2 * 7 * (2e-6 + GIB / 8 / 300e9)
    across = 2 * (nodes - 1) * (5e-6 + GIB / 8 / nodes / 25e9)
    found = transport(cluster, "all_reduce", range(8 * nodes), GIB, algorithm="hierarchical")
    assert found == pytest.approx(inside + across, rel=0.01)


def test_formulae_refuse_what_cannot_be():
    for formula in (forms.bruck_all_to_all_s, forms.in_network_half_s, forms.binomial_broadcast_s):
        with pytest.raises(InputError, match="0 ranks"):
            formula(1.0, 0, 1.0, 0.0)
