"""Hypothesis strategies shared by the tests: random Programs, and small valid Jobs with Strategies."""

from __future__ import annotations

from dataclasses import replace
from heapq import heapify, heappop, heappush
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

from traincast.sim.hardware.stragglers import SlowLink, Straggler, Stragglers, Transient
from traincast.sim.model.decoder import Decoder
from traincast.sim.model.model import Model
from traincast.sim.plan.choices import ROUTINGS
from traincast.sim.plan.job import OPTIMIZER_STATES, Job
from traincast.sim.plan.make_plan import order_faults
from traincast.sim.plan.mixed_precision import PRECISION_BYTES
from traincast.sim.plan.schedules import find_schedule, schedule_names, schedules
from traincast.sim.plan.software_stacks import STACKS
from traincast.sim.plan.strategy import (
    ATTENTIONS,
    COLLECTIVE_ALGORITHMS,
    CP_EXCHANGES,
    EXPERT_DISPATCHES,
    OFFLOADS,
    RECOMPUTES,
    SHARDINGS,
    Strategy,
)
from traincast.sim.plan.strategy_rules import strategy_faults
from traincast.sim.program.program import Program, SpanLabel

WHOLE_SECONDS = st.integers(0, 3).map(float)
"""Ties are the norm."""

AWKWARD_SECONDS = st.sampled_from([0.1, 0.2, 0.3, 1 / 3, 1e-9, 1e-30, 0.7, 123.456]) | st.floats(0.0, 1e6)
"""Sums that round, and ends that equal their starts though the duration is not zero."""


@st.composite
def programs(draw: st.DrawFn, max_operations: int = 16, max_resources: int = 3) -> Program:
    """A Program without deadlock: operations on none, one or several streams, with references to earlier
    and to later ids, delays, zero durations, and up to ``max_resources`` resources each."""
    count = draw(st.integers(0, max_operations))
    seconds = draw(st.sampled_from([WHOLE_SECONDS, WHOLE_SECONDS, AWKWARD_SECONDS]))
    streams = [tuple(draw(st.sets(st.integers(0, 3), max_size=3))) for _ in range(count)]
    order = _order(streams, draw(st.permutations(range(count))))
    program = Program()
    for resource in range(max_resources):
        program.resource("thing", resource)
    for op in range(count):
        needed = draw(st.lists(st.integers(0, max_resources - 1), unique=True)) if max_resources else ()
        label = SpanLabel(0, "compute", f"0F{op}", 0, op)
        program.add(draw(seconds), streams[op], resources=tuple(needed), spans=(label,))
    for place, op in enumerate(order):
        for source in draw(st.lists(st.integers(0, place - 1), max_size=2)) if place else ():
            program.depend(op, order[source], draw(seconds))
    return program


def _order(streams: list[tuple[int, ...]], priority: list[int]) -> list[int]:
    """An order in which all operations could be done, that keeps each stream's, else by ``priority``."""
    waits = [0] * len(streams)
    followers: list[list[int]] = [[] for _ in streams]
    last: dict[int, int] = {}
    for op, own in enumerate(streams):
        for stream in own:
            if stream in last:
                followers[last[stream]].append(op)
                waits[op] += 1
            last[stream] = op
    ready = [(priority[op], op) for op in range(len(streams)) if not waits[op]]
    heapify(ready)
    order = []
    while ready:
        _, op = heappop(ready)
        order.append(op)
        for follower in followers[op]:
            waits[follower] -= 1
            if not waits[follower]:
                heappush(ready, (priority[follower], follower))
    return order


@st.composite
def models(draw: st.DrawFn, max_layers: int = 4) -> Model:
    """A decoder of a few small blocks, of every kind the fields allow."""
    kv_heads = draw(st.sampled_from([4, 8]))
    experts = draw(st.sampled_from([0, 0, 4]))
    layers = draw(st.integers(1, max_layers))
    decoder = Decoder(
        layers=layers,
        hidden=64,
        heads=8,
        kv_heads=kv_heads,
        head_dim=8,
        ffn=draw(st.sampled_from([64, 160])),
        vocab=draw(st.sampled_from([128, 1000])),
        max_positions=64,
        activation=draw(st.sampled_from(["swiglu", "gelu"])),
        norm=draw(st.sampled_from(["rmsnorm", "layernorm"])),
        positions=draw(st.sampled_from(["rope", "learned"])),
        attention_bias=draw(st.booleans()),
        mlp_bias=draw(st.booleans()),
        tied_embeddings=draw(st.booleans()),
        **_experts(draw, experts, layers),
    )
    return Model(name="drawn", decoder=decoder)


