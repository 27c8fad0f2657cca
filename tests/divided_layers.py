"""All layers of a plan's model, forward and backward on its ranks, against one process and the simulator."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from ranks import run_ranks

from traincast.executor.measure.heartbeat import Heartbeat
from traincast.executor.measure.recorder import CpuClock, Recorder
from traincast.executor.model.decoder import build_layers
from traincast.executor.model.pieces import Piece, assemble
from traincast.executor.model.routing import Routing
from traincast.executor.model.workload import Workload
from traincast.executor.parallel import context, expert, tensor
from traincast.executor.parallel.process_groups import make_groups
from traincast.executor.parallel.rank_context import RankContext
from traincast.executor.parallel.wire import Wire
from traincast.executor.train.stage import Stage, precision
from traincast.sim.costs.traffic import layer_collectives
from traincast.sim.model.decoder import Decoder
from traincast.sim.model.model import Model
from traincast.sim.plan.action import Action, Kind
from traincast.sim.plan.job import Job
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.plan import Plan
from traincast.sim.plan.strategy import Strategy
from traincast.sim.plan.traffic import tensor_summing

OPERATIONS = {
    "all_reduce": "all_reduce",
    "all_gather": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "all_to_all": "all_to_all",
    "shift": "send_recv",
}
"""Methods of a Wire, by what the simulator calls them."""
SEED = 3
ERRORS = {"fp32": (1e-6, 1e-5), "bf16": (3e-3, 6e-2)}
"""Of loss and gradients, by precision: what rounding does."""
Traffic = Counter[tuple[str, str, str, float]]
"""How often (pass, dimension, operation, bytes) was there."""

GPT2 = Decoder(
    layers=2,
    hidden=32,
    heads=8,
    kv_heads=8,
    head_dim=4,
    ffn=48,
    vocab=67,
    max_positions=64,
    activation="gelu",
    norm="layernorm",
    positions="learned",
    attention_bias=True,
    output_bias=True,
    mlp_bias=True,
    tied_embeddings=True,
)
LATENT = Decoder(
    layers=2,
    hidden=32,
    heads=4,
    kv_heads=4,
    head_dim=12,
    ffn=48,
    vocab=64,
    max_positions=64,
    q_rank=16,
    kv_rank=12,
    rope_dim=4,
    v_head_dim=8,
)
LLAMA = Decoder(
    layers=2,
    hidden=32,
    heads=8,
    kv_heads=4,
    head_dim=8,
    ffn=48,
    vocab=64,
    max_positions=64,
    qk_norm=True,
)


MIXTRAL = replace(LLAMA, experts=8, experts_per_token=2, expert_ffn=24, qk_norm=False)
QWEN_MOE = replace(MIXTRAL, shared_ffn=40, shared_gate=True, attention_bias=True)
DEEPSEEK = replace(
    MIXTRAL,
    kv_heads=8,
    head_dim=12,
    shared_ffn=24,
    router_bias=True,
    dense_layers=1,
    q_rank=16,
    kv_rank=12,
    rope_dim=4,
    v_head_dim=8,
)


def job_of(decoder: Decoder, **changes: Any) -> Job:
    """Three samples of sixteen tokens in fp32."""
    fields = {"global_batch": 3, "seq_len": 16, "precision": "fp32", **changes}
    return Job(model=Model(name="small", decoder=decoder), **fields)


def plan_of(decoder: Decoder, *, precision: str = "fp32", **strategy: Any) -> Plan:
    """Of one micro-batch."""
    own = Strategy(dp=1, pp=1, micro_batch=3, stack="torch-autocast", **strategy)
    return make_plan(job_of(decoder, precision=precision), own)


def batch_of(job: Job) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and targets [samples, seq]."""
    generator = torch.Generator().manual_seed(11)
    shape = (job.global_batch, job.seq_len + 1)
    rows = torch.randint(0, job.model.decoder.vocab, shape, generator=generator)
    return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


class Found(NamedTuple):
    """What a rank tells."""

    loss: torch.Tensor
    parameters: dict[str, torch.Tensor]
    gradients: dict[str, torch.Tensor]
    pieces: dict[str, Piece]
    partial: set[str]
    traffic: Traffic


