"""A plan with parameter servers is predicted for every protocol, with its spans and its staleness."""

from __future__ import annotations

from dataclasses import replace

import pytest

from traincast.sim.costs.costs import Costs
from traincast.sim.hardware.stragglers import Straggler, Stragglers
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.strategy import Strategy
from traincast.sim.plan.traffic import layers_gradient_bytes
from traincast.sim.predict.simulate import simulate

PROTOCOLS = ("sync", "async", "stale:1", "backup:1", "local:2")


def planned(job, synchrony: str, **fields):
    defaults = {"dp": 4, "servers": 2, "gradient_exchange": "parameter_server", "micro_batch": 2}
    return make_plan(job, Strategy(synchrony=synchrony, **(defaults | fields)))


@pytest.mark.parametrize("synchrony", PROTOCOLS)
def test_every_protocol_has_a_trace_and_both_engines_give_the_same(tiny_job, round_cluster, synchrony):
    plan = planned(tiny_job, synchrony)
    trace = simulate(plan, round_cluster)
    again = simulate(plan, round_cluster, engine="simpy")
    assert trace.spans == again.spans
    assert trace.step_times_s == again.step_times_s
    assert trace.ranks == list(range(6))
    steps = {"STEP"} if synchrony.startswith("local") else set()
    assert {span.kind for span in trace.spans} == {"F", "B", "PUSH", "PULL", "APPLY"} | steps
    said = {str(action) for own in (*plan.actions, *plan.server_actions) for action in own}
    assert {span.action for span in trace.spans} == said
    stale = trace.metadata["staleness"]
    assert isinstance(stale, list)
    assert any(stale) == (synchrony in ("async", "stale:1"))


def test_a_synchronous_step_is_what_its_parts_add_up_to(tiny_job, round_cluster):
    """One server, pushes after backward: four pulls one after the other, compute, four pushes, one update.

    All messages queue at the server's interface. The last pulls are computed on last, and pushed last.
    """
    plan = planned(tiny_job, "sync", servers=1, overlap_gradients=False)
    costs = Costs(round_cluster, plan.job, plan.strategy)
    layers = plan.job.model.layers
    compute = sum(costs.compute.forward_s(layer) + costs.compute.backward_s(layer) for layer in layers)
    size = layers_gradient_bytes(plan.job, plan.strategy, layers)
    latency, whole = costs.communication.transfer_s(1.0, 0, 4), costs.communication.transfer_s(size, 0, 4)
    message = whole - latency
    apply = costs.optimizer.update_s(sum(layer.parameters for layer in layers))
    expected = 2 * (latency + message) + 3 * message + compute + apply
    assert simulate(plan, round_cluster).step_time_s == pytest.approx(expected, rel=1e-3)


def test_buckets_are_pushed_inside_the_last_backward(tiny_job, round_cluster):
    """The first bucket leaves before backward ends, the last one with its end; no step is longer for it."""
    buckets = {"dp": 2, "servers": 2, "micro_batch": 2, "bucket_bytes": 1}
    plan = planned(tiny_job, "sync", **buckets)
    assert len(plan.portions) == len(plan.job.model.layers)
    trace = simulate(plan, round_cluster)
    exposed = simulate(planned(tiny_job, "sync", **buckets, overlap_gradients=False), round_cluster)
    own = [span for span in trace.spans if span.rank == 0]
    last = max((span for span in own if span.kind == "B"), key=lambda span: span.end)
    pushes = {span.action: span.start for span in own if span.kind == "PUSH"}
    assert last.start < pushes["0PUSH.0"] < last.end
    assert max(pushes.values()) >= last.end
    assert trace.step_time_s <= exposed.step_time_s
    applied = [span for span in trace.spans if span.kind == "APPLY"]
    pulled = sorted(span.start for span in own if span.action == "0PULL.0")
    assert len(pulled) == 2
    assert pulled[1] < max(span.end for span in applied if span.start < last.start)
    assert {span.action for span in exposed.spans if span.kind == "PUSH"} == {
        *("0PUSH", "0PUSH0", "0PUSH1", "1PUSH0", "1PUSH1")
    }


