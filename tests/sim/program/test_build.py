"""Programs of plans: closed forms on uniform stages, sharing of cores, incast, asynchronous updates."""

from __future__ import annotations

from dataclasses import replace

import pytest

from traincast.sim.costs.costs import Costs
from traincast.sim.errors import InputError
from traincast.sim.plan.action import Kind
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.strategy import Strategy
from traincast.sim.predict.simulate import simulate
from traincast.sim.program.build import build_program

SERVER = {"gradient_exchange": "parameter_server", "servers": 1}


def free_links(cluster):
    """The cluster with links that cost nothing, so that only compute is left."""
    links = {
        n: replace(link, bandwidth=1e30, latency=0.0, efficiency=()) for n, link in cluster.links.items()
    }
    return replace(cluster, links=links)


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
@pytest.mark.parametrize("engine", ["compiled", "simpy"])
def test_pipeline_lies_between_the_closed_forms_of_its_stages(tiny_job, round_cluster, schedule, engine):
    """(m + p - 1)(F + B): that of the quickest stage bounds from below, that of the slowest from above."""
    cluster = free_links(round_cluster)
    strategy = Strategy(pp=2, micro_batch=1, schedule=schedule)
    plan = make_plan(tiny_job, strategy)
    costs = Costs(cluster, tiny_job, strategy)
    layers = tiny_job.model.layers
    compute = costs.compute
    both = [
        sum(compute.forward_s(layers[i]) + compute.backward_s(layers[i]) for i in stage.layer_indices)
        for stage in plan.stages
    ]
    trace = simulate(plan, cluster, engine=engine)
    steps = max(costs.optimizer.update_s(plan.stage_parameters(s)) for s in range(2))
    micro_batches = strategy.micro_batches(tiny_job)
    lower = (micro_batches + 1) * min(both)
    upper = (micro_batches + 1) * max(both) + steps
    assert lower <= trace.step_time_s <= upper * (1 + 1e-12)


def test_single_rank_is_the_sum_of_its_parts(tiny_job, round_cluster):
    strategy = Strategy(micro_batch=2)
    costs = Costs(round_cluster, tiny_job, strategy)
    layers = tiny_job.model.layers
    expected = 4 * sum(costs.compute.forward_s(layer) + costs.compute.backward_s(layer) for layer in layers)
    expected += costs.optimizer.update_s(tiny_job.model.parameters)
    trace = simulate(make_plan(tiny_job, strategy), round_cluster)
    assert trace.step_time_s == pytest.approx(expected, rel=1e-12)
    assert [span.action for span in trace.spans] == [
        "0F0",
        "0B0",
        "0F1",
        "0B1",
        "0F2",
        "0B2",
        "0F3",
        "0B3",
        "0STEP",
    ]


def test_folding_builds_one_replica_and_one_tensor_parallel_rank(tiny_job, round_cluster):
    plan = make_plan(tiny_job, Strategy(dp=2, tp=2, pp=2))
    assert build_program(plan, round_cluster).ranks == [0, 4]


def test_ranks_that_share_a_core_take_turns(tiny_job, host_cluster):
    """Four ranks on two cores compute for twice as long as on four cores."""
    four = make_plan(tiny_job, Strategy(dp=4, micro_batch=2))
    alone = replace(host_cluster, host=replace(host_cluster.host, cores=4, concurrency=((2.0, 1.1),)))
    computed = {
        name: max(s.end for s in simulate(four, cluster).spans if s.kind == "B")
        for name, cluster in (("shared", host_cluster), ("own", alone))
    }
    assert computed["shared"] == pytest.approx(2 * computed["own"])


def test_staged_reduction_hides_behind_nothing(tiny_job, host_cluster):
    """Where the processor moves the bytes itself, a reduction begins when all compute is done."""
    trace = simulate(make_plan(tiny_job, Strategy(dp=2, micro_batch=4)), host_cluster)
    last_backward = max(s.end for s in trace.spans if s.action == "0B0")
    reductions = [s for s in trace.spans if s.kind == "REDUCE_GRAD"]
    assert reductions
    assert all(span.start >= last_backward for span in reductions)


