"""Expert parallelism: the numbers of one process, and the traffic that the simulator predicts."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")

from agreement import assert_agrees, run
from divided_layers import DEEPSEEK, LLAMA, MIXTRAL, QWEN_MOE, Found, check, job_of, predicted

from traincast.executor.model.reference import single_process
from traincast.executor.parallel import expert
from traincast.executor.parallel.surroundings import Surroundings
from traincast.sim.model.decoder import Decoder
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.plan import Plan
from traincast.sim.plan.rank_parameters import split_parameters
from traincast.sim.plan.strategy import Strategy

DECODERS = {"mixtral": MIXTRAL, "qwen-moe": QWEN_MOE, "deepseek-v3": DEEPSEEK}
LEARNED, SKEWED = {"routing": "learned"}, {"expert_imbalance": 1.5}


def plan_of(decoder: Decoder, job: dict[str, Any] | None = None, *, dp: int = 1, **strategy: Any) -> Plan:
    """Of four samples, one micro-batch on each replica."""
    whole = job_of(decoder, global_batch=4, **(job or {}))
    return make_plan(whole, Strategy(dp=dp, micro_batch=4 // dp, stack="torch-autocast", **strategy))


def totals(traffic) -> dict[tuple[str, str, str], int]:
    """How often each operation was there in a pass."""
    found: dict[tuple[str, str, str], int] = {}
    for (kind, dimension, operation, _), count in traffic.items():
        found[kind, dimension, operation] = found.get((kind, dimension, operation), 0) + count
    return found


def largest(every: list) -> dict[tuple[str, str, str], float]:
    """The most bytes of each operation, of any rank."""
    found: dict[tuple[str, str, str], float] = {}
    for traffic in every:
        for kind, dimension, operation, size in traffic:
            found[kind, dimension, operation] = max(found.get((kind, dimension, operation), 0.0), size)
    return found


def held(one: Found, experts: bool) -> int:
    """Parameters of a rank: those of experts, or all others."""
    return sum(p.numel() for name, p in one.parameters.items() if (".experts." in name) == experts)


def named(cases: list[tuple[str, dict[str, Any]]]) -> Any:
    """Decoders by name and strategies, as parameters of a test."""
    ids = [" ".join([name, *(f"{field}{value}" for field, value in given.items())]) for name, given in cases]
    values = [(DECODERS[name], given) for name, given in cases]
    return pytest.mark.parametrize(("decoder", "strategy"), values, ids=ids)


SPLIT = {"dp": 2, "tp": 2, "ep": 2, "sequence_parallel": True}


@pytest.mark.slow
@named(
    [
        ("mixtral", {"dp": 2, "ep": 2}),
        ("qwen-moe", {"dp": 2, "ep": 2}),
        ("deepseek-v3", {"dp": 2, "ep": 2}),
        ("mixtral", {"dp": 4, "ep": 4}),
        ("deepseek-v3", {"dp": 4, "ep": 2}),
        ("mixtral", {"cp": 2, "ep": 2}),
        ("deepseek-v3", {"cp": 2, "ep": 2}),
        ("qwen-moe", {"dp": 2, "cp": 2, "ep": 4}),
        ("mixtral", SPLIT),
        ("qwen-moe", SPLIT),
        ("deepseek-v3", SPLIT),
        ("qwen-moe", {"tp": 2}),
        ("deepseek-v3", {"tp": 2}),
        ("qwen-moe", {"tp": 2, "sequence_parallel": True}),
    ]
)
def test_agrees_with_one_process_and_with_the_simulator(decoder: Decoder, strategy: dict[str, Any]):
    """Loss, gradients and parameters, and every collective of either pass, where loads are even; a rank holds
    as many parameters as predicted."""
    plan = plan_of(decoder, **strategy)
    found = check(plan)
    dense, experts = split_parameters(plan.job.model.layers, plan.strategy)
    assert {held(one, experts=True) for one in found} == {experts}
    assert {held(one, experts=False) for one in found} == {dense}


@pytest.mark.slow
@named(
    [
        ("mixtral", {"dp": 2, "ep": 2}),
        ("deepseek-v3", {"dp": 4, "ep": 4}),
        ("mixtral", {"dp": 2, "cp": 2, "ep": 2}),
        ("qwen-moe", SPLIT),
    ]
)
def test_the_busiest_rank_is_as_busy_as_the_job_says(decoder: Decoder, strategy: dict[str, Any]):
    """With the numbers of one process that skews alike; the others send and are sent less."""
    plan = plan_of(decoder, SKEWED, **strategy)
    found = check(plan, traffic=False)
    expected = predicted(plan)
    assert [totals(one.traffic) for one in found] == [totals(expected)] * plan.world_size
    assert largest([one.traffic for one in found]) == largest([expected])


@pytest.mark.slow
@named(
    [
        ("deepseek-v3", {"dp": 2, "ep": 2}),
        ("deepseek-v3", {"cp": 2, "ep": 2, "cp_exchange": "all_to_all", "recompute": "full"}),
        ("qwen-moe", {"cp": 2, "recompute": "full"}),
        ("deepseek-v3", {"tp": 2}),
        ("qwen-moe", {**SPLIT, "recompute": "full"}),
        ("deepseek-v3", {"tp": 2, "cp": 2, "ep": 2, "sequence_parallel": True}),
    ]
)
def test_learned_routing_is_that_of_one_process(decoder: Decoder, strategy: dict[str, Any]):
    """Also computed again. Ranks tell each other their counts, so often as predicted."""
    plan = plan_of(decoder, LEARNED, **strategy)
    for one in check(plan, traffic=False):
        assert totals(one.traffic) == totals(predicted(plan))


@pytest.mark.slow
@named(
    [
        ("qwen-moe", {"dp": 2, "ep": 2}),
        ("qwen-moe", {"tp": 2}),
        ("mixtral", {"tp": 2, "sequence_parallel": True}),
        ("qwen-moe", SPLIT),
    ]
)
def test_what_is_computed_again_is_sent_again(decoder: Decoder, strategy: dict[str, Any]):
    """Tokens go to their experts a second time, and what comes back is weighed again."""
    check(plan_of(decoder, recompute="full", **strategy))


@pytest.mark.slow
def test_a_rank_without_tokens_takes_part():
    """All tokens go to the experts of the last rank, of which each visits both."""
    plan = plan_of(MIXTRAL, {"expert_imbalance": 100.0}, dp=4, ep=4)
    found = check(plan, traffic=False)
    assert largest([one.traffic for one in found]) == largest([predicted(plan)])
    idle = [one for one in found if all(not g.any() for n, g in one.gradients.items() if ".experts." in n)]
    assert len(idle) == 3


def test_overlapped_micro_batches_are_refused():
    """Every dispatch runs: all ranks are on one node."""
    for kind in ("cpu", "gpu"):
        here = Surroundings(kind=kind)
        assert expert.refusals(plan_of(LLAMA, dp=2), here) == []
        assert expert.refusals(plan_of(MIXTRAL, dp=2, ep=2, expert_dispatch="per_node"), here) == []
        (why,) = expert.refusals(plan_of(MIXTRAL, dp=2, ep=2, overlap_experts=True), here)
        assert "overlap_experts" in why


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "strategy"),
    [
        ({}, Strategy(dp=4, ep=2, micro_batch=1)),
        (SKEWED, Strategy(dp=2, pp=2, ep=2, micro_batch=2, schedule="zb-h1")),
        (LEARNED, Strategy(dp=2, ep=2, micro_batch=2, recompute="full")),
    ],
    ids=["balanced", "skewed, in a pipeline with halves of backward", "learned, computed again"],
)
def test_training_is_that_of_one_process(changes: dict[str, Any], strategy: Strategy, tmp_path):
    """Steps of the whole trainer, experts' gradients summed over those that hold them alike; and the run says
    how busy the busiest rank was."""
    job = job_of(DEEPSEEK, global_batch=8, optimizer="sgd", learning_rate=0.5, **changes)
    plan = make_plan(job, strategy)
    trace, states = run(plan, tmp_path, steps=1, warmup=1)
    assert_agrees(single_process(job, 2, ep=strategy.ep), trace, states)
    measured = trace.metadata["expert_imbalance"]
    if changes == LEARNED:
        assert 1.0 < measured < 2.0
    else:
        assert measured == pytest.approx(job.expert_imbalance)
    sent = [span.bytes for span in trace.spans if span.stream == "ep"]
    whole = strategy.micro_batch * job.seq_len * 2 * DEEPSEEK.hidden * 4
    if changes != LEARNED:
        assert max(sent) == whole * job.expert_imbalance
        passes = 2 * plan.micro_batches * plan.world_size // strategy.pp
        assert len(sent) == 2 * passes
