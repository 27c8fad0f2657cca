"""How much slower each rank and each node's network is: the cluster's stragglers as factors."""

from __future__ import annotations

import numpy as np

from ..variability.random_streams import Stream, uniforms
from .cluster import Cluster
from .stragglers import NO_STRAGGLERS, Stragglers


def rank_factors(cluster: Cluster, seed: int, sample: int, world_size: int) -> np.ndarray:
    """What every rank's compute is multiplied by in one step, float64[world_size].

    Persistent stragglers times the transient ones of step ``sample``. A rank's own factor and its node's
    multiply. Stragglers beyond ``world_size`` do not matter. All are 1 where nobody in the cluster is slow.
    """
    return persistent_factors(cluster, world_size) * transient_factors(cluster, seed, sample, world_size)


def persistent_factors(cluster: Cluster, world_size: int) -> np.ndarray:
    """The part of `rank_factors` that is the same in every step, float64[world_size]."""
    factors = np.ones(world_size)
    per_node = cluster.accelerators_per_node
    for straggler in _stragglers(cluster).persistent:
        first = straggler.place * (per_node if straggler.kind == "node" else 1)
        count = per_node if straggler.kind == "node" else 1
        factors[first : first + count] *= straggler.factor
    return factors


def transient_factors(cluster: Cluster, seed: int, sample: int, world_size: int) -> np.ndarray:
    """The part of `rank_factors` that is drawn for step ``sample``, float64[world_size]."""
    factors = np.ones(world_size)
    transient = _stragglers(cluster).transient
    if transient is None or transient.probability == 0.0:
        return factors
    ranks = np.arange(world_size)
    # Numbers are in (0, 1], so a probability of 1 slows everybody.
    slow = uniforms(Stream.TRANSIENT_CHANCE, seed, sample, ranks) <= transient.probability
    shares, values = np.array(transient.factors).T
    drawn = np.interp(uniforms(Stream.TRANSIENT_FACTOR, seed, sample, ranks[slow]), shares, values)
    factors[slow] = drawn
    return factors


def link_factor(cluster: Cluster, node: int) -> float:
    """Fraction of its network bandwidth that ``node`` has; 1 where nothing is said of it."""
    factor = 1.0
    for link in _stragglers(cluster).slow_links:
        factor *= link.bandwidth if link.node == node else 1.0
    return factor


def _stragglers(cluster: Cluster) -> Stragglers:
    return cluster.stragglers or NO_STRAGGLERS
