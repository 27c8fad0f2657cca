"""Who may go on under each protocol, played without time by drawn orders of events."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traincast.executor.servers.ledger import Ledger, Member
from traincast.sim.plan.strategy import Strategy
from traincast.sim.updates.engine import run_updates
from traincast.sim.updates.model import UpdateModel


def ledger(synchrony: str, workers: int, rounds: int) -> Ledger:
    servers = {"gradient_exchange": "parameter_server", "servers": 1}
    return Ledger.of(Strategy(dp=workers, synchrony=synchrony, **servers), rounds)


def made(one: Ledger, worker: int, step: int | None = None) -> list[tuple[int, int]]:
    """A worker's gradient, made for what it read, arrives and is applied by all holders at once; who may go
    on."""
    members = one.arrive(worker, one.reads[worker][-1] if step is None else step)
    if members:
        one.apply(members)
        one.confirm(members)
    return one.due()


def test_synchronous_workers_wait_for_each_other():
    one = ledger("sync", 2, 2)
    assert one.due() == [(0, 0), (1, 0)]
    assert made(one, 1) == []
    assert made(one, 0) == [(0, 1), (1, 1)]
    assert made(one, 0) == []
    assert made(one, 1) == [(0, 2), (1, 2)]
    assert one.updates == [[Member(1, 0), Member(0, 0)], [Member(0, 1), Member(1, 1)]]
    assert (one.staleness, one.dropped, one.done) == ([0] * 4, 0, 2)


def test_asynchronous_workers_wait_for_nobody():
    one = ledger("async", 2, 3)
    one.due()
    assert [made(one, 0) for _ in range(3)] == [[(0, 1)], [(0, 2)], [(0, 3)]]
    assert made(one, 1) == [(1, 4)]
    assert one.staleness == [0, 0, 0, 3]
    assert one.reads == [[0, 1, 2, 3], [0, 4]]


def test_stale_workers_are_at_most_so_many_rounds_ahead():
    one = ledger("stale:1", 2, 4)
    one.due()
    assert made(one, 0) == [(0, 1)]
    assert made(one, 0) == []  # its third round would be two ahead of the other's first
    assert made(one, 1) == [(0, 3), (1, 3)]


def test_late_gradients_are_dropped_and_their_workers_go_on():
    one = ledger("backup:1", 3, 2)
    one.due()
    assert made(one, 0) == []
    assert made(one, 1) == [(0, 1), (1, 1)]
    assert made(one, 2) == [(2, 1)]
    assert (one.dropped, one.updates) == (1, [[Member(0, 0), Member(1, 0)]])
    made(one, 2)
    assert made(one, 1) == [(1, 2), (2, 2)]
    assert made(one, 0) == [(0, 2)]


def test_a_portion_that_is_ahead_waits_for_the_others():
    """A worker that read an older version elsewhere makes its gradient for that one: here it is dropped, and
    it goes on at once with what it has."""
    one = ledger("backup:1", 2, 3)
    one.due()
    assert made(one, 0) == [(0, 1)]
    assert made(one, 1) == [(1, 1)]
    assert made(one, 1, step=0) == [(1, 1)]
    assert one.closed == 1


def test_an_update_is_read_once_all_holders_have_it():
    one = ledger("sync", 1, 3)
    one.due()
    members = one.arrive(0, 0)
    one.apply(members)
    assert one.due() == []
    one.confirm(members)
    assert one.due() == [(0, 1)]


PROTOCOLS = ("sync", "async", "stale:0", "stale:1", "stale:2", "backup:1", "local:1")


@given(st.sampled_from(PROTOCOLS), st.integers(2, 4), st.integers(1, 4), st.randoms(use_true_random=False))
def test_whatever_the_order_every_round_is_made(synchrony, workers, rounds, random):
    """Every worker computes to the end, and nobody is left waiting."""
    one = ledger(synchrony, workers, rounds)
    computing, ended = {worker for worker, _ in one.due()}, set()
    while computing:
        worker = random.choice(sorted(computing))
        computing.discard(worker)
        for other, version in made(one, worker):
            turn = len(one.reads[other]) - 1
            (ended if (version if one.joint else turn) == rounds else computing).add(other)
    assert ended == set(range(workers))
    assert one.done == rounds
    assert len(one.updates) == (rounds if one.joint else rounds * workers)
    assert all(len(members) == (one.needed if one.joint else 1) for members in one.updates)
    if synchrony != "async" and not one.joint:
        bound = int(synchrony[-1])
        assert max(one.staleness) <= (workers - 1) * (2 * bound + 1)


@pytest.mark.parametrize("synchrony", PROTOCOLS)
def test_the_simulator_decides_alike(synchrony):
    """Fed with the gradients in the order in which they arrive there, it answers in the same order, and every
    gradient is computed on the same version and part of the same update."""
    workers, rounds = 3, 6
    model = UpdateModel(
        synchrony=synchrony,
        compute_s=np.random.default_rng(5).uniform(0.5, 2.0, (workers, rounds)),
        shard_bytes=[0.0],
        apply_s=[0.01],
        bandwidth=[1.0] * (workers + 1),
    )
    record = run_updates(model)
    one = ledger(synchrony, workers, rounds)
    one.due()
    arrivals = sorted(
        (record.push_end_s[w, t, 0], w, t)
        for w in range(workers)
        for t in range(rounds)
        if not np.isnan(record.push_end_s[w, t, 0])
    )
    for _, worker, turn in arrivals:
        assert len(one.reads[worker]) == turn + 1
        made(one, worker, int(record.version[worker, turn, 0]) if one.joint else turn)
    for worker, reads in enumerate(one.reads):
        known = record.version[worker, :, 0]
        assert reads[: len(known)] == known[known >= 0].tolist()
    found = {tuple(m): place for place, members in enumerate(one.updates) for m in members}
    assert found == {
        (w, t): int(record.place[w, t, 0])
        for w in range(workers)
        for t in range(rounds)
        if record.place[w, t, 0] >= 0
    }
    assert one.staleness == record.staleness.tolist() or one.joint
    assert one.dropped == record.dropped
