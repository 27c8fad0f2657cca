"""One training step of Llama 3 405B as a folded program, made as arrays: the large case of `engine_speed.py`.

The shape is that of Llama Team 2024 ("The Llama 3 Herd of Models", tables 3 and 4): 126 layers of width
16,384 (feed-forward 53,248, 8 key-value heads of 128), sequences of 8,192 tokens, tp 8 × pp 16 × dp 128 =
16,384 GPUs, 16 micro-batches of one sequence; here every pipeline rank holds two stages of four layers, the
first and the last stage three, interleaved. All ranks of a pipeline stage are alike, so one program of 16
ranks with dp × tp lanes is the whole cluster.

A layer forward is nine operations: gather, qkv, attention, output, scatter, gather, up, down, scatter (tensor
parallelism with sequence parallelism, Korthikanti et al. 2022); backward thirteen: the same the other way
round, each of the three GEMM groups and down in two halves. The gathers and scatters synchronise the eight
tensor-parallel ranks. At the end each stage's gradients are reduce-scattered and its parameters gathered
over the data-parallel ranks, with the optimizer between. Seconds follow from FLOPs at `FLOPS` and bytes at
the link rates; they are plausible, not fitted, since what is measured here is how fast the engine is.

That makes 44,352 operations of layers (22 × 126 × 16), 992 messages and 80 at the end: 45,424, folded; times
16,384 / 16 lanes, 46.5 million things that ranks do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from traincast.sim.engine.pipeline.orders import FORWARD, PassOrders, regular_orders
from traincast.sim.engine.pipeline.worklist import pipeline_flat
from traincast.sim.network.fabrics.fabric import Fabric
from traincast.sim.plan.pass_times import PassTimes
from traincast.sim.program.arrays import flat_arrays, offsets
from traincast.sim.program.flat import FlatLanes, Folded
from traincast.sim.program.ring_steps import PATTERNS

RANKS, VIRTUAL, TP, MICRO_BATCHES = 16, 2, 8, 16
LAYERS = np.array([3, *[4] * 30, 3])
"""By stage, 126 in all."""
TOKENS, WIDTH, FEED, KV_WIDTH = 8_192, 16_384, 53_248, 1_024
FLOPS = 989e12 * 0.7
"""FLOP/s of a GEMM: an H100 SXM's dense bf16 peak (NVIDIA's data sheet) at 70 %."""
NVLINK, NETWORK = 450e9 * 0.8, 50e9 * 0.9
"""Bytes/s one way: NVLink 4 (data sheet) at 80 %, one 400 Gb/s card at 90 %."""
PARAMETERS = 2 * WIDTH * (WIDTH + KV_WIDTH) + 3 * WIDTH * FEED
"""Of one layer."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """The folded program, and which transfers leave a rank's node."""

    folded: Folded
    source: np.ndarray
    """int64[n], by operation: the pipeline rank that a message leaves, -1 for none"""
    target: np.ndarray
    """int64[n], the one that it reaches"""


def llama_step(dp: int, *, coarse: bool = False) -> Step:
    """The step on 128 × ``dp`` GPUs, every operation for all lanes (dp, tp).

    ``coarse`` makes a layer two operations each way, compute and synchronisation, and plays the exchanges
    over the data-parallel ranks step by step.
    """
    orders = regular_orders("interleaved", RANKS, VIRTUAL, MICRO_BATCHES)
    message_s = TOKENS * WIDTH * 2 / TP / NETWORK
    passes = pipeline_flat(orders, PassTimes.alike(RANKS * VIRTUAL, transfer_s=message_s))
    forward, backward = _layer(coarse)
    sizes = np.ones(passes.operations, dtype=np.int64)
    is_forward = orders.kind == FORWARD
    layers = LAYERS[orders.stage]
    sizes[: orders.passes] = layers * np.where(is_forward, len(forward), len(backward))
    first = offsets(sizes)
    seconds, sync = np.full(int(first[-1]), message_s), np.zeros(int(first[-1]), dtype=np.int64)
    for own, template in ((is_forward, forward), (~is_forward, backward)):
        for count in np.unique(LAYERS).tolist():
            chosen = first[: orders.passes][own & (layers == count), None]
            at = chosen + np.arange(count * len(template))
            seconds[at] = np.tile([took for took, _ in template], count)
            sync[at] = np.tile([_TP if meets else 0 for _, meets in template], count)
    rank = np.full(len(seconds), -1, dtype=np.int64)
    rank[: first[orders.passes]] = (
        np.repeat(orders.stage_rank[orders.stage], sizes[: orders.passes]) * TP * dp
    )
    rank[sync != 0] = -1
    sources = np.repeat(np.arange(passes.operations), np.diff(passes.edge_from))
    inside = np.flatnonzero(np.diff(np.repeat(np.arange(len(sizes)), sizes)) == 0)
    edges = (
        np.concatenate([inside, first[sources + 1] - 1]),
        np.concatenate([inside + 1, first[passes.edge_to]]),
    )
    return _with_end(orders, passes.operations, first, (seconds, sync, rank), edges, dp, coarse)


_DP, _TP = 1, 2
"""Bits of the axes in `Folded.sync`."""


