"""Hypothesis strategy of plans over the whole space of Strategy and Job, small enough to be run in a test.

What the executor is known to refuse is drawn seldom, so that most plans run.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product
from math import prod
from typing import Any

from hypothesis import strategies as st

from traincast.sim.model.decoder import Decoder
from traincast.sim.model.model import Model
from traincast.sim.plan.choices import (
    ATTENTIONS,
    COLLECTIVE_ALGORITHMS,
    CP_EXCHANGES,
    OFFLOADS,
    ROUTINGS,
    SHARDINGS,
)
from traincast.sim.plan.job import Job
from traincast.sim.plan.make_plan import make_plan, order_faults
from traincast.sim.plan.plan import Plan
from traincast.sim.plan.schedules import find_schedule, schedules
from traincast.sim.plan.software_stacks import STACKS
from traincast.sim.plan.strategy import Strategy
from traincast.sim.plan.strategy_rules import strategy_faults

RANKS = 4
COMPILED = "torch-autocast-compile"
"""Takes a compiler and seconds for each block: runs of it are tests of their own."""
SELDOM = 30
"""One draw in so many is of what is known to be refused."""
NETWORKS = {"mlp-digits": 1, "bert-tiny": 8, "gnmt-tiny": 6}
"""Named networks without norms over samples, and the tokens of one."""


def _seldom(usual: Any, others: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    """``usual``, but for one draw in `SELDOM`."""
    return st.integers(1, SELDOM).flatmap(
        lambda n: st.sampled_from(others) if n == SELDOM else st.just(usual)
    )


@st.composite
def small_plans(draw: st.DrawFn) -> Plan:
    """A valid plan of at most `RANKS` ranks, whatever the executor makes of it."""
    network = draw(st.integers(1, 12)) == 12
    job = draw(_networks() if network else _decoder_jobs())
    servers = draw(st.integers(1, 5)) == 5
    fields = draw(_served() if servers else _grids(job))
    fields |= draw(_common(job))
    strategy = draw(_cut(job, Strategy(**fields)))
    if strategy.stages > job.model.blocks and not strategy.stage_layers:
        strategy = replace(strategy, pp=1, vp=1, schedule="1f1b")
    fitting = [m for m in range(1, 9) if not order_faults(strategy, m)]
    count = draw(st.sampled_from(fitting[:4]))
    job = replace(job, global_batch=strategy.dp * strategy.micro_batch * count)
    while strategy_faults(strategy, job):
        strategy = _simpler(strategy, job)
    return make_plan(job, strategy)


def _simpler(strategy: Strategy, job: Job) -> Strategy:
    """Without the fields whose rules are broken."""
    plain = Strategy()
    broken = {fault.path.removeprefix("strategy.") for fault in strategy_faults(strategy, job)}
    known = {name: getattr(plain, name) for name in broken if hasattr(plain, name)}
    changed = replace(strategy, **known)
    if changed == strategy:
        return replace(plain, dp=strategy.dp, micro_batch=strategy.micro_batch)
    return changed


@st.composite
def _decoder_jobs(draw: st.DrawFn) -> Job:
    model = Model(name="drawn", decoder=draw(decoders()))
    return Job(
        model=model,
        global_batch=1,
        seq_len=draw(st.sampled_from([8, 16])),
        expert_imbalance=draw(st.sampled_from([1.0, 1.3])),
        routing=draw(st.sampled_from(ROUTINGS)),
        **draw(_training()),
        data=draw(st.sampled_from(["", "synthetic"])),
    )


@st.composite
def _networks(draw: st.DrawFn) -> Job:
    name = draw(st.sampled_from(sorted(NETWORKS)))
    return Job(name, global_batch=1, seq_len=NETWORKS[name], **draw(_training()))


@st.composite
def _training(draw: st.DrawFn) -> dict[str, Any]:
    optimizer = draw(st.sampled_from(["sgd", "sgd", "momentum", "adamw"]))
    return {
        "optimizer": optimizer,
        # Adam makes steps of this size of whatever is rounding.
        "learning_rate": 1e-3 if optimizer == "adamw" else 0.02,
        "precision": draw(
            _seldom(draw(st.sampled_from([*["fp32"] * 9, "bf16"])), ("fp16", "fp16", "fp8", "tf32"))
        ),
        "dropout": draw(_seldom(False, (True,))),
    }


@st.composite
def decoders(draw: st.DrawFn) -> Decoder:
    """A few blocks of any family: heads and positions of every kind, dense or with experts or latents."""
    layers = draw(st.integers(1, 4))
    latent = draw(st.integers(1, 5)) == 5
    has_experts = draw(st.integers(1, 3)) == 3
    own: dict[str, Any] = {"kv_heads": 4 if latent else draw(st.sampled_from([2, 4]))}
    if latent:
        own |= {"kv_rank": 10, "q_rank": draw(st.sampled_from([0, 6])), "rope_dim": 4, "v_head_dim": 6}
    else:
        own |= {name: draw(st.booleans()) for name in ("attention_bias", "output_bias", "qk_norm")}
        own["positions"] = draw(st.sampled_from(["rope", "learned"]))
    if has_experts:
        shared = draw(st.sampled_from([0, 12]))
        own |= {
            "experts": 4,
            "experts_per_token": draw(st.integers(1, 3)),
            "expert_ffn": 12,
            "shared_ffn": shared,
            "shared_gate": bool(shared) and draw(st.booleans()),
            "router_bias": draw(st.booleans()),
            "dense_layers": draw(st.integers(0, layers)),
        }
    return Decoder(
        layers=layers,
        hidden=16,
        heads=4,
        head_dim=8,
        ffn=24,
        vocab=draw(st.sampled_from([32, 32, 33])),
        max_positions=16,
        activation=draw(st.sampled_from(["swiglu", "gelu"])),
        norm=draw(st.sampled_from(["rmsnorm", "layernorm"])),
        mlp_bias=draw(st.booleans()),
        tied_embeddings=draw(st.booleans()),
        **own,
    )


@st.composite
def _common(draw: st.DrawFn, job: Job) -> dict[str, Any]:
    """What goes with anything."""
    kinds = ("none", "full") if job.model.network else ("none", "none", "selective", "selective_op", "full")
    recompute = draw(st.sampled_from(kinds))
    if recompute == "selective_op" and (job.model.decoder.experts or job.model.decoder.kv_rank):
        recompute = draw(_seldom("full", (recompute,)))
    stacks = tuple(name for name in STACKS if name != COMPILED)
    return {
        "micro_batch": draw(st.integers(1, 2)),
        "recompute": recompute,
        "recompute_blocks": draw(st.integers(0, 2)) if recompute != "none" else 0,
        "attention": draw(_seldom("flash", ATTENTIONS)),
        "stack": draw(_seldom("torch-autocast", stacks)),
        "offload": draw(_seldom("none", OFFLOADS)),
        "collective_algorithm": draw(_seldom("auto", COLLECTIVE_ALGORITHMS)),
        "bucket_bytes": draw(st.sampled_from([1, 5000, 25 * 2**20])),
        "overlap_gradients": draw(st.booleans()),
        "overlap_transfers": draw(st.booleans()),
        "overlap_tensor": draw(_seldom(False, (True,))),
        "overlap_experts": draw(_seldom(False, (True,))),
        "expert_dispatch": draw(st.sampled_from(["all_to_all", "per_node"])),
    }


@st.composite
def _served(draw: st.DrawFn) -> dict[str, Any]:
    dp, colocated = draw(st.integers(1, 3)), draw(st.booleans())
    servers = draw(st.integers(1, min(2, dp) if colocated else min(2, RANKS - dp)))
    synchronies = ["sync", "async", "stale:1", "stale:0", "local:2", *(["backup:1"] if dp > 1 else [])]
    return {
        "dp": dp,
        "gradient_exchange": "parameter_server",
        "servers": servers,
        "server_replicas": draw(st.integers(1, servers)),
        "servers_colocated": colocated,
        "synchrony": draw(st.sampled_from(synchronies)),
    }


def _degrees(job: Job) -> st.SearchStrategy[tuple[int, int, int, int]]:
    """(dp, tp, pp, cp) of at most `RANKS` ranks, most of them of all."""
    divided = (1, 2, 4) if job.model.network is None else (1,)
    grids = [
        grid for grid in product((1, 2, 3, 4), divided, (1, 2, 3, 4), divided) if 1 < prod(grid) <= RANKS
    ]
    return st.sampled_from([*grids, *(grid for grid in grids for _ in range(3) if prod(grid) == RANKS)])


@st.composite
def _grids(draw: st.DrawFn, job: Job) -> dict[str, Any]:
    """Fields of a strategy without parameter servers."""
    dp, tp, pp, cp = draw(_degrees(job))
    usual = [one.name for one in schedules() if one.generate and (pp > 1 or one.virtual_stages != 2)]
    schedule = find_schedule(draw(st.sampled_from(usual)) if pp > 1 or draw(st.booleans()) else "1f1b")
    replicas, experts = dp * cp, job.model.decoder.experts
    eps = [d for d in (1, 2, 4) if replicas % d == 0 and (d % cp == 0 or cp % d == 0)]
    own: dict[str, Any] = {
        "dp": dp,
        "tp": tp,
        "pp": pp,
        "cp": cp,
        "ep": draw(st.sampled_from(eps)) if experts else 1,
        "vp": schedule.virtual_stages or draw(st.integers(1, 2)),
        "schedule": schedule.name,
        "cp_exchange": draw(st.sampled_from(CP_EXCHANGES)),
    }
    own["sequence_parallel"] = tp > 1 and (own["ep"] > 1 or draw(st.booleans()))
    if schedule.unflushed:
        return own
    if draw(st.integers(1, 8)) == 8:
        return {**own, "synchrony": f"local:{draw(st.integers(1, 3))}"}
    return {**own, **draw(_sharded(replicas, max(cp, own["ep"])))}


@st.composite
def _sharded(draw: st.DrawFn, replicas: int, inner: int) -> dict[str, Any]:
    sharding = draw(st.sampled_from(["ddp", *SHARDINGS] if replicas > 1 else ["ddp"] * 9 + ["zero1", "fsdp"]))
    own: dict[str, Any] = {"sharding": sharding}
    if sharding == "hsdp":
        degrees = [d for d in range(1, replicas + 1) if replicas % d == 0 and d % inner == 0]
        own["shard_degree"] = draw(st.sampled_from(degrees))
    if sharding in ("fsdp", "hsdp"):
        own["reshard_after_forward"] = draw(st.booleans())
        own["prefetch"] = draw(st.integers(0, 2))
    return own


@st.composite
def _cut(draw: st.DrawFn, job: Job, strategy: Strategy) -> Strategy:
    """``strategy`` with stages of drawn sizes, or as it is."""
    blocks, stages = job.model.blocks, strategy.stages
    if stages == 1 or draw(st.booleans()):
        return strategy
    cuts = sorted(draw(st.lists(st.integers(0, blocks), min_size=stages - 1, max_size=stages - 1)))
    layers = tuple(b - a for a, b in pairwise([0, *cuts, blocks]))
    changed = replace(strategy, stage_layers=layers)
    return (
        strategy if any(f.path.endswith("stage_layers") for f in strategy_faults(changed, job)) else changed
    )