def _experts(draw: st.DrawFn, experts: int, layers: int) -> dict[str, int]:
    if not experts:
        return {}
    return {
        "experts": experts,
        "experts_per_token": draw(st.integers(1, 2)),
        "expert_ffn": 32,
        "shared_ffn": draw(st.sampled_from([0, 32])),
        "dense_layers": draw(st.integers(0, layers)),
    }


@st.composite
def jobs_and_strategies(draw: st.DrawFn, max_degree: int = 4) -> tuple[Job, Strategy]:
    """A valid pair over everything a Strategy can be; degrees up to ``max_degree`` each."""
    model = draw(models(max_layers=8))
    dp, micro_batch = draw(st.integers(1, max_degree)), draw(st.integers(1, 2))
    common: dict[str, Any] = {
        "dp": dp,
        "micro_batch": micro_batch,
        "recompute": draw(st.sampled_from(RECOMPUTES)),
        "attention": draw(st.sampled_from(ATTENTIONS)),
        "stack": draw(st.sampled_from(tuple(STACKS))),
        "bucket_bytes": draw(st.sampled_from([50_000, 25 * 2**20])),
    }
    micro_batches = draw(st.integers(1, 5))
    if draw(st.integers(0, 3)):
        own = draw(_grids(model, dp, max_degree))
        valid = [m for m in range(1, 17) if not order_faults(Strategy(**common, **own), m)]
        micro_batches = draw(st.sampled_from(valid[:6]))
        strategy = Strategy(**common, **own)
    else:
        strategy = Strategy(**common, **draw(_parameter_servers(model, dp)))
    job = Job(
        model=model,
        global_batch=dp * micro_batch * micro_batches,
        seq_len=draw(st.sampled_from([16, 64])),
        optimizer=draw(st.sampled_from(list(OPTIMIZER_STATES))),
        precision=draw(st.sampled_from(list(PRECISION_BYTES))),
        learning_rate=draw(st.sampled_from([1e-3, 1e-4])),
        expert_imbalance=draw(st.sampled_from([1.0, 1.5])),
        routing=draw(st.sampled_from(ROUTINGS)),
        dropout=draw(st.booleans()),
    )
    return job, draw(_varied(job, strategy))


@st.composite
def _varied(draw: st.DrawFn, job: Job, strategy: Strategy) -> Strategy:
    """``strategy`` with each of the changes that are drawn and valid."""
    layers, stages = job.model.decoder.layers, strategy.pp * strategy.vp
    cuts = sorted(draw(st.lists(st.integers(0, layers), min_size=stages - 1, max_size=stages - 1)))
    changes = {
        "stage_layers": tuple(b - a for a, b in pairwise([0, *cuts, layers])),
        "recompute_blocks": 1,
        "overlap_tensor": True,
        "expert_dispatch": "per_node",
        "overlap_experts": True,
    }
    for name, value in changes.items():
        changed = replace(strategy, **{name: value})
        if draw(st.booleans()) and not strategy_faults(changed, job):
            strategy = changed
    return strategy


