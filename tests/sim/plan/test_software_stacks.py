"""Software stacks."""

from __future__ import annotations

import pytest
from machines import gpu, gpu_cluster, job, llama

from traincast.sim.costs.costs import Costs
from traincast.sim.costs.pass_costs import PassCosts
from traincast.sim.costs.stage import OVERLAP_SLOWDOWN
from traincast.sim.kernels.gemm_efficiency import alignment_efficiency, narrow_efficiency
from traincast.sim.kernels.kernel import Kernel
from traincast.sim.kernels.roofline import kernel_s, kernels_s
from traincast.sim.plan.action import Action, Kind
from traincast.sim.plan.software_stacks import (
    ACCUMULATIONS,
    DEFAULT_STACK,
    LOSSES,
    NORMS,
    OPTIMIZERS,
    STACKS,
)
from traincast.sim.plan.strategy import Strategy
from traincast.sim.plan.strategy_rules import strategy_faults


@pytest.mark.parametrize("name", STACKS)
def test_every_stack_says_where_it_was_read(name: str):
    stack = STACKS[name]
    assert stack.name == name
    assert "" not in (stack.description, stack.source)
    assert stack.norm in NORMS
    assert stack.loss in LOSSES
    assert stack.accumulation in ACCUMULATIONS
    assert stack.optimizer in OPTIMIZERS


def test_strategies_name_one():
    assert Strategy().software is STACKS[DEFAULT_STACK]
    faults = strategy_faults(Strategy(stack="mine"), job(llama()))
    assert any("stack" in fault.path and "torchtitan" in fault.expected for fault in faults)


def product(m: int, n: int, k: int) -> Kernel:
    return Kernel(kind="gemm", flops=2.0 * m * n * k, bytes=2.0 * (m * k + k * n + m * n), m=m, n=n, k=k)


def test_unaligned_products_are_slower():
    """GPT-2's vocabulary of 50,257 takes longer than one of 50,304."""
    odd, even = (kernel_s(gpu(), product(8192, vocab, 2048), "bf16") for vocab in (50257, 50304))
    assert odd > 2.5 * even
    assert alignment_efficiency(product(64, 64, 64), 108) == 1.0
    assert alignment_efficiency(product(63, 64, 64), 0) == 1.0


def test_shallow_and_narrow_products_are_slower():
    """As those of attention's heads."""
    wide, shallow, narrow = product(2048, 2048, 2048), product(2048, 2048, 128), product(2048, 128, 2048)
    assert narrow_efficiency(wide, 108) == 1.0
    assert narrow_efficiency(shallow, 108) < narrow_efficiency(narrow, 108) < 1.0


def test_hours_of_training_slow_arithmetic_and_not_memory():
    fast, slow = gpu(), gpu(sustained=0.5)
    overhead = fast.launch_overhead_s
    whole, half = (kernel_s(one, product(8192, 8192, 8192), "bf16") - overhead for one in (fast, slow))
    assert half == pytest.approx(2 * whole)
    copy = Kernel(kind="memory", flops=0.0, bytes=1e9)
    assert kernel_s(fast, copy, "bf16") == kernel_s(slow, copy, "bf16")


def test_small_layers_wait_for_the_host():
    """As many launches as there are kernels, at the host's pace."""
    tiny = [Kernel(kind="memory", flops=0.0, bytes=1.0, launches=3)] * 5
    assert kernels_s(gpu(), tiny, "bf16", host_launch_s=50e-6) == pytest.approx(15 * 50e-6)
    large = [Kernel(kind="memory", flops=0.0, bytes=1e12)]
    assert kernels_s(gpu(), large, "bf16", 50e-6) == kernels_s(gpu(), large, "bf16")


def test_compute_is_slower_beside_gathering():
    """By 18.9 % of the shorter of the two; parameters that stay gathered slow only the forward."""
    own = job(llama(hidden=1024, heads=8, kv_heads=8, layers=4), global_batch=8)
    forward = Action(0, Kind.FORWARD)

    def compute_s(strategy: Strategy) -> float:
        costs = Costs(gpu_cluster(), own, strategy)
        return PassCosts(costs, 1.0).of(forward, ((1,),)).compute_s

    sharded = Strategy(dp=8, sharding="fsdp", stack="torchtitan")
    costs = Costs(gpu_cluster(), own, sharded)
    block = own.model.layers[1]
    beside = min(costs.compute.forward_s(block), costs.communication.gathering_s(block))
    assert compute_s(sharded) == pytest.approx(costs.compute.forward_s(block) + OVERLAP_SLOWDOWN * beside)
    assert compute_s(Strategy(dp=8, stack="torchtitan")) == pytest.approx(costs.compute.forward_s(block))
