"""What layers add up to: a stage's seconds and FLOPs are those of its layers."""

from __future__ import annotations

import pytest
from machines import cpu_cluster, gpt3_175b, gpu_cluster, job

from traincast.sim.costs.costs import Costs
from traincast.sim.costs.stage import OVERLAP_SLOWDOWN, StageCosts
from traincast.sim.kernels.flops import hardware_flops_per_token
from traincast.sim.plan.action import Kind
from traincast.sim.plan.job import Job
from traincast.sim.plan.strategy import Strategy

BIG = Job(model=gpt3_175b(), global_batch=64, seq_len=2048)
STRATEGIES = (
    Strategy(),
    Strategy(tp=8, micro_batch=2, recompute="full"),
    Strategy(dp=8, tp=2, sharding="fsdp"),
    Strategy(dp=8, tp=2, sharding="fsdp", reshard_after_forward=False),
)
KINDS = (Kind.FORWARD, Kind.BACKWARD, Kind.INPUT_GRADIENT, Kind.WEIGHT_GRADIENT)
each_strategy = pytest.mark.parametrize("strategy", STRATEGIES)


def of_layers(costs: Costs, kind: Kind) -> list[float]:
    """Seconds of one pass of each layer of `BIG`."""
    compute = costs.compute
    one = {
        Kind.FORWARD: compute.forward_s,
        Kind.BACKWARD: compute.backward_s,
        Kind.INPUT_GRADIENT: compute.input_gradient_s,
        Kind.WEIGHT_GRADIENT: compute.weight_gradient_s,
    }[kind]
    return [one(layer) for layer in BIG.model.layers]


@each_strategy
def test_a_pass_takes_what_its_layers_take(strategy: Strategy):
    """Each kind of pass, and several together."""
    costs = Costs(gpu_cluster(), BIG, strategy)
    stage, layers = StageCosts(costs), BIG.model.layers
    for kind in KINDS:
        assert stage.compute_s(layers, kind) == sum(of_layers(costs, kind)) > 0
    assert stage.compute_s(layers, *KINDS) == pytest.approx(sum(sum(of_layers(costs, k)) for k in KINDS))
    assert stage.compute_s(layers[:3], Kind.FORWARD) == sum(of_layers(costs, Kind.FORWARD)[:3])
    assert stage.compute_s((), *KINDS) == 0


@each_strategy
def test_a_backward_takes_what_its_two_parts_take(strategy: Strategy):
    """The gradients of inputs and of weights, which some schedules run apart."""
    stage, layers = StageCosts(Costs(gpu_cluster(), BIG, strategy)), BIG.model.layers
    parts = (Kind.INPUT_GRADIENT, Kind.WEIGHT_GRADIENT)
    assert stage.compute_s(layers, *parts) == pytest.approx(stage.compute_s(layers, Kind.BACKWARD))
    flops = sum(stage.flops(layers, kind) for kind in parts)
    assert flops == pytest.approx(stage.flops(layers, Kind.BACKWARD))


@each_strategy
def test_exchanges_and_sharding_are_those_of_the_layers(strategy: Strategy):
    """As often as it is asked for."""
    costs = Costs(gpu_cluster(), BIG, strategy)
    stage, layers = StageCosts(costs), BIG.model.layers
    for backward in (False, True):
        waits = [costs.exchanges.seconds(layer, backward=backward) for layer in layers]
        assert stage.exchanges_s(layers, backward=backward) == sum(waits)
        assert (sum(waits) > 0) == (strategy.tp > 1)
    gathered = sum(costs.communication.gathering_s(layer) for layer in layers)
    reduced = sum(costs.communication.reduction_s(layer) for layer in layers)
    found = stage.sharding_s(layers, gatherings=2, reductions=1)
    assert found == pytest.approx(2 * gathered + reduced)
    assert (gathered > 0) == (strategy.dp > 1)


def test_a_pass_is_slower_next_to_its_gatherings():
    """By the share of them that it overlaps with; not where nothing is gathered, nor on a host."""
    layers = BIG.model.layers
    plain, sharded = (StageCosts(Costs(gpu_cluster(), BIG, s)) for s in (STRATEGIES[0], STRATEGIES[2]))
    assert plain.pass_s(layers, Kind.FORWARD) == plain.compute_s(layers, Kind.FORWARD)
    costs, alone = sharded.costs, sharded.compute_s(layers, Kind.FORWARD)
    passes = zip(layers, of_layers(costs, Kind.FORWARD), strict=True)
    overlapped = sum(min(own, costs.communication.gathering_s(layer)) for layer, own in passes)
    assert sharded.pass_s(layers, Kind.FORWARD) == pytest.approx(alone + OVERLAP_SLOWDOWN * overlapped)
    assert overlapped > 0
    host = StageCosts(Costs(cpu_cluster(), job(), Strategy(dp=4, sharding="fsdp")))
    own = host.costs.job.model.layers
    assert host.pass_s(own, Kind.FORWARD) == host.compute_s(own, Kind.FORWARD)


def test_a_step_updates_the_parameters_of_its_layers():
    """Divided by tp, what is held besides included."""
    costs = Costs(gpu_cluster(), BIG, Strategy(tp=8))
    layers = BIG.model.layers
    whole = sum(layer.whole_parameters for layer in layers)
    held = whole + (sum(layer.parameters for layer in layers) - whole) / 8
    assert StageCosts(costs).step_s(layers) == pytest.approx(costs.optimizer.update_s(held))
    assert StageCosts(costs).step_s(layers, copied=1e9) == pytest.approx(costs.optimizer.update_s(held + 1e9))


def test_flops_are_those_of_the_papers():
    """All layers' FLOPs on all ranks are the hardware FLOPs of the step."""
    for recompute in ("none", "selective", "full"):
        costs = Costs(gpu_cluster(), BIG, Strategy(tp=8, micro_batch=2, recompute=recompute))
        stage, layers = StageCosts(costs), costs.job.model.layers
        done = 8 * sum(stage.flops(layers, kind) for kind in (Kind.FORWARD, Kind.BACKWARD))
        expected = hardware_flops_per_token(BIG.model, 2048, recompute) * 2 * 2048
        assert done == pytest.approx(expected, rel=1e-12)
