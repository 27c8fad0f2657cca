"""Garbage collection is off inside, and afterwards as it was."""

from __future__ import annotations

import gc

import pytest

from traincast.sim.gc_pause import no_garbage_collection


def _fails_inside(seen: list[bool]) -> None:
    with no_garbage_collection():
        seen.append(gc.isenabled())
        _ = 1 / 0


def test_it_is_off_inside_and_on_again_after():
    """Even where what is inside fails."""
    assert gc.isenabled()
    inside = []
    with pytest.raises(ZeroDivisionError):
        _fails_inside(inside)
    assert inside == [False]
    assert gc.isenabled()


def test_it_stays_off_where_it_was_off():
    """Whoever turned it off turns it on."""
    gc.disable()
    try:
        with no_garbage_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