def test_reduction_of_early_buckets_hides_behind_backward(tiny_job, round_cluster):
    layer = tiny_job.model.layers[1].parameters * 4
    plan = make_plan(tiny_job, Strategy(dp=8, bucket_bytes=layer))
    trace = simulate(plan, round_cluster)
    backward = next(s for s in trace.spans if s.kind == "B")
    first = next(s for s in trace.spans if s.action == "0REDUCE_GRAD0")
    assert backward.start < first.start < backward.end


def test_synchronous_server_steps_once_after_all_pushes(tiny_job, round_cluster):
    plan = make_plan(tiny_job, Strategy(dp=2, overlap_gradients=False, **SERVER))
    trace = simulate(plan, round_cluster)
    step = [s for s in trace.spans if s.kind == "APPLY"]
    pushes = [s for s in trace.spans if s.kind == "PUSH" and s.rank == 2]
    assert len(step) == 1
    assert len(pushes) == 2
    assert step[0].start >= max(push.end for push in pushes)
    first, second = sorted(pushes, key=lambda s: s.start)
    latency = round_cluster.links["fast"].latency
    taken = first.end - first.start - latency
    assert second.end >= first.end + 0.99 * taken, "one network interface takes one message at a time"


def test_asynchronous_workers_are_stale_by_the_others(tiny_job, round_cluster):
    """With n equal workers, a gradient is n - 1 updates old once they have fallen into step."""
    plan = make_plan(tiny_job, Strategy(dp=4, synchrony="async", **SERVER))
    trace = simulate(plan, round_cluster)
    stale = trace.metadata["staleness"]
    assert isinstance(stale, list)
    settled = stale[len(stale) // 2 :]
    assert sum(settled) / len(settled) == pytest.approx(3, abs=0.5)


def test_asynchronous_beats_synchronous_in_throughput(tiny_job, round_cluster):
    """Nobody waits for the slowest, so a batch's worth of updates takes no longer."""
    times = {
        synchrony: simulate(
            make_plan(tiny_job, Strategy(dp=4, synchrony=synchrony, **SERVER)), round_cluster
        ).step_time_s
        for synchrony in ("sync", "async")
    }
    assert times["async"] <= times["sync"]


@pytest.mark.parametrize("strategy", [Strategy(dp=2, pp=2), Strategy(dp=2, **SERVER), Strategy(tp=2, pp=2)])
def test_more_bandwidth_never_hurts(tiny_job, round_cluster, strategy):
    plan = make_plan(tiny_job, strategy)
    assert simulate(plan, free_links(round_cluster)).step_time_s <= simulate(plan, round_cluster).step_time_s


def test_samples_repeat_with_their_seed(tiny_job, round_cluster):
    plan = make_plan(tiny_job, Strategy(dp=2))
    jittery = replace(round_cluster, jitter=0.05)
    first, again = (simulate(plan, jittery, samples=16, seed=3) for _ in range(2))
    other = simulate(plan, jittery, samples=16, seed=4)
    assert first == again
    assert first.step_times_s != other.step_times_s
    assert first.quantile(0.05) < first.step_time_s < first.quantile(0.95)


def test_unknown_engine_is_refused(tiny_job, round_cluster):
    with pytest.raises(InputError, match="engine 'ns3' is unknown; expected compiled"):
        simulate(make_plan(tiny_job, Strategy()), round_cluster, engine="ns3")


def test_what_parameter_servers_do_has_no_cost_here(tiny_job, round_cluster):
    with pytest.raises(InputError, match=r"0PULL\.0 has no cost model in a plan without parameter servers"):
        build_program(make_plan(tiny_job, Strategy(dp=2, **SERVER)), round_cluster)


def test_ranks_that_wait_for_each_other_are_named_with_their_actions(tiny_job, round_cluster):
    """The first rank asks for a gradient before it has sent anything."""
    plan = make_plan(tiny_job, Strategy(pp=2))
    first, second = plan.actions
    asked = next(action for action in first if action.kind is Kind.RECV_B)
    turned = replace(plan, actions=((asked, *(a for a in first if a != asked)), second))
    with pytest.raises(InputError, match="wait for each other: rank 0 at 0RECV_B0, rank 1 at 1RECV_F0"):
        build_program(turned, round_cluster)
