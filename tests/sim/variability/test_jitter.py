"""Jitter is repeatable, has the mean and spread it says, and does not depend on what else is drawn."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traincast.sim.errors import InputError
from traincast.sim.variability.jitter import GAMMA, QUANTILES, jittered, lognormal_quantiles, splitmix64

COUNT = 200_000


def test_generator_is_splitmix64() -> None:
    """The first outputs for the seed 1234567, as the reference implementation gives them."""
    states = np.uint64(1234567) + np.arange(1, 4, dtype=np.uint64) * np.uint64(GAMMA)
    assert splitmix64(states).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize("cv", [0.01, 0.1, 0.5])
def test_factors_have_mean_1_and_the_coefficient_of_variation(cv: float) -> None:
    """Within five standard errors of the estimates, and their logarithm is normal."""
    factors = jittered(np.ones(COUNT), cv, seed=7, sample=0)
    assert abs(factors.mean() - 1) < 5 * cv / np.sqrt(COUNT)
    assert factors.std() == pytest.approx(cv, rel=0.02)
    z = (np.log(factors) - np.log(factors).mean()) / np.log(factors).std()
    assert abs((z**3).mean()) < 5 * np.sqrt(6 / COUNT)
    assert abs((z**4).mean() - 3) < 5 * np.sqrt(24 / COUNT)


def test_neighbours_samples_lanes_and_seeds_are_uncorrelated() -> None:
    """Correlations of independent samples stay below five standard errors."""
    base = jittered(np.ones(COUNT), 0.2, seed=1, sample=0)
    others = [
        jittered(np.ones(COUNT), 0.2, seed=1, sample=1),
        jittered(np.ones(COUNT), 0.2, seed=2, sample=0),
        jittered(np.ones(COUNT), 0.2, seed=1, sample=0, lanes=1),
        np.roll(base, 1),
        np.roll(base, 2),
    ]
    for other in others:
        assert abs(np.corrcoef(base, other)[0, 1]) < 5 / np.sqrt(COUNT)


def test_same_seed_gives_the_same_bytes() -> None:
    """Twice in one process; another seed or sample gives others."""

    def digest(seed: int, sample: int) -> str:
        return hashlib.sha256(jittered(np.arange(1.0, 1000.0), 0.1, seed, sample).tobytes()).hexdigest()

    assert digest(3, 4) == digest(3, 4)
    assert len({digest(seed, sample) for seed in (-1, 0, 3, 2**63) for sample in (0, 1, 4)}) == 12


@given(st.integers(1, 200), st.integers(), st.integers(0, 10**9))
def test_a_factor_depends_on_its_operation_alone(count: int, seed: int, sample: int) -> None:
    """Drawing fewer operations gives the same factors, bit for bit."""
    many = jittered(np.ones(200), 0.3, seed, sample)
    assert jittered(np.ones(count), 0.3, seed, sample).tolist() == many[:count].tolist()


def test_lanes_of_one_operation_are_independent() -> None:
    """As many lanes as operations before: mean, spread, and no correlation of neighbours or operations."""
    ids, lanes = np.zeros(COUNT, dtype=np.int64), np.arange(COUNT)
    first = jittered(np.ones(COUNT), 0.2, 1, 0, ids=ids, lanes=lanes)
    second = jittered(np.ones(COUNT), 0.2, 1, 0, ids=ids + 1, lanes=lanes)
    assert abs(first.mean() - 1) < 5 * 0.2 / np.sqrt(COUNT)
    assert first.std() == pytest.approx(0.2, rel=0.02)
    for other in (np.roll(first, 1), np.roll(first, 8), second):
        assert abs(np.corrcoef(first, other)[0, 1]) < 5 / np.sqrt(COUNT)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), min_size=1, max_size=20))
def test_a_factor_is_that_of_its_operation_and_lane(drawn: list[tuple[int, int]]) -> None:
    """In whatever company it is drawn."""
    ids, lanes = np.array(drawn).T
    together = jittered(np.ones(len(drawn)), 0.3, 5, 6, ids=ids, lanes=lanes)
    alone = [jittered([1.0], 0.3, 5, 6, ids=ids[[i]], lanes=int(lanes[i]))[0] for i in range(len(drawn))]
    assert together.tolist() == alone


@pytest.mark.parametrize("cv", [0.01, 0.1, 0.5])
def test_the_table_is_a_lognormal(cv: float) -> None:
    """Rising, of mean 1; its logarithm has the lognormal's spread and median."""
    table = lognormal_quantiles(cv)
    sigma = np.sqrt(np.log1p(cv * cv))
    assert len(table) == QUANTILES
    assert (np.diff(table) > 0).all()
    assert table.mean() == pytest.approx(1, abs=1e-12)
    assert np.log(table).std() == pytest.approx(sigma, rel=1e-6)
    assert np.log(np.median(table)) == pytest.approx(-sigma * sigma / 2, rel=0.01)
    assert table.std() == pytest.approx(cv, rel=0.005)


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
