"""Uniform numbers that depend on seed, sample, stream and counter alone."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from traincast.sim.variability.random_streams import Stream, uniforms

COUNT = 50_000


def test_numbers_are_uniform_and_streams_independent():
    """By Kolmogorov and Smirnov, and by correlations within five standard errors."""
    drawn = [uniforms(stream, 3, 0, np.arange(COUNT)) for stream in Stream]
    drawn += [uniforms(Stream.PACE, 4, 0, np.arange(COUNT)), uniforms(Stream.PACE, 3, 1, np.arange(COUNT))]
    for place, numbers in enumerate(drawn):
        assert stats.kstest(numbers, "uniform").pvalue > 1e-4
        assert 0 < numbers.min() <= numbers.max() <= 1
        for other in drawn[:place]:
            assert abs(np.corrcoef(numbers, other)[0, 1]) < 5 / np.sqrt(COUNT)


@given(st.integers(), st.integers(1, 5), st.integers(1, 40))
def test_a_number_depends_on_its_place_alone(seed: int, samples: int, count: int):
    """Fewer samples or numbers, or one sample by itself, are the same to the bit."""
    many = uniforms(Stream.NODE_FAILURES, seed, np.arange(5), np.arange(40))
    some = uniforms(Stream.NODE_FAILURES, seed, np.arange(samples), np.arange(count))
    assert some.tolist() == many[:samples, :count].tolist()
    alone = uniforms(Stream.NODE_FAILURES, seed, samples - 1, np.arange(count))
    assert alone.tolist() == some[-1].tolist()
