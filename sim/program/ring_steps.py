"""Collectives step by step: every member with its own ready time and its own seconds for a step.

A step of a member begins when the member itself and the one that it hears from have ended the step before,
and takes the member's own seconds:

    end of step k of r = max(end of step k-1 of r, end of step k-1 of source(k, r)) + seconds of step k of r

with the ready times as ends before step 0. In a ring the source is always the left neighbour, r - 1 (modulo
n); in halving and doubling it is the partner, r with one bit turned over. A late member so delays the
others only as its lateness travels, which one duration for all cannot show.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from ..jit import compiled as compile_kernel
from ..jit import worthwhile
from .checks import refuse_bad_seconds

PATTERNS = ("", "ring", "half_ring", "halving_doubling")
"""No pattern is one common start; an all-reduce round a ring; a reduce-scatter or all-gather round a ring; an
all-reduce by recursive halving and doubling. An operation's place here is its number in arrays."""

COMPILE_FROM, LOADED_FROM = 500_000_000, 100_000
"""Member-steps from which numba pays, if it must be loaded and if it was: numpy makes about 1e9 a second."""


def ring_all_reduce_ends(
    ready: Sequence[float] | np.ndarray, step_s: float | np.ndarray, *, compiled: bool | None = None
) -> np.ndarray:
    """When each of n members has the sum, in seconds: float64[n].

    ``ready`` are the members' ready times, ``step_s`` the seconds of a step, one for all or one for each.
    Reduce-scatter, then all-gather: 2(n-1) steps of size/n each (Patarasuk and Yuan 2009); a member's step
    begins when it and its left neighbour have ended the step before. ``compiled`` says whether numba runs it;
    without it the amount of work decides.

    Raises:
        InputError: no members, or seconds that are negative or not finite.
    """
    begin = _seconds(ready, "ready time")
    return _ring(begin, _per_member(step_s, len(begin)), 2 * (len(begin) - 1), compiled)


def halving_doubling_ends(ready: Sequence[float] | np.ndarray, step_s: Sequence[float]) -> np.ndarray:
    """When each of n members has the sum, in seconds: float64[n].

    ``step_s`` are the seconds of the 2 log2(n) steps, the same for all members: halving exchanges size/2,
    size/4 … size/n with the partner whose number differs in the highest, next … lowest bit, doubling goes
    the way back (Rabenseifner 2004; Thakur et al. 2005, section 4.4).

    Raises:
        InputError: n is no power of two, another number of steps, or seconds that are none.
    """
    begin = _seconds(ready, "ready time")
    steps = _seconds(step_s, "seconds of step", least=0)
    bits = partners(len(begin))
    if len(steps) != len(bits):
        raise InputError(
            f"{len(steps)} steps; halving and doubling over {len(begin)} members has {len(bits)}"
        )
    return _exchange(begin, bits, steps)


def pattern_ends(pattern: str, ready: np.ndarray, step_s: np.ndarray) -> np.ndarray:
    """When each of n members ends, float64[n], whose ready times are ``ready``.

    ``step_s`` are the seconds of each step by member, float64[steps, n]; round a ring all steps are alike, so
    only the first row counts.
    """
    if len(ready) == 1:
        return np.array(ready)
    if pattern == "halving_doubling":
        return _exchange(ready, partners(len(ready)), step_s)
    return _ring(ready, step_s[0], len(step_shares(pattern, len(ready))))


def step_shares(pattern: str, members: int) -> np.ndarray:
    """What share of an operation's seconds each of its steps takes; none for a single member.

    By the bytes that a step moves: equal parts round a ring, 1/2, 1/4 … and back for halving and doubling.

    Raises:
        InputError: the pattern is unknown, or the number of members is none that it can serve.
    """
    if pattern not in PATTERNS[1:]:
        raise InputError(f"pattern {pattern!r} is unknown; expected {' | '.join(PATTERNS[1:])}")
    if pattern == "halving_doubling":
        halves = [bit / members for bit in partners(members)]
        return np.array(halves) / sum(halves) if halves else np.zeros(0)
    steps = (2 if pattern == "ring" else 1) * (members - 1)
    return np.full(steps, 1 / steps if steps else 0.0)


def step_sources(pattern: str, members: int, step: int) -> np.ndarray:
    """Whom each member hears from in ``step`` (its steps wait for that one's step before): int64[members]."""
    own = np.arange(members)
    return own ^ partners(members)[step] if pattern == "halving_doubling" else (own - 1) % members


def partners(members: int) -> list[int]:
    """The bit in which partners differ, by step of halving and doubling."""
    if members < 1 or members & (members - 1):
        raise InputError(f"halving and doubling needs a power of two members; there are {members}")
    down = [members >> (step + 1) for step in range(members.bit_length() - 1)]
    return down + down[::-1]


def _ring(ready: np.ndarray, step_s: np.ndarray, steps: int, compiled: bool | None = None) -> np.ndarray:
    """Ends after ``steps`` steps round the ring. Place 0 of the work arrays repeats the last member."""
    count = len(ready)
    now, after = np.empty(count + 1), np.empty(count + 1)
    now[1:] = ready
    if compiled is None:
        compiled = worthwhile(ring_kernel, count * steps, COMPILE_FROM, LOADED_FROM)
    return (compile_kernel(ring_kernel) if compiled else _ring_rows)(now, after, step_s, steps)[1:].copy()


def ring_kernel(now: Any, after: Any, step_s: Any, steps: int) -> Any:
    """``now`` holds the ready times from place 1 on; gives the array that holds the ends. For numba."""
    for _ in range(steps):
        now[0] = now[len(step_s)]
        for r in range(len(step_s)):
            left, own = now[r], now[r + 1]
            after[r + 1] = (left if left > own else own) + step_s[r]
        now, after = after, now
    return now


def _ring_rows(now: np.ndarray, after: np.ndarray, step_s: np.ndarray, steps: int) -> np.ndarray:
    """`ring_kernel` on whole rows, which numpy runs five times as slowly as numba the loops."""
    for _ in range(steps):
        now[0] = now[-1]
        np.maximum(now[1:], now[:-1], out=after[1:])
        after[1:] += step_s
        now, after = after, now
    return now


def _exchange(ready: np.ndarray, bits: list[int], step_s: np.ndarray) -> np.ndarray:
    """Ends after one exchange for each of ``bits``, which take the seconds of ``step_s``, by step."""
    own, ends = np.arange(len(ready)), np.array(ready)
    for bit, seconds in zip(bits, step_s, strict=True):
        ends = np.maximum(ends, ends[own ^ bit]) + seconds
    return ends


def _per_member(step_s: float | np.ndarray, members: int) -> np.ndarray:
    seconds = _seconds(np.broadcast_to(np.asarray(step_s, dtype=np.float64), (members,)), "seconds of step")
    return np.ascontiguousarray(seconds)


def _seconds(values: Sequence[float] | np.ndarray, what: str, least: int = 1) -> np.ndarray:
    seconds = np.asarray(values, dtype=np.float64)
    if len(seconds) < least:
        raise InputError("a collective without members")
    refuse_bad_seconds(seconds, f"{what} of")
    return seconds
