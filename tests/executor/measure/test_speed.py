"""The speed probe is the same work each time, and ranks take it between the same walks."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from ranks import run_ranks  # noqa: E402

from traincast.executor.measure.speed import EVERY_S, SpeedProbe, SpeedWatch  # noqa: E402


def test_the_probe_says_what_its_clock_says():
    """Two readings, before and after; what it computes stays finite however often it does."""
    probe, ticks = SpeedProbe(), iter(range(100))
    assert [probe(lambda: float(next(ticks))) for _ in range(3)] == [1.0, 1.0, 1.0]
    assert probe() > 0.0
    assert all(torch.isfinite(stream).all() for stream in probe._streams)
    assert all(weight.grad is None for weight in probe._weights)


def probed(walk_s: list[float], rank: int) -> list[int]:
    """Probes of a rank before each of twelve walks, the first two of warm-up, each of so many seconds."""
    watch, found = SpeedWatch(), []
    for walk in range(12):
        if walk == 2:
            watch.agree(walk_s[rank])
        before = len(watch.seconds)
        watch.look(walk)
        found.append(len(watch.seconds) - before)
    return found


def both(rank: int) -> tuple[list[int], list[int]]:
    return probed([EVERY_S / 3, 10.0], rank), probed([10.0, EVERY_S / 3], rank)


def test_all_ranks_probe_before_the_same_walks():
    """As often as the first rank's walks make it worth, whatever the others' take."""
    short, long = zip(*run_ranks(2, both), strict=True)
    assert short[0] == short[1] == [1, 1, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0]
    assert long[0] == long[1] == [1] * 12
