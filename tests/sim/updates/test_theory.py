"""What is known of update protocols in closed form comes out of the engine."""

from __future__ import annotations

import math

import numpy as np
import pytest

from traincast.sim.network.algorithms import collective_s
from traincast.sim.updates.engine import run_updates
from traincast.sim.updates.model import UpdateModel


def exchange_s(n: int, servers: int, size: float, chunks: int = 1) -> float:
    """Seconds in which ``n`` workers push and pull ``size`` bytes, over links of 1 byte/s each direction."""
    shards = servers * chunks
    model = UpdateModel(
        synchrony="sync",
        compute_s=np.zeros((n, 3)),
        shard_bytes=[size / shards] * shards,
        apply_s=[0.0] * shards,
        servers=servers,
        bandwidth=[1.0] * (n + servers),
    )
    return run_updates(model).step_time_s


@pytest.mark.parametrize("n", [2, 3, 8])
def test_asynchronous_gradients_of_equal_workers_are_stale_by_the_others(n):
    """Mean staleness is n - 1, exactly, once each has read what the others made in between."""
    model = UpdateModel(
        synchrony="async",
        compute_s=np.ones((n, 20)),
        shard_bytes=[0.0],
        apply_s=[1e-3],
        bandwidth=[1.0] * (n + 1),
    )
    stale = run_updates(model).staleness
    assert stale[:n].tolist() == list(range(n))
    assert set(stale[n:].tolist()) == {n - 1}


def test_mean_staleness_is_the_others_whatever_their_speeds():
    """Each update of one is between a read and an update of every other: the mean over all is n - 1.

    A worker of rate r sees (R - r)/r updates of the others; weighted by its r/R these add up to n - 1.
    """
    compute = np.random.default_rng(2).lognormal(0, 0.3, (5, 4000)) * np.array([[1], [1], [2], [3], [5]])
    model = UpdateModel(
        synchrony="async", compute_s=compute, shard_bytes=[0.0], apply_s=[1e-4], bandwidth=[1.0] * 6
    )
    record = run_updates(model)
    until = record.applied_s[:, -1, 0].min()
    together = int(np.count_nonzero(record.applied_s <= until))
    assert record.staleness[:together].mean() == pytest.approx(4.0, rel=0.01)


@pytest.mark.parametrize("n", [4, 8])
def test_sharded_servers_are_worth_an_all_reduce_where_theory_says(n):
    """Ring all-reduce: 2(n-1)/n G/B. Servers apart, in chunks: pushes of one chunk and pulls of another pass
    each other on duplex links, so a server's interface is busy for n G/(S B), a worker's for G/B.

    They are equal at S = n²/(2(n-1)), about half as many servers as workers (Jiang et al. 2020, BytePS,
    section 2). With whole shards one worker's push waits for its own pull, and the last one's comes after
    all the others: (n + 1) G/B with one server, 2 G/B with n, which never comes to the ring's.
    """
    size = 240.0
    ring = collective_s("all_reduce", size, n, 1.0, 0.0, algorithm="ring")
    assert ring == pytest.approx(2 * (n - 1) / n * size)
    for servers in range(2, n + 1):
        assert exchange_s(n, servers, size, chunks=32) == pytest.approx(n / servers * size, rel=0.04)
    half = n * n / (2 * (n - 1))
    assert exchange_s(n, math.floor(half), size, chunks=32) > ring
    assert exchange_s(n, math.ceil(half), size, chunks=32) < ring
    assert exchange_s(n, 1, size) == pytest.approx((n + 1) * size)
    assert exchange_s(n, n, size) == pytest.approx(2 * size)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_a_server_with_many_rare_clients_is_an_md1_queue(load):
    """Poisson arrivals, constant service 1/μ: mean wait ρ/(2μ(1-ρ)) (Pollaczek 1930, Khinchine 1932).

    Many workers that each compute for exponentially long are nearly a Poisson source.
    """
    n, rounds, service = 1500, 60, 1.0
    arrivals = np.random.default_rng(4)
    compute = arrivals.exponential(n * service / load, (n, rounds))
    model = UpdateModel(
        synchrony="async",
        compute_s=compute,
        shard_bytes=[0.0],
        apply_s=[service],
        bandwidth=[1.0] * (n + 1),
    )
    record = run_updates(model)
    until = record.applied_s[:, -1, 0].min()
    counted = record.applied_s[:, :, 0] <= until
    waits = (record.apply_start_s - record.push_end_s)[:, :, 0][counted]
    assert waits.mean() == pytest.approx(load / (2 * (1 - load)) * service, rel=0.1)