def _layer(coarse: bool) -> tuple[list[tuple[float, bool]], list[tuple[float, bool]]]:
    """(seconds, whether tensor-parallel ranks meet) of a layer's operations, forward and backward."""
    share = TOKENS / TP
    qkv = 2 * share * WIDTH * (WIDTH + 2 * KV_WIDTH) / FLOPS
    output = 2 * share * WIDTH * WIDTH / FLOPS
    attention = 2 * share * TOKENS * WIDTH / FLOPS
    up, down = 4 * share * WIDTH * FEED / FLOPS, 2 * share * WIDTH * FEED / FLOPS
    meet = (TOKENS * WIDTH * 2 * (TP - 1) / TP / NVLINK, True)
    forward = [meet, (qkv, False), (attention, False), (output, False), meet]
    forward += [meet, (up, False), (down, False), meet]
    backward = [meet, (down, False), (down, False), (up, False), (up, False), meet]
    backward += [meet, (output, False), (output, False), (2.5 * attention, False)]
    backward += [(qkv, False), (qkv, False), meet]
    if not coarse:
        return forward, backward
    return _two(forward), _two(backward)


def _two(operations: list[tuple[float, bool]]) -> list[tuple[float, bool]]:
    compute = sum(took for took, meets in operations if not meets)
    return [(compute, False), (sum(took for took, meets in operations if meets), True)]


def _with_end(
    orders: PassOrders,
    before: int,
    first: np.ndarray,
    columns: tuple[np.ndarray, np.ndarray, np.ndarray],
    edges: tuple[np.ndarray, np.ndarray],
    dp: int,
    coarse: bool,
) -> Step:
    """Add for each rank a reduce-scatter for each stage, the optimizer, and an all-gather for each stage."""
    stages, count = RANKS * VIRTUAL, int(first[-1])
    own = np.arange(stages) % RANKS
    reduce, step, gather = (
        count + np.arange(stages),
        count + stages + np.arange(RANKS),
        count + stages + RANKS,
    )
    gather = gather + np.arange(stages)
    last_pass = np.full(stages, -1)
    last_pass[orders.stage] = np.arange(orders.passes)
    over_dp = LAYERS * PARAMETERS / TP * 2 * (dp - 1) / dp / NETWORK
    seconds, sync, rank = columns
    seconds = np.concatenate([seconds, over_dp, np.full(RANKS, 0.01), over_dp])
    meets = np.full(stages, _DP)
    sync = np.concatenate([sync, meets, np.zeros(RANKS, dtype=np.int64), meets])
    none = np.full(stages, -1)
    rank = np.concatenate([rank, none, np.arange(RANKS) * TP * dp, none])
    pattern = np.zeros(len(seconds), dtype=np.int64)
    if coarse:
        pattern[np.concatenate([reduce, gather])] = PATTERNS.index("half_ring")
    one_by_one = [(reduce[RANKS:], reduce[:RANKS]), (gather[:RANKS], gather[RANKS:])]
    added = [(first[last_pass + 1] - 1, reduce), (reduce, step[own]), (step[own], gather), *one_by_one]
    from_, to = (np.concatenate([edges[side], *(pair[side] for pair in added)]) for side in (0, 1))
    flat = flat_arrays(
        None,
        seconds,
        (from_.astype(np.int32), to.astype(np.int32), np.zeros(len(from_))),
        np.zeros(len(seconds) + 1, dtype=np.int64),
        np.zeros(0, dtype=np.int32),
        resources=0,
    )
    folded = Folded(flat=flat, axes={"dp": dp, "tp": TP}, sync=sync, pattern=pattern, rank=rank)
    source, target = _routes(orders, before, first, len(seconds))
    source[reduce] = target[reduce] = source[gather] = target[gather] = own
    return Step(folded=folded, source=source, target=target)


def _routes(orders: PassOrders, before: int, first: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The pipeline ranks between which messages go: forward to the next stage, backward to the one before."""
    direction = np.where(orders.kind == FORWARD, 1, -1)
    neighbour = orders.stage + direction
    sends = np.flatnonzero((neighbour >= 0) & (neighbour < orders.stages))
    messages = first[orders.passes : before]
    source, target = np.full(count, -1), np.full(count, -1)
    source[messages] = orders.stage_rank[orders.stage[sends]]
    target[messages] = orders.stage_rank[neighbour[sends]]
    return source, target


def links_of(step: Step, fabric: Fabric):
    """What `unfold_flat` asks: the links of ``fabric`` that every transfer between nodes holds.

    Host r is rank r. A message goes to the same lane of another pipeline rank; a step of a ring comes from
    the data-parallel neighbour, ``TP`` ranks before.
    """

    def links(lanes: FlatLanes) -> tuple[np.ndarray, np.ndarray]:
        counts = np.zeros(len(lanes.base), dtype=np.int64)
        arrives = (lanes.folded.pattern[lanes.base] != 0) & (lanes.step == 0)
        sent = np.flatnonzero((step.source[lanes.base] >= 0) & ~arrives)
        base, lane, width = lanes.base[sent], lanes.lane[sent].astype(np.int64), lanes.folded.lanes
        leaves = np.where(lanes.step[sent] > 0, (lane - TP) % width, lane)
        where, resources = fabric.routes(step.source[base] * width + leaves, step.target[base] * width + lane)
        counts[sent] = np.diff(where)
        return counts, resources

    return links