@pytest.mark.parametrize("synchrony", PROTOCOLS)
def test_a_straggler_holds_up_those_who_wait_for_it(tiny_job, round_cluster, synchrony):
    """sync and local steps take threefold, backup workers do without it, async only lose its share."""
    slow = replace(
        round_cluster, stragglers=Stragglers(persistent=(Straggler(kind="rank", place=1, factor=3.0),))
    )
    slow = replace(slow, accelerator=replace(slow.accelerator, launch_overhead_s=1e-3))
    even = replace(slow, stragglers=None)
    plan = planned(tiny_job, synchrony)
    ratio = simulate(plan, slow).step_time_s / simulate(plan, even).step_time_s
    expected = {"sync": 3.0, "local:2": 3.0, "stale:1": 3.0, "backup:1": 1.0, "async": 4 / (3 + 1 / 3)}
    assert ratio == pytest.approx(expected[synchrony], rel=0.15)


def test_replicas_and_colocation_cost_what_they_move(tiny_job, round_cluster):
    """A copy of every update lengthens a step; a server at a worker's place spares that worker's messages."""
    plain = simulate(planned(tiny_job, "sync"), round_cluster).step_time_s
    copied = simulate(planned(tiny_job, "sync", server_replicas=2), round_cluster).step_time_s
    home = simulate(planned(tiny_job, "sync", servers=1, servers_colocated=True), round_cluster)
    apart = simulate(planned(tiny_job, "sync", servers=1), round_cluster)
    assert copied > plain
    assert home.step_time_s < apart.step_time_s
    assert home.world_size == 4


def test_a_nodes_own_link_is_shared_by_its_ranks(tiny_job, round_cluster):
    """Five ranks on two nodes of four; where the link is the node's, four workers share one interface.

    The server takes in every gradient of the twelve rounds, one at a time.
    """
    shared = replace(round_cluster.links["slow"], per_node=True)
    cluster = replace(round_cluster, links={**round_cluster.links, "slow": shared})
    own, node = (simulate(planned(tiny_job, "async", servers=1), c) for c in (round_cluster, cluster))
    assert node.step_time_s >= own.step_time_s
    busy = node.metadata["server_utilisation"]
    assert isinstance(busy, dict)
    assert set(busy) == {"processor", "receives", "sends"}
    assert all(0 < share <= 1 for shares in busy.values() for share in shares)


def test_samples_repeat_and_differ(tiny_job, round_cluster):
    jittery = replace(round_cluster, jitter=0.1)
    plan = planned(tiny_job, "stale:1")
    first, second = (simulate(plan, jittery, samples=5, seed=3) for _ in range(2))
    assert first.step_times_s == second.step_times_s
    assert len(set(first.step_times_s)) == 5


@pytest.mark.parametrize("synchrony", PROTOCOLS)
def test_hosts_whose_cores_are_shared_are_predicted_too(tiny_job, host_cluster, synchrony):
    trace = simulate(planned(tiny_job, synchrony, dp=2, servers=1), host_cluster)
    assert trace.step_time_s > 0
    assert any(span.kind == "APPLY" for span in trace.spans)


def test_ranks_that_share_a_core_take_turns(tiny_job, host_cluster):
    """Twice as many ranks as cores take twice as long to compute; gloo's messages take time of both ends."""
    alone = replace(host_cluster, host=replace(host_cluster.host, cores=4, concurrency=()))
    shared = replace(host_cluster, host=replace(host_cluster.host, cores=1, concurrency=()))
    plan = planned(tiny_job, "sync", dp=2, servers=1, overlap_gradients=False)
    one, other = (simulate(plan, cluster) for cluster in (alone, shared))
    passes = sum(span.duration for span in one.spans if span.rank == 0 and span.stream == "compute")
    assert other.step_time_s > one.step_time_s + 0.9 * passes
    staged = simulate(plan, alone)
    free = replace(alone, transports=tuple(replace(t, cpu_times=()) for t in alone.transports))
    assert staged.step_time_s >= simulate(plan, free).step_time_s


def test_messages_of_one_server_go_one_after_the_other(tiny_job, host_cluster):
    """Incast: pushes that begin together end a message apart."""
    cluster = replace(host_cluster, host=replace(host_cluster.host, cores=4))
    trace = simulate(planned(tiny_job, "sync", dp=2, servers=1, overlap_gradients=False), cluster)
    first, second = sorted((s for s in trace.spans if s.kind == "PUSH" and s.rank == 2), key=lambda s: s.end)
    assert second.end - first.end == pytest.approx(first.end - first.start)
