"""Hypothesis strategies shared by the tests: random Programs, and small lawful Jobs with Strategies."""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from hypothesis import strategies as st

from traincast.sim.job import Job
from traincast.sim.model import Decoder, Model
from traincast.sim.program import Program, SpanLabel
from traincast.sim.strategy import COLLECTIVE_ALGORITHMS, RECOMPUTES, SCHEDULES, SYNCHRONIES, Strategy

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
def models(draw: st.DrawFn) -> Model:
    """A decoder of at most four small blocks, of every kind the fields allow."""
    kv_heads = draw(st.sampled_from([4, 8]))
    decoder = Decoder(
        layers=draw(st.integers(1, 4)),
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
    )
    return Model(name="drawn", decoder=decoder)


@st.composite
def jobs_and_strategies(draw: st.DrawFn, max_degree: int = 4) -> tuple[Job, Strategy]:
    """A lawful pair: data, tensor and pipeline degrees up to ``max_degree`` each, or parameter servers."""
    model = draw(models())
    dp, micro_batch = draw(st.integers(1, max_degree)), draw(st.integers(1, 2))
    common = {
        "dp": dp,
        "micro_batch": micro_batch,
        "recompute": draw(st.sampled_from(RECOMPUTES)),
        "bucket_bytes": draw(st.sampled_from([50_000, 25 * 2**20])),
    }
    if draw(st.booleans()):
        strategy = Strategy(
            **common,
            tp=draw(st.sampled_from([tp for tp in (1, 2, 4) if tp <= max_degree])),
            pp=draw(st.integers(1, min(max_degree, model.decoder.layers))),
            schedule=draw(st.sampled_from(SCHEDULES)),
            collective_algorithm=draw(st.sampled_from(COLLECTIVE_ALGORITHMS)),
        )
    else:
        strategy = Strategy(
            **common,
            gradient_exchange="parameter_server",
            servers=draw(st.integers(1, min(3, model.decoder.layers + 2))),
            synchrony=draw(st.sampled_from(SYNCHRONIES)),
        )
    job = Job(
        model=model,
        global_batch=dp * micro_batch * draw(st.integers(1, 5)),
        seq_len=draw(st.sampled_from([16, 64])),
        optimizer=draw(st.sampled_from(["sgd", "momentum", "adamw"])),
        precision="fp32",
    )
    return job, strategy