@st.composite
def _grids(draw: st.DrawFn, model: Model, dp: int, max_degree: int) -> dict[str, Any]:
    """Fields of a strategy without parameter servers."""
    schedule = draw(st.sampled_from([one.name for one in schedules() if one.generate]))
    layers = model.decoder.layers
    vp = find_schedule(schedule).virtual_stages or draw(st.integers(1, 2))
    if vp > layers:
        schedule, vp = "1f1b", 1
    pp = draw(st.integers(1, max(1, min(max_degree, layers // vp))))
    tp = draw(st.sampled_from([degree for degree in (1, 2, 4) if degree <= max_degree]))
    cp = draw(st.sampled_from([1, 1, 2]))
    own: dict[str, Any] = {"pp": pp, "vp": vp, "tp": tp, "cp": cp, "schedule": schedule}
    own["sequence_parallel"] = tp > 1 and draw(st.booleans())
    own["cp_exchange"] = draw(st.sampled_from(CP_EXCHANGES))
    own["offload"] = draw(st.sampled_from(["none", *OFFLOADS]))
    own["collective_algorithm"] = draw(st.sampled_from(COLLECTIVE_ALGORITHMS))
    own["overlap_gradients"] = draw(st.booleans())
    own["overlap_transfers"] = draw(st.booleans())
    ep = draw(st.sampled_from([d for d in (1, 2, 4) if (dp * cp) % d == 0 and (d % cp == 0 or cp % d == 0)]))
    own["ep"] = ep if model.decoder.experts else 1
    own["sequence_parallel"] |= tp > 1 and own["ep"] > 1
    if find_schedule(schedule).unflushed:
        return own
    if draw(st.integers(0, 3)) == 0:
        return {**own, "synchrony": f"local:{draw(st.integers(1, 3))}"}
    return {**own, **draw(_sharded(dp * cp, max(cp, own["ep"])))}


@st.composite
def _sharded(draw: st.DrawFn, replicas: int, inner: int) -> dict[str, Any]:
    sharding = draw(st.sampled_from(SHARDINGS))
    own: dict[str, Any] = {"sharding": sharding}
    if sharding == "hsdp":
        degrees = [d for d in range(1, replicas + 1) if replicas % d == 0 and d % inner == 0]
        own["shard_degree"] = draw(st.sampled_from(degrees))
    if sharding in ("fsdp", "hsdp"):
        own["reshard_after_forward"] = draw(st.booleans())
        own["prefetch"] = draw(st.integers(0, 2))
    return own


@st.composite
def _parameter_servers(draw: st.DrawFn, model: Model, dp: int) -> dict[str, Any]:
    servers = draw(st.integers(1, min(3, model.decoder.layers + 2)))
    synchronies = ["sync", "async", "stale:1", "stale:3", "local:2", *(["backup:1"] if dp > 1 else [])]
    return {
        "gradient_exchange": "parameter_server",
        "servers": servers,
        "server_replicas": draw(st.integers(1, servers)),
        "servers_colocated": servers <= dp and draw(st.booleans()),
        "synchrony": draw(st.sampled_from(synchronies)),
    }


_small = st.sampled_from([1, 1, 2, 3, 4])
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("dp", "tp", "pp", "vp", "cp", "ep"), _small),
    "micro_batch": st.sampled_from([1, 2]),
    "schedule": st.sampled_from(schedule_names()),
    "stage_layers": st.sampled_from([(), (), (2, 2), (1, 3), (0, 4), (4,), (1, 1, 1, 1)]),
    "recompute": st.sampled_from(RECOMPUTES),
    "recompute_blocks": st.sampled_from([0, 0, 1, 2]),
    "attention": st.sampled_from(ATTENTIONS),
    "stack": st.sampled_from(tuple(STACKS)),
    "sharding": st.sampled_from(SHARDINGS),
    "shard_degree": st.sampled_from([0, 0, 1, 2]),
    "prefetch": st.integers(0, 3),
    "cp_exchange": st.sampled_from(CP_EXCHANGES),
    "offload": st.sampled_from(OFFLOADS),
    "gradient_exchange": st.sampled_from(["allreduce", "allreduce", "parameter_server"]),
    "servers": st.sampled_from([0, 0, 1, 2]),
    "server_replicas": st.sampled_from([1, 1, 2]),
    "synchrony": st.sampled_from(["sync", "sync", "async", "stale:1", "backup:1", "local:2"]),
    "collective_algorithm": st.sampled_from(COLLECTIVE_ALGORITHMS),
    "bucket_bytes": st.sampled_from([50_000, 25 * 2**20]),
    "expert_dispatch": st.sampled_from(EXPERT_DISPATCHES),
    **dict.fromkeys(
        (
            "reshard_after_forward",
            "sequence_parallel",
            "servers_colocated",
            "overlap_gradients",
            "overlap_transfers",
            "overlap_tensor",
            "overlap_experts",
        ),
        st.booleans(),
    ),
}
"""By field of Strategy: values that it may have, whatever the others have."""


def any_strategies() -> st.SearchStrategy[Strategy]:
    """Fields that need not go together, nor be valid."""
    return st.builds(Strategy, **FIELDS)


@st.composite
def drawn_stragglers(draw: st.DrawFn, world_size: int, nodes: int) -> Stragglers:
    """Slow ranks, nodes and links, and ranks that are slow in single steps."""
    ranks = draw(st.sets(st.integers(0, world_size - 1), max_size=3))
    slow_nodes = draw(st.sets(st.integers(0, nodes - 1), max_size=1))
    links = draw(st.sets(st.integers(0, nodes - 1), max_size=2))
    transient = Transient(probability=0.3, factors=((0.5, 1.2), (1.0, 3.0)))
    return Stragglers(
        persistent=(
            *(Straggler(kind="rank", place=rank, factor=1.5) for rank in sorted(ranks)),
            *(Straggler(kind="node", place=node, factor=2.0) for node in sorted(slow_nodes)),
        ),
        slow_links=tuple(SlowLink(node=node, bandwidth=0.25) for node in sorted(links)),
        transient=draw(st.sampled_from([None, transient])),
    )
