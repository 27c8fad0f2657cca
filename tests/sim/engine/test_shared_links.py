"""Operations that share links: half the link, twice the time; alone, as without flows; as the flow solver."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import cpu_cluster, gpu_cluster, job

from traincast.sim.engine import compiled as engine_compiled
from traincast.sim.engine.shared_links import Traffic, rates, run_on_links
from traincast.sim.errors import InputError
from traincast.sim.hardware.cluster import Cluster, FabricSpec
from traincast.sim.network.fabrics.fat_tree import Shape, fat_tree
from traincast.sim.network.flows.collective import Group, flow_collective_s
from traincast.sim.network.flows.steps import Step
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.strategy import Strategy
from traincast.sim.predict.simulate import simulate
from traincast.sim.program.build import build_program
from traincast.sim.program.program import Program, SpanLabel

UP = fat_tree(
    Shape(hosts=8, radix=4, oversubscription=4.0),
    bandwidth=1e9, latency=0.0, trunk_bandwidth=1e9, trunk_latency=0.0,
)  # fmt: skip
"""Two leaves of four hosts each, with one uplink each."""


def between(*pairs: tuple[int, int], shares: tuple[float, ...] = ()) -> Traffic:
    sources, targets = np.array(pairs).T
    return Traffic(fabric=UP, sources=sources, targets=targets, shares=np.array(shares or [1.0] * len(pairs)))


def operations(*rows: tuple[float, list[tuple[int, float]]]) -> Program:
    """Operations of some seconds on streams of their own, after others with delays."""
    program = Program()
    for number, (seconds, after) in enumerate(rows):
        label = SpanLabel(0, "dp", f"0F{number}", 0, number)
        program.add(seconds, (program.stream(number, "dp"),), after=after, spans=(label,))
    return program


def test_two_that_share_an_uplink_take_twice_as_long() -> None:
    """Both to the bit, and both directions of the same wire do not meet."""
    program = operations((3.0, []), (3.0, []), (3.0, []))
    traffic = {0: between((0, 4)), 1: between((1, 5)), 2: between((6, 2))}
    starts, ends = run_on_links(program, traffic)
    assert starts.tolist() == [0.0, 0.0, 0.0]
    assert ends.tolist() == [6.0, 6.0, 3.0]


def test_sharing_lasts_as_long_as_both_are_under_way() -> None:
    """The second begins in the middle of the first: 1 s alone, 2 s at half, then the second alone."""
    program = operations((2.0, []), (1.0, []), (2.0, [(1, 0.0)]))
    _, ends = run_on_links(program, {0: between((0, 4)), 2: between((1, 5))})
    assert ends.tolist() == [3.0, 1.0, 4.0]


def test_a_flow_that_is_over_leaves_its_link() -> None:
    """An operation with a short flow on the shared uplink and a long one elsewhere frees the uplink early."""
    program = operations((4.0, []), (2.0, []))
    mixed = between((0, 4), (1, 2), shares=(1.0, 4.0))
    _, ends = run_on_links(program, {0: mixed, 1: between((3, 5))})
    # The short flow has 1 s of work alone: at half it is over after 2 s, when the other has done 1 s of 2.
    assert ends.tolist() == [4.0, 3.0]


def test_nobody_shares_and_nothing_changes() -> None:
    """The bits of the engine without links."""
    program = operations((0.1, []), (0.2, [(0, 0.3)]), (0.7, [(0, 0.0)]), (1e-9, [(1, 0.1), (2, 0.0)]))
    traffic = {0: between((0, 4)), 1: between((0, 1)), 2: between((2, 3)), 3: between((0, 4))}
    starts, ends = run_on_links(program, traffic)
    assert (starts.tolist(), ends.tolist()) == engine_compiled.run(program)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), min_size=1, max_size=6))
def test_messages_that_begin_together_end_as_the_flow_solver_says(pairs: list[tuple[int, int]]) -> None:
    """One flow an operation, of 1 GB, which takes 1 s alone at the port's or the uplink's bandwidth."""
    pairs = [(source, target) for source, target in pairs if source != target]
    if not pairs:
        return
    traffic = {number: between(pair) for number, pair in enumerate(pairs)}
    seconds = [1e9 / float(one.alone[0]) for one in traffic.values()]
    _, ends = run_on_links(operations(*((one, []) for one in seconds)), traffic)
    groups = [
        Group(steps=(Step(sources=np.array([s]), targets=np.array([t]), sizes=np.array([1e9])),))
        for s, t in pairs
    ]
    assert ends == pytest.approx(flow_collective_s(UP, groups), rel=1e-9)


def test_rates_are_max_min_fair() -> None:
    """Three flows on an uplink have a third each; one on its own port has all."""
    found = rates(UP, [between(pair).routes[0] for pair in ((0, 4), (1, 5), (2, 6), (7, 3))])
    assert found == pytest.approx([1e9 / 3, 1e9 / 3, 1e9 / 3, 1e9])


def fat_tree_cluster(oversubscription: float = 4.0) -> Cluster:
    """Eight nodes of one GPU on two leaves, whose uplinks carry a quarter of what their hosts send."""
    spec = FabricSpec(kind="fat-tree", radix=4, oversubscription=oversubscription, trunk="ib")
    return gpu_cluster(nodes=8, per_node=1, fabric=spec)


def test_a_step_without_sharing_is_the_default_one() -> None:
    """One pipeline on a switch: each message has its link for itself."""
    plan = make_plan(job(), Strategy(pp=4))
    cluster = gpu_cluster(nodes=4, per_node=1, jitter=0.05)
    usual, flow = (simulate(plan, cluster, samples=3, network=network) for network in ("closed-form", "flow"))
    assert flow.spans == usual.spans
    assert flow.step_times_s == usual.step_times_s


def test_groups_that_meet_on_an_uplink_slow_each_other() -> None:
    """Two groups of data-parallel ranks over both leaves: they share one uplink, or have one each."""
    cluster = fat_tree_cluster()
    plan = make_plan(job(global_batch=64), Strategy(dp=4, tp=2, bucket_bytes=2**40))
    shared = simulate(plan, cluster, network="flow")
    wide = fat_tree_cluster(oversubscription=1.0)
    apart = simulate(plan, wide, network="flow")
    alone = build_program(plan, cluster, alone=True).program

    def reductions(trace: Any) -> list[float]:
        return sorted({round(span.duration, 12) for span in trace.spans if span.stream == "dp"})

    (once,) = {round(op.duration, 12) for op in alone.operations if op.spans and op.spans[0].stream == "dp"}
    assert reductions(apart) == [pytest.approx(once)]
    assert reductions(shared) == [pytest.approx(2 * once)]


@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        ({}, {"network": "wires"}, "network 'wires' is unknown"),
        ({}, {"network": "flow", "engine": "simpy"}, "does not know engine simpy"),
        ({}, {"network": "flow", "stepwise": True}, "step by step"),
    ],
)
def test_what_flow_level_does_not_know_is_refused(
    changes: dict[str, Any], options: dict[str, Any], said: str
) -> None:
    """With what to do instead."""
    with pytest.raises(InputError, match=said):
        simulate(make_plan(job(), Strategy(pp=2)), gpu_cluster(**changes), **options)


def test_hosts_and_servers_are_refused() -> None:
    """Cores that ranks share, and servers, whose queues are played elsewhere."""
    with pytest.raises(InputError, match="shared cores"):
        simulate(make_plan(job(), Strategy(pp=2)), cpu_cluster(), network="flow")
    served = Strategy(dp=2, gradient_exchange="parameter_server", servers=1)
    with pytest.raises(InputError, match="parameter servers"):
        simulate(make_plan(job(), served), gpu_cluster(), network="flow")


def test_too_many_operations_are_refused() -> None:
    """Before any is played."""
    with pytest.raises(InputError, match="there are at most"):
        simulate(make_plan(job(global_batch=2**20), Strategy(dp=32)), gpu_cluster(nodes=8), network="flow")
