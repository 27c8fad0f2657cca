"""Bytes between stages, replicas and servers: what is sent is received, in the sizes of the plan."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from generators import jobs_and_strategies
from hypothesis import given, settings
from machines import gpt3_175b, gpu_cluster, job, llama

from traincast.sim.errors import InputError
from traincast.sim.model.hf_config import read_model
from traincast.sim.model.layer import BLOCK, EMBEDDING, HEAD, MOE_BLOCK
from traincast.sim.plan.action import Kind
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.plan_file import plan_from_dict, plan_to_dict
from traincast.sim.plan.strategy import Strategy
from traincast.sim.plan.traffic import layers_gradient_bytes, tensor_summing, tied_bytes
from traincast.sim.predict.simulate import simulate

JOB = job(llama(layers=4), global_batch=8)
RECEIVED = {Kind.SEND_F: (Kind.RECV_F, 1), Kind.SEND_B: (Kind.RECV_B, -1)}
"""By kind of send: its receive, and where its stage is."""


@settings(deadline=None)
@given(jobs_and_strategies())
def test_every_send_has_its_receive(drawn):
    plan = make_plan(*drawn)
    actions = [action for own in plan.actions for action in own]
    sent = Counter(
        (RECEIVED[a.kind][0], a.stage + RECEIVED[a.kind][1], a.micro_batch)
        for a in actions
        if a.kind in RECEIVED
    )
    received = Counter(
        (a.kind, a.stage, a.micro_batch) for a in actions if a.kind in (Kind.RECV_F, Kind.RECV_B)
    )
    assert sent == received
    assert set(sent.values()) <= {1}


@settings(deadline=None)
@given(jobs_and_strategies())
def test_every_pull_and_push_of_a_worker_is_a_servers_too(drawn):
    plan = make_plan(*drawn)
    for kind in (Kind.PULL, Kind.PUSH):
        asked = [action.bucket for action in plan.actions[0] if action.kind is kind]
        for server, own in enumerate(plan.server_actions):
            held = [portion.bucket for portion in plan.portions if portion.server == server]
            wanted = [bucket for bucket in asked if bucket in held]
            served = Counter((action.worker, action.bucket) for action in own if action.kind is kind)
            assert served == {(worker, bucket): 1 for worker in range(plan.strategy.dp) for bucket in wanted}


@pytest.mark.parametrize(
    "strategy",
    [
        Strategy(pp=4, micro_batch=2),
        Strategy(pp=2, vp=2, schedule="interleaved", micro_batch=2),
        Strategy(pp=2, dp=2, tp=2, micro_batch=2),
    ],
)
def test_the_simulator_sends_the_plans_sizes(strategy):
    plan = make_plan(JOB, strategy)
    for span in simulate(plan, gpu_cluster()).spans:
        if span.kind in ("SEND_F", "RECV_B"):
            assert span.bytes == plan.sizes.messages[span.stage]
        elif span.kind in ("RECV_F", "SEND_B"):
            assert span.bytes == plan.sizes.messages[span.stage - 1]
        elif span.kind == "REDUCE_GRAD":
            assert span.bytes == plan.sizes.buckets[span.stage][span.micro_batch]


@pytest.mark.parametrize("overlapped", [True, False])
def test_servers_exchange_the_plans_sizes(overlapped):
    servers = {"gradient_exchange": "parameter_server", "servers": 2}
    plan = make_plan(JOB, Strategy(dp=2, **servers, overlap_gradients=overlapped))
    spans = [span for span in simulate(plan, gpu_cluster()).spans if span.stream == "ps"]
    served = [span for span in spans if span.rank in plan.server_ranks]
    rounds = 2 if overlapped else 1
    assert len(served) == 2 * 2 * len(plan.portions) * rounds
    by_server = [sum(s.bytes for s in served if s.stage == server) for server in range(2)]
    assert by_server == [2 * 2 * size * rounds for size in plan.sizes.shards]
    assert sum(span.bytes for span in served) == sum(
        s.bytes for s in spans if s.rank not in plan.server_ranks
    )


def test_sizes_stand_in_plan_files_and_must_be_right():
    plan = make_plan(JOB, Strategy(pp=2, dp=2))
    data = plan_to_dict(plan)
    assert data["sizes"]["messages"] == list(plan.sizes.messages)
    assert plan_from_dict({name: value for name, value in data.items() if name != "sizes"}) == plan
    data["sizes"]["messages"] = [1.0]
    with pytest.raises(InputError, match=r"expected .*write these"):
        plan_from_dict(data)


def test_gradients_are_reduced_in_fp32_for_bf16_weights():
    """As Megatron-LM; divided by tp."""
    block = gpt3_175b().layers[1]
    whole = block.whole_parameters
    held = (block.parameters - whole) / 8 + whole
    assert layers_gradient_bytes(job(gpt3_175b(), precision="bf16"), Strategy(tp=8), [block]) == held * 4


def test_tensor_parallel_ranks_sum_what_each_has_whole_before_a_step():
    """With sequence parallelism all of it; without only what sees a part of the heads, of which GPT-3 has
    nothing. Megatron-LM sums whole buffers, what runs here its shards."""
    gpt, split = job(gpt3_175b(), precision="bf16"), Strategy(tp=8, sequence_parallel=True)
    layers = gpt.model.layers
    whole = sum(layer.whole_parameters for layer in layers)
    summed = tensor_summing(gpt, split, layers, executed=False)
    assert summed is not None
    assert (summed.operation, summed.group, summed.size_bytes) == ("all_reduce", "tp", whole * 4.0)
    assert tensor_summing(gpt, replace(split, sequence_parallel=False), layers, executed=False) is None
    assert tensor_summing(gpt, Strategy(dp=8), layers, executed=False) is None
    sharded = replace(split, dp=4, sharding="zero1")
    assert tensor_summing(gpt, sharded, layers, executed=False) == summed
    part = tensor_summing(gpt, sharded, layers, executed=True)
    assert part is not None
    assert part.size_bytes == whole * 4.0 / 4


@pytest.mark.parametrize("split", [True, False])
def test_gradients_are_summed_of_whole_parameters_only(split):
    """Norms of queries and keys, latents, routers and gates always; what has no gradient never."""
    few = read_model("deepseek-v3").decoder
    for kind in (EMBEDDING, BLOCK, MOE_BLOCK, HEAD):
        partial = few.partial_parameters(kind, split_tokens=split)
        fixed = few.experts if kind == MOE_BLOCK else 0
        outside = {EMBEDDING: 0, HEAD: few.norm_parameters}.get(kind, 2 * few.norm_parameters)
        assert partial == few.whole_parameters(kind) - fixed - (0 if split else outside)


def test_ends_of_a_pipeline_sum_a_tied_matrix_whole_or_in_shards():
    tied = job(gpt3_175b(), precision="bf16")
    decoder = tied.model.decoder
    whole = decoder.vocab * decoder.hidden / 2 * 4.0
    strategy = Strategy(dp=4, pp=2, tp=2, sharding="zero1")
    assert tied_bytes(tied, strategy, executed=False) == whole
    assert tied_bytes(tied, strategy, executed=True) == whole / 4
    assert tied_bytes(tied, replace(strategy, sharding="ddp"), executed=True) == whole
