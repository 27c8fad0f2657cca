"""Both update engines keep one contract, to the last bit; and what every protocol promises holds."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traincast.sim.errors import InputError
from traincast.sim.updates import engine_compiled
from traincast.sim.updates.engine import run_updates
from traincast.sim.updates.model import UpdateModel
from traincast.sim.updates.record import UpdateRecord

TICKS = st.sampled_from([0.0, 0.25, 0.5, 1.0, 1.0, 2.0, 0.1, 1 / 3])
"""Few and round, so that many things happen at one moment; two are not exact in binary."""


@st.composite
def models(
    draw: st.DrawFn,
    synchronies: tuple[str, ...] = ("sync", "async", "stale", "backup", "local"),
    hosts: bool = True,
):
    """Any protocol with servers, with ties; with ``hosts`` also on cores that places share."""
    workers, gradients = draw(st.integers(2, 4)), draw(st.integers(1, 5))
    servers, shards = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    colocated = servers <= workers and draw(st.booleans())
    name = draw(st.sampled_from(synchronies))
    most = {"stale": 3, "backup": workers - 1, "local": gradients}.get(name, 0)
    least = 0 if name == "stale" else 1
    interfaces = draw(st.integers(1, workers + servers))
    placed = draw(st.booleans())
    shared, measured = hosts and draw(st.booleans()), hosts and draw(st.booleans())
    cores = draw(st.integers(1, workers + servers))
    numbers = st.integers(0, interfaces - 1)
    parts = sorted(draw(st.lists(st.sampled_from([0.25, 0.5, 0.7, 1.0]), min_size=shards, max_size=shards)))
    in_parts, held = name != "local" and draw(st.booleans()), st.integers(0, servers - 1)
    return UpdateModel(
        synchrony=f"{name}:{draw(st.integers(least, most))}" if most else name,
        compute_s=np.array(
            draw(st.lists(TICKS, min_size=workers * gradients, max_size=workers * gradients))
        ).reshape(workers, gradients),
        shard_bytes=draw(st.lists(TICKS, min_size=shards, max_size=shards)),
        apply_s=draw(st.lists(TICKS, min_size=shards, max_size=shards)),
        servers=servers,
        ready=[*parts[:-1], 1.0] if in_parts else (),
        shard_server=draw(st.lists(held, min_size=shards, max_size=shards)) if in_parts else (),
        replicas=draw(st.integers(1, servers)),
        replication=draw(st.sampled_from(["chain", "all"])),
        colocated=colocated,
        shared_processor=draw(st.booleans()),
        worker_interface=draw(st.lists(numbers, min_size=workers, max_size=workers)) if placed else (),
        server_interface=draw(st.lists(numbers, min_size=servers, max_size=servers)) if placed else (),
        bandwidth=draw(st.lists(st.sampled_from([0.5, 1.0, 3.0]), min_size=7, max_size=7)),
        latency_s=draw(TICKS),
        cores=[place % cores for place in range(workers + servers)] if shared else (),
        slice_s=draw(st.sampled_from([math.inf, 1.0, 0.3])),
        handling_s=draw(st.lists(TICKS, min_size=shards, max_size=shards)) if shared else (),
        message_s=draw(st.lists(TICKS, min_size=shards, max_size=shards)) if measured else (),
    )


@settings(max_examples=300, deadline=None)
@given(models())
def test_engines_agree_to_the_last_bit(model: UpdateModel) -> None:
    """Every time, version and place, ties and awkward sums included."""
    assert run_updates(model).same_as(run_updates(model, engine="simpy"))


@settings(max_examples=40, deadline=None)
@given(models())
def test_the_compiled_kernel_equals_the_interpreted_one(model: UpdateModel) -> None:
    """numba runs the same source to the same bits."""
    compiled, interpreted = (engine_compiled.run(model, compiled=c) for c in (True, False))
    assert compiled.same_as(interpreted)


def places(record: UpdateRecord, shard: int) -> list[int]:
    own = record.place[:, :, shard].reshape(-1)
    return sorted(own[own >= 0].tolist())


@settings(max_examples=200, deadline=None)
@given(models())
def test_every_update_is_made_once_in_its_order(model: UpdateModel) -> None:
    """Nothing is lost or applied twice, and what is read is what had been applied by then."""
    record = run_updates(model)
    each = model.needed if model.joint else 1
    total = model.rounds * (each if model.joint else model.workers)
    for shard in range(model.shards):
        assert places(record, shard) == sorted(p for p in range(total // each) for _ in range(each))
    done = record.place >= 0
    assert np.all(record.version[done] <= record.place[done])
    assert np.array_equal(done, ~np.isnan(record.applied_s))
    order = (record.read_s, record.pull_start_s, record.pull_end_s, record.push_start_s, record.push_end_s)
    order = [times[done] for times in (*order, record.apply_start_s, record.applied_s)]
    for before, after in pairwise(order):
        assert np.all(before <= after)


@settings(max_examples=200, deadline=None)
@given(models(synchronies=("sync", "local")))
def test_joint_gradients_are_never_stale(model: UpdateModel) -> None:
    record = run_updates(model)
    assert not record.staleness.any()
    assert record.dropped == 0


@settings(max_examples=200, deadline=None)
@given(models(synchronies=("stale",)))
def test_the_stale_bound_is_never_exceeded(model: UpdateModel) -> None:
    """No worker begins a round more than K ahead of the slowest (Ho et al. 2013, section 3).

    So between a read and its update each other worker makes at most 2K + 1 updates.
    """
    record, bound = run_updates(model), model.protocol.number
    for shard in range(model.shards):
        reads, ends = record.read_s[:, :, shard], record.applied_s[:, :, shard]
        for round_ in range(bound + 1, model.rounds):
            assert reads[:, round_].min() >= ends[:, round_ - bound - 1].max()
    assert record.staleness.max() <= (model.workers - 1) * (2 * bound + 1)


@settings(max_examples=200, deadline=None)
@given(models(synchronies=("backup",)))
def test_backup_workers_gradients_count_or_are_dropped(model: UpdateModel) -> None:
    """A step takes exactly n - B gradients, all computed on its own parameters (Chen et al. 2016)."""
    record = run_updates(model)
    assert not record.staleness.any()
    counted = record.place[:, :, 0] >= 0
    assert np.count_nonzero(counted) == model.rounds * model.needed
    arrived = np.count_nonzero(~np.isnan(record.push_end_s[:, :, 0]))
    assert record.dropped == arrived - np.count_nonzero(counted)


@settings(max_examples=200, deadline=None)
@given(models(synchronies=("async", "stale"), hosts=False))
def test_stations_are_busy_for_what_passed_through_them(model: UpdateModel) -> None:
    """Conservation: bytes out = bytes in; every gradient is computed once and applied by every holder."""
    record = run_updates(model)
    rates = np.array(model.bandwidth)
    assert (record.out_busy_s * rates).sum() == pytest.approx((record.in_busy_s * rates).sum())
    updates = model.workers * model.rounds
    work = model.compute_s.sum() + updates * model.replicas * sum(model.apply_s)
    assert record.processor_busy_s.sum() == pytest.approx(work)


@settings(max_examples=100, deadline=None)
@given(models(synchronies=("async", "stale")))
def test_cores_are_busy_for_what_ran_on_them(model: UpdateModel) -> None:
    """Every gradient is computed once and applied by every holder; a message takes time of both its ends."""
    record = run_updates(model)
    shards, rounds = np.arange(model.shards), model.rounds
    holders = model.shard_server or shards % model.servers
    apart = [
        sum(not (model.colocated and worker == holder) for worker in range(model.workers))
        for holder in holders
    ]
    ends = [2 * (2 * count + (model.replicas - 1) * model.workers) for count in apart]
    handled = sum(ends[shard] * model.handling_s[shard] for shard in shards) if model.handling_s else 0.0
    applied = model.workers * model.replicas * sum(model.apply_s)
    assert record.processor_busy_s.sum() == pytest.approx(
        model.compute_s.sum() + rounds * (applied + handled), abs=1e-9
    )


def simple(synchrony: str, compute_s: list[list[float]], **fields: object) -> UpdateModel:
    """Workers and one server with free messages and updates of one second."""
    defaults: dict = {"shard_bytes": [0.0], "apply_s": [1.0], "bandwidth": [1.0] * (len(compute_s) + 1)}
    return UpdateModel(synchrony=synchrony, compute_s=np.array(compute_s), **(defaults | fields))


def test_async_by_hand() -> None:
    """Two workers of 3 and 4 s: the second queues behind nobody, and sees one update in between."""
    record = run_updates(simple("async", [[3.0, 3.0], [4.0, 4.0]]))
    assert record.applied_s[:, :, 0].tolist() == [[4.0, 8.0], [5.0, 10.0]]
    assert record.version[:, :, 0].tolist() == [[0, 1], [0, 2]]
    assert record.place[:, :, 0].tolist() == [[0, 2], [1, 3]]
    assert record.staleness.tolist() == [0, 1, 1, 1]
    assert record.processor_busy_s.tolist() == [6.0, 8.0, 4.0]


def test_backup_by_hand() -> None:
    """The slow worker's first gradient comes after its step was closed, so it is dropped."""
    record = run_updates(simple("backup:1", [[2.0, 2.0, 2.0], [2.0, 2.0, 2.0], [4.0, 1.0, 9.0]]))
    assert record.place[:, :, 0].tolist() == [[0, 1, 2], [0, 1, 2], [-1, -1, -1]]
    assert record.read_s[2, :, 0].tolist()[:2] == [0.0, 4.0]
    assert record.push_end_s[2, :2, 0].tolist() == [4.0, 5.0]


