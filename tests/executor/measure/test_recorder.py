"""Marks of ranks become spans whose transfers begin when the last member has arrived."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from traincast.executor.measure.recorder import Mark, align_spans


def mark(rank, action, issued, end, key="", stream="pp", channel="c", size=8.0):
    return Mark(rank, stream, action, 0, 0, 0, issued, end, size, key, channel)


def spans(*marks):
    return {(s.rank, s.action): (s.start, s.end) for s in align_spans(marks)}


def test_compute_is_as_marked():
    assert spans(mark(0, "0F0", 1.0, 3.0, stream="compute")) == {(0, "0F0"): (1.0, 3.0)}


def test_a_message_is_one_span_on_both_sides():
    """Posted at 1, sent at 4, there at 5."""
    found = spans(mark(0, "0SEND_F0", 4.0, None, "m"), mark(1, "1RECV_F0", 1.0, 5.0, "m"))
    assert found == {(0, "0SEND_F0"): (4.0, 5.0), (1, "1RECV_F0"): (4.0, 5.0)}


def test_a_collective_begins_with_its_last_member_and_ends_for_each():
    found = spans(
        mark(0, "0REDUCE_GRAD0", 1.0, 6.0, "r", "dp"), mark(1, "0REDUCE_GRAD0", 3.0, 7.0, "r", "dp")
    )
    assert found == {(0, "0REDUCE_GRAD0"): (3.0, 6.0), (1, "0REDUCE_GRAD0"): (3.0, 7.0)}


def test_messages_of_a_channel_follow_each_other():
    """Issued together, but the second begins when the first is through."""
    found = spans(
        mark(0, "0SEND_F0", 1.0, None, "a"),
        mark(0, "0SEND_F1", 1.5, None, "b"),
        mark(1, "1RECV_F0", 0.0, 4.0, "a"),
        mark(1, "1RECV_F1", 0.0, 5.0, "b"),
    )
    assert found[1, "1RECV_F1"] == (4.0, 5.0)


def test_a_message_nobody_waited_for_is_as_long_as_the_others():
    found = spans(
        mark(0, "0SEND_F0", 1.0, None, "a"),
        mark(1, "1RECV_F0", 0.0, 3.0, "a"),
        mark(0, "0SEND_F1", 10.0, None, "b"),
        mark(1, "1RECV_F1", 0.0, None, "b"),
    )
    assert found[0, "0SEND_F1"] == (10.0, 12.0)
