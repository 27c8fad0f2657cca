"""Jitter is repeatable, has the mean and spread it says, and does not depend on what else is drawn."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traincast.sim.errors import InputError
from traincast.sim.jitter import GAMMA, jittered, splitmix64

COUNT = 200_000


def test_generator_is_splitmix64() -> None:
    """The first outputs for the seed 1234567, as the reference implementation gives them."""
    states = np.uint64(1234567) + np.arange(1, 4, dtype=np.uint64) * np.uint64(GAMMA)
    assert splitmix64(states).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize("cv", [0.01, 0.1, 0.5])
def test_factors_have_mean_1_and_the_coefficient_of_variation(cv: float) -> None:
    """Within five standard errors of the estimates, and their logarithm is normal."""
    factors = jittered(np.ones(COUNT), cv, seed=7, lane=0)
    assert abs(factors.mean() - 1) < 5 * cv / np.sqrt(COUNT)
    assert factors.std() == pytest.approx(cv, rel=0.02)
    z = (np.log(factors) - np.log(factors).mean()) / np.log(factors).std()
    assert abs((z**3).mean()) < 5 * np.sqrt(6 / COUNT)
    assert abs((z**4).mean() - 3) < 5 * np.sqrt(24 / COUNT)


def test_neighbours_lanes_and_seeds_are_uncorrelated() -> None:
    """Correlations of independent samples stay below five standard errors."""
    base = jittered(np.ones(COUNT), 0.2, seed=1, lane=0)
    others = [
        jittered(np.ones(COUNT), 0.2, seed=1, lane=1),
        jittered(np.ones(COUNT), 0.2, seed=2, lane=0),
        np.roll(base, 1),
        np.roll(base, 2),
    ]
    for other in others:
        assert abs(np.corrcoef(base, other)[0, 1]) < 5 / np.sqrt(COUNT)


def test_same_seed_gives_the_same_bytes() -> None:
    """Twice in one process; another seed or lane gives others."""

    def digest(seed: int, lane: int) -> str:
        return hashlib.sha256(jittered(np.arange(1.0, 1000.0), 0.1, seed, lane).tobytes()).hexdigest()

    assert digest(3, 4) == digest(3, 4)
    assert len({digest(seed, lane) for seed in (-1, 0, 3, 2**63) for lane in (0, 1, 4)}) == 12


@given(st.integers(1, 200), st.integers(), st.integers(0, 10**9))
def test_a_factor_depends_on_its_operation_alone(count: int, seed: int, lane: int) -> None:
    """Drawing fewer operations gives the same factors, bit for bit."""
    many = jittered(np.ones(200), 0.3, seed, lane)
    assert jittered(np.ones(count), 0.3, seed, lane).tolist() == many[:count].tolist()


def test_durations_scale_and_zero_stays_zero() -> None:
    """Factors multiply; what takes no time takes none with jitter either."""
    factors = jittered([1.0, 1.0, 1.0], 0.3, 5, 0)
    assert jittered([2.0, 0.0, 0.5], 0.3, 5, 0).tolist() == [2 * factors[0], 0.0, factors[2] / 2]


def test_no_variation_changes_nothing() -> None:
    """cv = 0 returns the durations to the bit."""
    assert jittered([0.1, 1 / 3, 1e9], 0.0, 1, 2).tolist() == [0.1, 1 / 3, 1e9]


@pytest.mark.parametrize("cv", [-0.1, float("nan"), float("inf")])
def test_impossible_variation_is_refused(cv: float) -> None:
    """With the number in the message."""
    with pytest.raises(InputError, match=repr(cv)):
        jittered([1.0], cv, 0, 0)