def test_local_by_hand() -> None:
    """Two local steps, then an average."""
    record = run_updates(simple("local:2", [[1.0, 1.0, 1.0, 1.0], [2.0, 1.0, 1.0, 1.0]]))
    assert record.compute_end_s.tolist() == [[2.0, 6.0], [3.0, 6.0]]
    assert record.applied_s[:, :, 0].tolist() == [[4.0, 7.0], [4.0, 7.0]]


def test_pushes_inside_backward_by_hand() -> None:
    """Half of a gradient is whole, and on its way, while the other half is computed: two messages of 1 s and
    4 s of computing take 5 s to be there instead of 6, and the first part's step waits for no other."""
    parts = {"shard_bytes": [1.0, 1.0], "apply_s": [0.5, 0.5], "shard_server": [0, 0]}
    record = run_updates(simple("sync", [[4.0, 4.0]], ready=[0.5, 1.0], **parts))
    assert record.compute_start_s[:, 0].tolist() == [2.0]  # behind two pulls
    assert record.push_start_s[0, 0].tolist() == [4.0, 6.0]
    assert record.push_end_s[0, 0].tolist() == [5.0, 7.0]
    assert record.applied_s[0, 0].tolist() == [5.5, 7.5]
    assert record.pull_end_s[0, 1].tolist() == [6.5, 8.5]
    assert record.compute_end_s.tolist() == [[6.0, 12.5]]
    after = run_updates(simple("sync", [[4.0, 4.0]], **parts))
    assert after.push_end_s[0, 0].tolist() == [7.0, 8.0]