@pytest.mark.parametrize("backup", [0, 1, 3])
def test_a_step_with_backup_workers_takes_an_order_statistic(backup):
    """The (n-b)-th of n exponential times has mean Σ 1/i, i from b+1 to n (Rényi 1953).

    Late workers begin again with what is left of their memoryless time, so steps do not depend on each
    other (Chen et al. 2016, section 3.2).
    """
    n, steps = 8, 3000
    compute = np.random.default_rng(9).exponential(1.0, (n, steps))
    model = UpdateModel(
        synchrony=f"backup:{backup}" if backup else "sync",
        compute_s=compute,
        shard_bytes=[0.0],
        apply_s=[0.0],
        bandwidth=[1.0] * (n + 1),
    )
    record = run_updates(model)
    fresh = sum(1 / i for i in range(backup + 1, n + 1))
    if not backup:
        assert record.step_time_s == pytest.approx(fresh, rel=0.03)
        return
    # A late worker is still at its old gradient, so a step waits for at least the fresh order statistic.
    everyone = sum(1 / i for i in range(1, n + 1))
    assert fresh * 0.97 < record.step_time_s < everyone
    counted = np.count_nonzero(record.place[:, :, 0] >= 0)
    assert counted == steps * (n - backup)


def test_backup_workers_cut_the_tail_where_stragglers_are_rare():
    """One worker in a hundred steps is ten times slower: with one to spare, a step waits for it when two are.

    P(at least one of 16) = 1 - 0.99^16 = 14.9 %; so a synchronous step takes 1 + 9 × 0.149 = 2.34.
    """
    n, steps = 16, 4000
    compute = np.where(np.random.default_rng(3).random((n, steps)) < 0.01, 10.0, 1.0)
    common = {"compute_s": compute, "shard_bytes": [0.0], "apply_s": [0.0], "bandwidth": [1.0] * (n + 1)}
    sync, spare = (run_updates(UpdateModel(synchrony=s, **common)).step_time_s for s in ("sync", "backup:1"))
    assert sync == pytest.approx(1 + 9 * (1 - 0.99**n), rel=0.05)
    assert spare < 0.75 * sync


@pytest.mark.parametrize("servers", [1, 4])
def test_incast_queues_at_the_server_and_shards_relieve_it(servers):
    """Eight workers pull one second's worth each: from one server in eight seconds, from four in two."""
    model = UpdateModel(
        synchrony="sync",
        compute_s=np.full((8, 1), 100.0),
        shard_bytes=[1.0 / servers] * servers,
        apply_s=[0.0] * servers,
        servers=servers,
        bandwidth=[1.0] * (8 + servers),
    )
    record = run_updates(model)
    assert record.pull_end_s[:, 0].max() == pytest.approx(8 / servers)
    assert record.in_busy_s[8:].tolist() == pytest.approx([8 / servers] * servers)


@pytest.mark.parametrize("replication", ["chain", "all"])
def test_replicas_are_written_before_anybody_reads(replication):
    """One worker, three holders, messages of 4 s, latency 0.1 s, updates of 1 s.

    A chain takes two messages and two updates more, one after the other; all at once, the second message
    waits for the first at the sender, and its update is the last. Then a latency of confirmation.
    """
    common = {
        "compute_s": np.zeros((1, 2)),
        "shard_bytes": [4.0],
        "apply_s": [1.0],
        "servers": 3,
        "bandwidth": [1.0] * 4,
        "latency_s": 0.1,
    }
    record = run_updates(UpdateModel(synchrony="sync", replicas=3, replication=replication, **common))
    extra = record.read_s[0, 1, 0] - record.applied_s[0, 0, 0]
    messages = {"chain": 2 * (4.0 + 0.1 + 1.0), "all": 2 * 4.0 + 0.1 + 1.0}[replication]
    assert extra == pytest.approx(messages + 0.1)


def test_colocated_servers_share_their_workers_interface():
    """n servers at n workers exchange (n-1)/n of all bytes each way, as a ring does."""
    n, size = 4, 40.0
    model = UpdateModel(
        synchrony="sync",
        compute_s=np.zeros((n, 3)),
        shard_bytes=[size / n] * n,
        apply_s=[0.0] * n,
        servers=n,
        colocated=True,
        bandwidth=[1.0] * n,
    )
    assert run_updates(model).step_time_s == pytest.approx(2 * (n - 1) / n * size)
