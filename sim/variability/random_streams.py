"""Uniform numbers for whatever is drawn once a run: who is slow in a step, when something fails.

A number depends on (seed, sample, stream, counter) alone, by the generator of `jitter.py`. Its streams begin
where no operation of a program is numbered, so jitter and failures of one seed share nothing.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from .jitter import GAMMA, sample_key, splitmix64


class Stream(IntEnum):
    """What a stream of numbers is for. The values are part of what a seed means: never change one."""

    TRANSIENT_CHANCE = 1 << 63
    TRANSIENT_FACTOR = (1 << 63) + 1
    ACCELERATOR_FAILURES = (1 << 63) + 2
    NODE_FAILURES = (1 << 63) + 3
    SWITCH_FAILURES = (1 << 63) + 4
    SOFTWARE_FAILURES = (1 << 63) + 5
    PACE = (1 << 63) + 6


def uniforms(stream: Stream, seed: int, samples: int | np.ndarray, counters: np.ndarray) -> np.ndarray:
    """Numbers in (0, 1], float64[counters] of one sample, float64[samples, counters] of an array of them.

    ``counters`` are whole numbers from 0; negative and large seeds are taken modulo 2^64.
    """
    keys = np.array([sample_key(seed, int(sample)) for sample in np.atleast_1d(samples)], dtype=np.uint64)
    begins = splitmix64(keys + np.uint64(((int(stream) + 1) * GAMMA) & ((1 << 64) - 1)))
    bits = splitmix64(begins[:, None] + (counters.astype(np.uint64) + np.uint64(1)) * np.uint64(GAMMA))
    numbers = ((bits >> np.uint64(11)) + np.uint64(1)) * 2.0**-53
    return numbers[0] if np.ndim(samples) == 0 else numbers