def test_all_reduce_waits_for_the_slowest() -> None:
    record = run_updates(simple("sync", [[1.0, 5.0], [2.0, 1.0]], servers=0, exchange_s=0.5))
    assert record.applied_s[:, :, 0].tolist() == [[2.5, 8.0], [2.5, 8.0]]
    assert record.step_time_s == 5.5


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"synchrony": "stale"}, "synchrony"),
        ({"synchrony": "backup:2"}, "fewer backup workers"),
        ({"synchrony": "local:9"}, "local steps"),
        ({"synchrony": "async", "servers": 0}, "servers: 0"),
        ({"compute_s": np.array([[-1.0], [1.0]])}, "compute_s"),
        ({"compute_s": np.ones(3)}, "compute_s"),
        ({"apply_s": []}, "apply_s"),
        ({"replicas": 2}, "replicas"),
        ({"bandwidth": [1.0]}, "bandwidth"),
        ({"ready": [0.5]}, "of which the last is 1"),
        ({"ready": [1.0, 0.5], "shard_bytes": [0.0] * 2, "apply_s": [0.0] * 2}, "rising shares"),
        ({"ready": [1.0, 1.0]}, "1 rising shares"),
        ({"ready": [1.0], "synchrony": "local:2", "compute_s": [[1.0, 1.0]] * 2}, "none with local steps"),
        ({"shard_server": [1]}, "numbers of servers, 0 to 0"),
        ({"bandwidth": [0.0] * 3}, "bandwidth"),
        ({"worker_interface": [0]}, "worker_interface"),
        ({"replication": "gossip"}, "replication"),
        ({"servers": 3, "colocated": True}, "places of the workers"),
    ],
)
def test_bad_models_are_refused(fields: dict, text: str) -> None:
    defaults = {"synchrony": "async", "compute_s": [[1.0], [1.0]]} | fields
    with pytest.raises(InputError, match=text):
        run_updates(simple(**defaults))
