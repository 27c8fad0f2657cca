"""Jitter that can be repeated: lognormal factors from a counter-based generator.

A factor depends on (seed, sample, operation, lane) alone, so it does not matter how many others are drawn,
or in which order, and any sample can be drawn again by itself. The generator is splitmix64 (Steele, Lea and
Flood 2014, "Fast splittable pseudorandom number generators"), whose n-th output is a function of
seed + n * gamma: one stream for each sample, whose outputs begin one stream for each operation, whose outputs
are its lanes'.

An output's upper bits choose among `QUANTILES` equally likely values, the middles of as many equal slices of
the lognormal's probability. A table costs a tenth of a logarithm and a cosine for each of the millions of
numbers that a large cluster draws, and holds the same numbers on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np

from ..errors import InputError

GAMMA = 0x9E3779B97F4A7C15
"""splitmix64's increment: 2^64 over the golden ratio, odd."""

QUANTILE_BITS = 12
QUANTILES = 1 << QUANTILE_BITS
"""Values that a factor can take: 32 KiB, which the fastest cache holds, and tails up to 3.7 sigma."""

QUANTILE_SHIFT = 64 - QUANTILE_BITS
"""Right shift that leaves of an output the place in the table."""

_GRID = 2.0**40
"""Values are rounded to multiples of 1 / this, so that the last bit of a library's exp does not matter."""

_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneFactors:
    """How the lanes and samples differ; by default there is one sample, in which all lanes are alike."""

    cv: float = 0.0
    """Coefficient of variation of every operation's lognormal factor, drawn for each lane and sample."""
    seed: int = 0
    samples: range = range(1)
    """Numbers of the samples to draw."""
    slow: np.ndarray | None = None
    """The factor on all that a rank of the cluster computes: float64[ranks], or float64[samples, ranks]."""

    def durations(
        self,
        seconds: np.ndarray,
        sample: int,
        ids: np.ndarray | None = None,
        lanes: np.ndarray | int = 0,
        ranks: np.ndarray | None = None,
    ) -> np.ndarray:
        """``seconds`` by operation, as ``sample`` has them: float64[n].

        ``ids`` and ``lanes`` are as `jittered` has them; ``ranks`` are those whose compute it is, -1 none.
        """
        drawn = jittered(seconds, self.cv, self.seed, sample, ids=ids, lanes=lanes) if self.cv else seconds
        if self.slow is None or ranks is None:
            return drawn
        slow = self.slow if self.slow.ndim == 1 else self.slow[self.samples.index(sample)]
        return np.where(ranks >= 0, drawn * slow[ranks], drawn)


def jittered(
    durations: Sequence[float] | np.ndarray,
    cv: float,
    seed: int,
    sample: int,
    *,
    ids: np.ndarray | None = None,
    lanes: np.ndarray | int = 0,
) -> np.ndarray:
    """``durations`` (seconds, by operation) times lognormal factors of mean 1, as float64[n].

    ``cv`` is the factors' coefficient of variation; 0 leaves every duration as it is. ``sample`` numbers the
    samples of one ``seed``. ``ids`` and ``lanes`` say which operation on which lane each duration is of;
    without them they are operations 0, 1, 2 … on lane 0.

    Raises:
        InputError: ``cv`` is negative or not finite.
    """
    table = lognormal_quantiles(cv)
    seconds = np.asarray(durations, dtype=np.float64)
    own = np.arange(len(seconds)) if ids is None else ids
    keys = operation_keys(own.astype(np.uint64), sample_key(seed, sample))
    counters = (np.atleast_1d(lanes).astype(np.uint64) + np.uint64(1)) * np.uint64(GAMMA)
    return seconds * table[splitmix64(keys + counters) >> np.uint64(QUANTILE_SHIFT)]


@cache
def lognormal_quantiles(cv: float) -> np.ndarray:
    """The middles of `QUANTILES` equally likely slices of a lognormal, rising, of mean 1 and spread ``cv``.

    The logarithm's spread is widened by the little that taking middles loses.

    Raises:
        InputError: ``cv`` is negative or not finite.
    """
    if not (math.isfinite(cv) and cv >= 0.0):
        raise InputError(f"coefficient of variation is {cv!r}; expected a finite number, at least 0")
    # exp(normal(0, s)) has coefficient of variation sqrt(exp(s^2) - 1)
    values = np.exp(math.sqrt(math.log1p(cv * cv)) * _normal_quantiles())
    table = np.round(values / values.mean() * _GRID) / _GRID
    table.setflags(write=False)
    return table


@cache
def _normal_quantiles() -> np.ndarray:
    """The middles of `QUANTILES` equally likely slices of a normal, scaled to variance 1."""
    normal = NormalDist()
    below = np.array([normal.inv_cdf((i + 0.5) / QUANTILES) for i in range(QUANTILES // 2)])
    both = np.concatenate([below, -below[::-1]])
    return both / both.std()


def sample_key(seed: int, sample: int) -> int:
    """Where the stream of a (seed, sample) begins; negative and large seeds are taken modulo 2^64."""
    words = np.array([seed & _MASK], dtype=np.uint64)
    return int(splitmix64(splitmix64(words) + np.uint64(sample * GAMMA & _MASK))[0])


def operation_keys(ids: np.ndarray, key: int | np.ndarray) -> np.ndarray:
    """Where the streams of operations ``ids`` (uint64) begin, in the sample that begins at ``key``."""
    return splitmix64(np.asarray(key, dtype=np.uint64) + (ids + np.uint64(1)) * np.uint64(GAMMA))


def splitmix64(state: np.ndarray) -> np.ndarray:
    """The finaliser: scramble uint64 words, one by one (all arithmetic is modulo 2^64)."""
    z = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
