"""All layers of a plan's model, forward and backward on its ranks, against one process and the simulator."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from ranks import run_ranks

from traincast.executor.measure.heartbeat import Heartbeat
from traincast.executor.measure.recorder import CpuClock, Recorder
from traincast.executor.model.decoder import build_layers
from traincast.executor.model.pieces import Piece, assemble
from traincast.executor.model.workload import Workload
from traincast.executor.parallel import context, tensor
from traincast.executor.parallel.process_groups import make_groups
from traincast.executor.parallel.rank_context import RankContext
from traincast.executor.parallel.wire import Wire
from traincast.sim.costs.traffic import layer_collectives
from traincast.sim.model.decoder import Decoder
from traincast.sim.model.model import Model
from traincast.sim.plan.action import Action, Kind
from traincast.sim.plan.job import Job
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.plan import Plan
from traincast.sim.plan.strategy import Strategy

OPERATIONS = {
    "all_reduce": "all_reduce",
    "all_gather": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "all_to_all": "all_to_all",
    "shift": "send_recv",
}
"""Methods of a Wire, by what the simulator calls them."""
SEED = 3
LOSS_ERROR, GRADIENT_ERROR = 1e-6, 1e-5
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


def job_of(decoder: Decoder, **changes: Any) -> Job:
    """Three samples of sixteen tokens in fp32."""
    fields = {"global_batch": 3, "seq_len": 16, "precision": "fp32", **changes}
    return Job(model=Model(name="small", decoder=decoder), **fields)


def plan_of(decoder: Decoder, **strategy: Any) -> Plan:
    """Of one micro-batch."""
    return make_plan(job_of(decoder), Strategy(dp=1, pp=1, micro_batch=3, stack="torch-autocast", **strategy))


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


def one_rank(rank: int, plan: Plan) -> Found:
    """Forward, backward and sums over replicas of one micro-batch on ``rank``."""
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
            workload=Workload(job=job, seed=SEED),
        )
        layers = build_layers(
            job.model.decoder, range(len(job.model.layers)), seed=SEED, recompute=strategy.recompute
        )
        tensor.apply(layers, here)
        context.apply(layers, here)
        traffic = _watched(recorder)
        inputs, targets = (context.share_tokens(part, here) for part in batch_of(job))
        recorder.current = Action(0, Kind.FORWARD, 0)
        loss = layers.loss(layers(inputs), targets) / strategy.cp
        recorder.current = Action(0, Kind.BACKWARD, 0)
        loss.backward()
        recorder.settle()
        marked = Counter((mark.action[1], mark.stream, mark.bytes) for mark in recorder.marks)
        passes = Counter(traffic)
        sent: Counter[tuple[str, str, float]] = Counter()
        for (kind, dimension, _, size), count in passes.items():
            sent[kind, dimension, size] += count
        assert marked == sent
        recorder.current = Action(0, Kind.STEP)
        tensor.sum_whole_gradients(layers, here)
        loss = loss.detach().clone()
        if groups.replicas is not None:
            for part in (loss, *(p.grad for p in layers.parameters())):
                dist.all_reduce(part, group=groups.replicas)
    named = dict(layers.named_parameters())
    return Found(
        loss,
        {name: p.detach() for name, p in named.items()},
        {name: p.grad for name, p in named.items()},
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
    """What the simulator says that one micro-batch's passes communicate."""
    found: Traffic = Counter()
    for layer in plan.job.model.layers:
        for kind, backward in (("F", False), ("B", True)):
            for one in layer_collectives(plan.job, plan.strategy, layer.kind, backward=backward):
                found[kind, one.dimension, one.operation, one.size_bytes] += round(one.count * one.share)
    return found


def check(plan: Plan) -> list[Found]:
    """Loss and gradients are those of one process, and the traffic is the predicted one. What ranks said."""
    job = plan.job
    whole = build_layers(job.model.decoder, range(len(job.model.layers)), seed=SEED)
    inputs, targets = batch_of(job)
    loss = whole.loss(whole(inputs), targets)
    loss.backward()
    found = run_ranks(plan.world_size, one_rank, plan)
    for one in found:
        torch.testing.assert_close(one.loss, loss.detach(), rtol=LOSS_ERROR, atol=0.0)
    parameters = assemble((one.parameters, one.pieces) for one in found)
    gradients = assemble((one.gradients, one.pieces) for one in found)
    named = dict(whole.named_parameters())
    assert sorted(parameters) == sorted(named)
    for name, parameter in named.items():
        assert torch.equal(parameters[name], parameter)
        assert parameter.grad is not None
        error = (gradients[name] - parameter.grad).abs().max() / parameter.grad.abs().max()
        assert float(error) < GRADIENT_ERROR, f"gradient of {name} is off by {float(error):.2e}"
    for one in found[1:]:
        for name in set(named) - set(one.pieces):
            assert torch.equal(one.gradients[name], found[0].gradients[name]), f"{name} differs by rank"
    expected = predicted(plan)
    for one in found:
        assert one.traffic == expected, (one.traffic - expected, expected - one.traffic)
    return found
