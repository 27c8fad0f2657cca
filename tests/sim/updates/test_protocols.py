"""What sets the update protocols apart, and which of them a model can have."""

from __future__ import annotations

import pytest

from traincast.sim.updates.protocols import Protocol, protocol_faults, read_protocol


@pytest.mark.parametrize(
    ("synchrony", "joint", "local_steps", "needed", "bound"),
    [
        ("sync", True, 1, 4, 10),
        ("backup:1", True, 1, 3, 10),
        ("local:8", True, 8, 4, 10),
        ("async", False, 1, 4, 10),
        ("stale:2", False, 1, 4, 2),
    ],
)
def test_protocols_differ_in_what_they_say(synchrony, joint, local_steps, needed, bound):
    """For 4 workers and 10 rounds."""
    protocol = read_protocol(synchrony)
    assert (protocol.joint, protocol.local_steps) == (joint, local_steps)
    assert (protocol.needed(4), protocol.bound(10)) == (needed, bound)


def test_a_name_and_its_number_are_read():
    assert read_protocol("stale:2") == Protocol("stale", 2)
    assert read_protocol("sync") == Protocol("sync", 0)
    assert read_protocol("gossip") == Protocol("gossip", 0)


@pytest.mark.parametrize(
    ("synchrony", "expected"),
    [
        ("gossip", "sync | async | stale:K | backup:B | local:H"),
        ("stale", "sync | async | stale:K | backup:B | local:H"),
        ("backup:4", "fewer backup workers than the 4 workers"),
        ("local:0", "1 to 10 local steps, the gradients given"),
        ("local:11", "1 to 10 local steps, the gradients given"),
    ],
)
def test_what_a_model_cannot_have_is_named(synchrony, expected):
    """With 4 workers of 10 gradients each."""
    (fault,) = protocol_faults(synchrony, 4, 10)
    assert (fault.path, fault.found, fault.expected) == ("synchrony", synchrony, expected)


@pytest.mark.parametrize("synchrony", ["sync", "async", "stale:0", "backup:3", "local:10"])
def test_what_a_model_can_have_is_accepted(synchrony):
    assert protocol_faults(synchrony, 4, 10) == []
