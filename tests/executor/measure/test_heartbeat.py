"""A heartbeat says how far a rank is and whether it waits, and is never half written."""

from __future__ import annotations

from traincast.executor.measure.heartbeat import NOT_STARTED, Beat, Heartbeat, read_beat


def test_a_rank_that_has_said_nothing_has_not_started(tmp_path):
    assert read_beat(tmp_path / "none") == Beat(NOT_STARTED, False)


def test_steps_and_waits_are_read_back(tmp_path):
    path = tmp_path / "beat"
    beat = Heartbeat(path)
    said = [read_beat(path)]
    beat.ended(9)
    said.append(read_beat(path))
    with beat.waiting():
        said.append(read_beat(path))
    beat.ended(1_000_000)
    said.append(read_beat(path))
    assert said == [Beat(-1, False), Beat(9, False), Beat(9, True), Beat(1_000_000, False)]


def test_a_server_waits_once_all_its_threads_do(tmp_path):
    path = tmp_path / "beat"
    beat = Heartbeat(path, parties=2)
    with beat.waiting():
        one = read_beat(path).waits
        with beat.waiting():
            both = read_beat(path).waits
    assert (one, both, read_beat(path).waits) == (False, True, False)
