"""Every protocol of parameter servers, run for real: as one process where the order is given, and as a replay
of the recorded order where it is not."""

from __future__ import annotations

from collections import Counter

import pytest

torch = pytest.importorskip("torch")

from served import SEED, serve, served_plan, tiny_job  # noqa: E402

from traincast.executor.model.reference import relative_difference, single_process  # noqa: E402
from traincast.executor.servers.ledger import puts_together  # noqa: E402
from traincast.executor.servers.replay import Order, mean_losses, replay  # noqa: E402

pytestmark = pytest.mark.slow
ROUNDS = 4
PROTOCOLS = ("sync", "async", "stale:1", "backup:1", "local:2")
KINDS = {
    "one server": {},
    "two servers": {"servers": 2},
    "pushed after backward": {"servers": 2, "overlap_gradients": False},
    "replicated": {"servers": 2, "server_replicas": 2},
    "colocated": {"servers": 2, "servers_colocated": True},
    "all of it": {"servers": 2, "server_replicas": 2, "servers_colocated": True},
}


def agrees_with_its_replay(plan, found) -> None:
    """Each worker's losses to 1e-6, what servers end with to 1e-5."""
    again = replay(plan, Order.of(found.portions), SEED)
    workers = found.parts[: plan.strategy.dp]
    assert again.steps == [part["steps"] for part in workers]
    for own, part in zip(again.losses, workers, strict=True):
        assert [pytest.approx(losses, rel=1e-6) for losses in own] == part["losses"]
    assert set(found.parameters) == set(again.parameters)
    for name, parameter in found.parameters.items():
        assert relative_difference(parameter, again.parameters[name]) < 1e-5


@pytest.mark.parametrize("synchrony", PROTOCOLS)
@pytest.mark.parametrize("kind", KINDS)
def test_two_workers_agree_with_the_replay(synchrony, kind):
    plan = served_plan(synchrony, **KINDS[kind])
    found = serve(plan, ROUNDS, slow=1)
    agrees_with_its_replay(plan, found)
    for copies in found.copies:
        for name, copy in copies.items():
            assert relative_difference(copy, found.parameters[name]) == 0


@pytest.mark.parametrize("synchrony", PROTOCOLS)
def test_four_workers_agree_with_the_replay(synchrony):
    plan = served_plan(synchrony, dp=4, servers=2)
    found = serve(plan, ROUNDS, slow=2)
    agrees_with_its_replay(plan, found)


@pytest.mark.parametrize(
    ("dp", "kind", "optimizer"),
    [*((dp, kind, "sgd") for dp in (2, 4) for kind in KINDS), (2, "two servers", "adamw")],
)
def test_synchronous_servers_agree_with_one_process(dp, kind, optimizer):
    """The mean of the workers' gradients is that of the global batch: loss to 1e-6, parameters to 1e-5; Adam
    makes of rounding what it makes of gradients (to 1e-3)."""
    job = tiny_job(optimizer)
    plan = served_plan("sync", job=job, dp=dp, **KINDS[kind])
    found = serve(plan, ROUNDS)
    alone = single_process(job, ROUNDS, SEED)
    workers = found.parts[:dp]
    measured = mean_losses([part["steps"] for part in workers], [part["losses"] for part in workers])
    assert measured == pytest.approx(alone.losses, rel=1e-6 if optimizer == "sgd" else 1e-4)
    assert set(found.parameters) == set(alone.parameters)
    for name, own in found.parameters.items():
        assert relative_difference(own, alone.parameters[name]) < (1e-5 if optimizer == "sgd" else 1e-3)


def test_a_shared_embedding_is_pushed_once():
    """Its gradient is whole where the embedding's own backward has been."""
    plan = served_plan("sync", job=tiny_job(tied=True), servers=2)
    found = serve(plan, ROUNDS)
    alone = single_process(plan.job, ROUNDS, SEED)
    assert set(found.parameters) == set(alone.parameters)
    for name, own in found.parameters.items():
        assert relative_difference(own, alone.parameters[name]) < 1e-5


@pytest.mark.parametrize("synchrony", PROTOCOLS)
def test_what_protocols_promise_holds_in_the_record(synchrony):
    """The slow worker is waited for, bounded, dropped, or overtaken."""
    plan = served_plan(synchrony, dp=2, servers=1)
    found = serve(plan, 6, slow=1)
    for own in found.portions.values():
        staleness, turns = own["staleness"], [len(part["steps"]) for part in found.parts[:2]]
        if synchrony in ("sync", "local:2"):
            assert (set(staleness), own["dropped"], turns) == ({0}, 0, [6, 6])
        elif synchrony == "backup:1":
            assert len(own["updates"]) == 6
            assert own["dropped"] == sum(turns) - 6
        else:
            assert (len(staleness), turns) == (12, [6, 6])
            assert max(staleness) <= (3 if synchrony == "stale:1" else 6)
            assert max(staleness) > 0


@pytest.mark.parametrize("synchrony", PROTOCOLS)
@pytest.mark.parametrize("kind", ["two servers", "pushed after backward", "colocated"])
def test_marks_are_the_actions_of_the_plan(synchrony, kind):
    """Each rank does in each of its steps what the plan says, and nothing else; both ends name a message."""
    plan = served_plan(synchrony, **KINDS[kind])
    found = serve(plan, ROUNDS)
    colocated = plan.strategy.servers_colocated
    for rank in range(plan.world_size):
        said = Counter(map(str, plan.rank_actions(rank)))
        if colocated:
            said += Counter(map(str, plan.server_actions[rank]))
        for step in range(ROUNDS):
            done = Counter(mark[2] for mark in found.marks if mark[0] == rank and mark[5] == step)
            if synchrony == "backup:1":  # a dropped worker skips a step
                assert set(done) <= set(said)
            elif plan.portions[0].bucket < 0 and not plan.is_server(rank):
                assert set(done) == set(said)  # one message each server
            else:
                assert done == said
    ends = Counter((mark[5], mark[9]) for mark in found.marks if mark[9])
    assert set(ends.values()) == {2}


def test_buckets_leave_inside_the_last_backward():
    """All but the last, which is whole when backward is over."""
    plan = served_plan("sync", servers=1)
    found = serve(plan, 3)
    own = [mark for mark in found.marks if mark[0] == 0 and mark[5] == 2]
    (backward,) = [mark for mark in own if mark[2] == "0B1"]
    issued = [mark[6] for mark in sorted(own, key=lambda mark: mark[6]) if mark[2].startswith("0PUSH")]
    assert len(issued) == 4
    assert all(backward[6] < moment < backward[7] for moment in issued)
    assert puts_together(plan.strategy)
