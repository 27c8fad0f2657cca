"""Calibration tasks of a rank in training: layers as a step runs them, whole steps, optimizer steps.

Layers are timed inside whole training steps, where caches, allocator and autograd are as in a run: a sum of
kernels measured alone is 11-21 % short of a step.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist

from ...sim.model.decoder import NO_DECODER, Decoder
from ..model.optimizer import make_optimizer
from .alone import Division
from .bench import SAMPLES, Bench, LaidOut, Moment, series, sizes
from .halves import halves
from .stack import Stack, kind_shape, shape_of

LAYERS_S = 0.8
"""Steps are profiled for at least so long: short ones more often, since they vary more."""
EXCHANGING = 1.5
"""So much longer where ranks wait for each other, which varies more yet."""
NORMED = 2
"""Samples without which a norm over them cannot be."""
TOGETHER_STEPS = 3
"""Steps of one visit; there are several visits in a round."""


def layers(
    bench: Bench,
    *,
    decoder: dict[str, Any],
    seq_len: int,
    micro_batch: int,
    seconds: float = LAYERS_S,
    splits_backward: bool = False,
    trained: str = "",
    **division: Any,
) -> list[LaidOut]:
    """Forward and backward of every kind of layer, for about ``seconds``, and in turns with them whole steps
    without stamps; where backward is split its halves too. What autograd keeps is counted once."""
    shared = Division(**division)
    stack = Stack(bench, Decoder(**decoder), seq_len, micro_batch, division=shared, trained=trained)
    kept = stack.kept_bytes()
    stack.stamped(0)
    stack.plain(0)  # memory is as it stays only after a second step
    stamped, plain, split = [], [], []
    start, probes = bench.now(), [bench.probe()]
    while len(stamped) < 2 or bench.now().since(start).wall < seconds:
        stamped.append(stack.stamped(2 * len(stamped) + 1))
        plain.append(stack.plain(2 * len(stamped)))
        if splits_backward:
            split.append(halves(stack, 2 * len(stamped)))
        probes.append(bench.probe())
    around = [(before + after) / 2 for before, after in pairwise(probes)]
    shape = {**shape_of(stack, shared), "micro_batch": micro_batch}
    found = [
        series(name, kind_shape(stack, shape, kind), [means[name, kind] for means in several], around[first:])
        for several, first in ((stamped, 0), (split[1:], 1))
        for name, kind in (several[0] if several else ())
    ]
    found += [sizes("kept", kind_shape(stack, shape, kind), [size]) for kind, size in kept.items()]
    return [*found, *([series("step", _step(stack, shape, 1), plain, around)] if shared.is_whole else [])]


def exchanges(
    bench: Bench,
    *,
    decoder: dict[str, Any],
    seq_len: int,
    micro_batch: int,
    seconds: float = LAYERS_S,
    trained: str = "",
    **division: Any,
) -> list[LaidOut]:
    """Forward and backward of every kind of layer on all ranks that share it, with what they exchange and how
    they wait for each other: more than the collectives take that follow one another in a loop."""
    shared, group = Division(**division), bench.groups[len(bench.ranks)]
    whole = Decoder(**decoder)
    stack = Stack(bench, whole, seq_len, micro_batch, division=shared, trained=trained, group=group)
    stack.plain(0)
    start = bench.now()
    stack.stamped(1)
    repeats = torch.tensor([EXCHANGING * seconds / bench.now().since(start).wall])
    dist.broadcast(repeats, 0, group=group)  # all of them as often
    stamped, probes = [], [bench.probe()]
    for number in range(max(2, round(float(repeats)))):
        stamped.append(stack.stamped(number))
        probes.append(bench.probe())
    around = [(before + after) / 2 for before, after in pairwise(probes)]
    shape = {**shape_of(stack, shared), "micro_batch": micro_batch}
    return [
        series(
            f"{name}_exchanging",
            kind_shape(stack, shape, kind),
            [means[name, kind] for means in stamped],
            around,
        )
        for name, kind in stamped[0]
    ]


def step(
    bench: Bench,
    *,
    decoder: dict[str, Any],
    seq_len: int,
    micro_batch: int,
    processes: int,
    trained: str = "",
) -> list[LaidOut]:
    """Whole steps while ``processes`` ranks do the same, and what they take longer than the same step of a
    rank by itself just before: of one rank after the other, with a speed probe each."""
    stack = _kept_stack(bench, Decoder(**decoder), seq_len, micro_batch, trained)
    group, visits = bench.groups[processes], bench.kept.setdefault(("visits", processes), [0])
    samples, probes, ratios = [], [], []
    for repeat in range(TOGETHER_STEPS):
        dist.barrier(group)
        is_first = (visits[0] + repeat) % processes == bench.rank
        alone = (bench.probe(), stack.plain(repeat + 1).cpu) if is_first else None
        dist.barrier(group)
        probe, sample = bench.probe(), stack.plain(repeat + 1)
        samples.append(sample)
        probes.append(probe)
        if alone is not None:
            ratios.append((probe + sample.cpu) / sum(alone))
    visits[0] += TOGETHER_STEPS
    shape = {**shape_of(stack, Division()), "micro_batch": micro_batch}
    compared = series("concurrency", {"processes": processes}, [Moment(ratio, ratio) for ratio in ratios])
    return [
        series("together", _step(stack, shape, processes), samples, probes),
        *([compared] if ratios else []),
    ]


def _kept_stack(bench: Bench, decoder: Decoder, seq_len: int, micro_batch: int, trained: str) -> Stack:
    """A stack of one micro-batch, built and warmed up at the first visit."""
    key = (decoder, seq_len, micro_batch, trained)
    if key not in bench.kept:
        stack = bench.kept[key] = Stack(bench, decoder, seq_len, micro_batch, count=1, trained=trained)
        stack.plain(0)
        stack.plain(0)
    return bench.kept[key]


def _step(stack: Stack, shape: dict[str, Any], processes: int) -> dict[str, Any]:
    """What a whole step depends on."""
    return {
        **shape,
        "layers": stack.decoder.layers,
        "micro_batches": stack.count,
        "parameters": sum(p.numel() for p in stack.net.parameters()),
        "optimizer": "adamw",
        "processes": processes,
    }


def optimizer(bench: Bench, *, decoder: dict[str, Any], optimizer: str, trained: str = "") -> list[LaidOut]:
    """Optimizer steps on models of one block and of all, each after a backward."""
    if trained:
        return _optimizer_of_layers(bench, trained, optimizer)
    found = []
    whole = Decoder(**decoder)
    for blocks in sorted({1, (whole.layers + 1) // 2, whole.layers}):
        if blocks > whole.layers or blocks > 2 * SAMPLES:
            continue
        one = replace(whole, layers=blocks, dense_layers=min(whole.dense_layers, blocks))
        stack = Stack(
            bench, one, min(whole.max_positions, 32), 1, optimizer=optimizer, count=1, blocks=blocks
        )
        stack.plain(0)
        samples = []
        for repeat in range(SAMPLES):
            x, y = stack.batches(repeat)[0]
            stack.loss(stack.net(x), y).backward()
            start = bench.now()
            stack.optimizer.step()
            stack.optimizer.zero_grad(set_to_none=True)
            samples.append(bench.now().since(start))
        parameters = sum(p.numel() for p in stack.net.parameters())
        found.append(series("optimizer", {"name": optimizer, "parameters": parameters}, samples))
    return found


def _optimizer_of_layers(bench: Bench, trained: str, optimizer: str) -> list[LaidOut]:
    """The same on the first layers of a model that is no decoder, and on all."""
    stack = Stack(bench, NO_DECODER, 1, NORMED, optimizer=optimizer, count=1, trained=trained)
    stack.plain(0)
    layers, found = stack.net.layer_parameters(), []
    for count in sorted({1, (len(layers) + 1) // 2, len(layers)}):
        parameters = [p for own in list(layers.values())[:count] for p in own]
        if not parameters:
            continue
        chosen, samples = make_optimizer(stack.job, parameters), []
        for repeat in range(SAMPLES):
            x, y = stack.batches(repeat)[0]
            stack.loss(stack.net(x), y).backward()
            start = bench.now()
            chosen.step()
            chosen.zero_grad(set_to_none=True)
            samples.append(bench.now().since(start))
            stack.optimizer.zero_grad(set_to_none=True)
        values = sum(p.numel() for p in parameters)
        found.append(series("optimizer", {"name": optimizer, "parameters": values}, samples))
    return found


def copies(bench: Bench, *, decoder: dict[str, Any], trained: str = "") -> list[LaidOut]:
    """Gradients of one block laid one after the other, as they are before they are reduced; of a model that
    is no decoder those of all layers."""
    one = replace(Decoder(**decoder), layers=1, dense_layers=0)
    stack = Stack(bench, one, 1 if trained else 8, NORMED if trained else 1, count=1, trained=trained)
    parts = [p.detach() for p in stack.net.parameters()]
    size = sum(part.nbytes for part in parts)
    samples = bench.samples(lambda: torch.cat([part.reshape(-1) for part in parts]), False)
    return [series("copies", {"bytes": size}, samples)]