def one_rank(rank: int, plan: Plan, halves: bool) -> Found:
    """Forward, backward, perhaps in halves, and sums over replicas of one micro-batch on ``rank``."""
    job, strategy = plan.job, plan.strategy
    groups = make_groups(plan, rank)
    with tempfile.TemporaryDirectory() as directory:
        recorder = Recorder(rank, CpuClock(), Heartbeat(Path(directory) / "beat"))
        here = RankContext(
            plan=plan,
            rank=rank,
            device=torch.device("cpu"),
            groups=groups,
            recorder=recorder,
            workload=Workload(job=job, seed=SEED, ep=strategy.ep),
        )
        layers = build_layers(
            job.model.decoder,
            range(len(job.model.layers)),
            seed=SEED,
            recompute=strategy.recompute,
            routing=Routing.of(job, strategy.ep),
        )
        tensor.apply(layers, here)
        context.apply(layers, here)
        expert.apply(layers, here)
        layers.set_loss_scale(1.0 / strategy.replicas)
        traffic = _watched(recorder)
        replica = plan.coordinates(rank)[1]
        own = (part.chunk(strategy.dp)[replica] for part in batch_of(job))
        inputs, targets = (context.share_tokens(part, here) for part in own)
        recorder.current = Action(0, Kind.FORWARD, 0)
        stage = Stage(
            layers,
            lambda: [p for p in layers.parameters() if p.requires_grad],
            takes_inputs=True,
            split_after=(lambda tokens: (layers.first(tokens), layers.rest)) if halves else None,
        )
        with precision(job, here.device):
            loss = layers.loss(stage.forward(0, inputs), targets) / strategy.replicas
        stage.ends_in(0, loss)
        recorder.current = Action(0, Kind.BACKWARD, 0)
        if halves:
            stage.backward_input(0, None)
            stage.backward_weight(0)
        else:
            stage.backward(0, None)
        recorder.current = Action.of(Kind.STEP, rank=0)
        whole = tensor.whole_parameters(layers)
        tensor.sum_whole_gradients([p.grad for p in whole if p.grad is not None], here)
        recorder.settle()
        marked = Counter((mark.action[1], mark.stream, mark.bytes) for mark in recorder.marks)
        passes = Counter(traffic)
        sent: Counter[tuple[str, str, float]] = Counter()
        for (kind, dimension, _, size), count in passes.items():
            sent[kind, dimension, size] += count
        assert marked == sent
        loss = loss.detach().clone()
        experts = layers.expert_parameters()
        if groups.replicas is not None:
            dist.all_reduce(loss, group=groups.replicas)
        for parameter in layers.parameters():
            group = groups.expert_replicas if parameter in experts else groups.replicas
            if group is not None and parameter.grad is not None:
                dist.all_reduce(parameter.grad, group=group)
    named = dict(layers.named_parameters())
    return Found(
        loss,
        {name: p.detach() for name, p in named.items()},
        {name: p.grad for name, p in named.items() if p.grad is not None},
        layers.pieces,
        layers.partial_gradients,
        passes,
    )


def _watched(recorder: Recorder) -> Traffic:
    """Count what wires send from now on; this is a process of its own."""
    traffic: Traffic = Counter()
    for method, operation in OPERATIONS.items():
        plain = getattr(Wire, method)

        def watched(wire: Wire, *arguments: Any, _plain=plain, _operation=operation, **options: Any):
            pending = _plain(wire, *arguments, **options)
            kind = str(recorder.current)[1]
            traffic[kind, wire.stream, _operation, pending._mark.size_bytes] += 1
            return pending

        setattr(Wire, method, watched)
    return traffic


def predicted(plan: Plan) -> Traffic:
    """What the simulator says that one micro-batch's passes communicate, and tensor-parallel ranks before a
    step."""
    found: Traffic = Counter()
    for layer in plan.job.model.layers:
        for kind, backward in (("F", False), ("B", True)):
            for one in layer_collectives(plan.job, plan.strategy, layer.kind, backward=backward):
                found[kind, one.dimension, one.operation, one.size_bytes] += round(one.count * one.share)
    summed = tensor_summing(plan.job, plan.strategy, plan.job.model.layers, executed=True)
    if summed is not None:
        found["S", summed.dimension, summed.operation, summed.size_bytes] += 1
    return found


def check(plan: Plan, *, traffic: bool = True, halves: bool = False) -> list[Found]:
    """Loss and gradients are those of one process, and so is the predicted ``traffic``, with the backward in
    ``halves`` or not. What ranks said."""
    job = plan.job
    routing = Routing.of(job, plan.strategy.ep)
    whole = build_layers(job.model.decoder, range(len(job.model.layers)), seed=SEED, routing=routing)
    inputs, targets = batch_of(job)
    with precision(job, torch.device("cpu")):
        loss = whole.loss(whole(inputs), targets)
    loss_error, gradient_error = ERRORS[job.precision]
    loss.backward()
    found = run_ranks(plan.world_size, one_rank, plan, halves)
    for one in found:
        torch.testing.assert_close(one.loss, loss.detach(), rtol=loss_error, atol=0.0)
    parameters = assemble((one.parameters, one.pieces) for one in found)
    gradients = assemble((one.gradients, one.pieces) for one in found)
    named = dict(whole.named_parameters())
    assert sorted(parameters) == sorted(named)
    assert gradients.keys() == {name for name, p in named.items() if p.requires_grad}
    for name, parameter in named.items():
        assert torch.equal(parameters[name], parameter)
        if parameter.grad is None:
            continue
        error = (gradients[name] - parameter.grad).abs().max() / parameter.grad.abs().max()
        assert float(error) < gradient_error, f"gradient of {name} is off by {float(error):.2e}"
    for one in found[1:]:
        for name in set(named) - set(one.pieces):
            mine, first = one.gradients.get(name), found[0].gradients.get(name)
            assert mine is first is None or torch.equal(mine, first), f"{name} differs by rank"
    if traffic:
        expected = predicted(plan)
        for one in found:
            assert one.traffic == expected, (one.traffic - expected, expected - one.traffic)
    return found
