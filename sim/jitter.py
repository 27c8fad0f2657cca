"""Luck that can be repeated: lognormal factors from a counter-based generator.

A factor depends on (seed, lane, operation) alone, so it does not matter how many others are drawn, or in
which order, and any sample can be drawn again by itself. The generator is splitmix64 (Steele, Lea and Flood
2014, "Fast splittable pseudorandom number generators"), whose n-th output is a function of seed + n * gamma.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .errors import InputError

GAMMA = 0x9E3779B97F4A7C15
"""splitmix64's increment: 2^64 over the golden ratio, odd."""

_MASK = (1 << 64) - 1


def jittered(durations: Sequence[float] | np.ndarray, cv: float, seed: int, lane: int) -> np.ndarray:
    """``durations`` (seconds, by operation id) times lognormal factors of mean 1, as float64[n].

    ``cv`` is the factors' coefficient of variation; 0 leaves every duration as it is. ``lane`` numbers the
    samples of one ``seed``.

    Raises:
        InputError: ``cv`` is negative or not finite.
    """
    if not (math.isfinite(cv) and cv >= 0.0):
        raise InputError(f"coefficient of variation is {cv!r}; expected a finite number, at least 0")
    seconds = np.asarray(durations, dtype=np.float64)
    # exp(normal(-s^2/2, s)) has mean 1 and coefficient of variation sqrt(exp(s^2) - 1)
    sigma = math.sqrt(math.log1p(cv * cv))
    normals = _normals(np.arange(len(seconds), dtype=np.uint64), _key(seed, lane))
    return seconds * np.exp(sigma * normals - 0.5 * sigma * sigma)


def _normals(ids: np.ndarray, key: int) -> np.ndarray:
    """A standard normal for each id: outputs 2 id and 2 id + 1 of the stream, by Box and Muller (1958)."""
    radius = np.sqrt(-2.0 * np.log(_uniforms(2 * ids, key)))
    return radius * np.cos(2.0 * math.pi * _uniforms(2 * ids + np.uint64(1), key))


def _uniforms(counters: np.ndarray, key: int) -> np.ndarray:
    """Numbers in (0, 1], from the upper 53 bits."""
    bits = splitmix64(np.uint64(key) + (counters + np.uint64(1)) * np.uint64(GAMMA))
    return ((bits >> np.uint64(11)) + np.uint64(1)) * 2.0**-53


def _key(seed: int, lane: int) -> int:
    """Where the stream of a (seed, lane) begins; negative and large seeds are taken modulo 2^64."""
    words = np.array([seed & _MASK], dtype=np.uint64)
    return int(splitmix64(splitmix64(words) + np.uint64(lane * GAMMA & _MASK))[0])


def splitmix64(state: np.ndarray) -> np.ndarray:
    """The finaliser: scramble uint64 words, one by one (all arithmetic is modulo 2^64)."""
    z = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
