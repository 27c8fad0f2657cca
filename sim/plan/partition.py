"""What goes where: layers to pipeline stages, layers to parameter servers."""

from __future__ import annotations

from itertools import accumulate

from ..model.model import Model
from ..model.networks.network import Network, layer_flops
from .gradient_buckets import gradient_buckets
from .job import Job
from .plan import Stage
from .strategy import Strategy


def partition(job: Job, strategy: Strategy) -> tuple[Stage, ...]:
    """The stages in order: embedding on the first, head on the last, blocks as given or evenly.

    A network's layers differ, so its stages have as much to compute as one another, as near as can be.
    """
    network = job.model.network
    ends = _decoder_ends(job, strategy) if network is None else _network_ends(network, job, strategy)
    starts = [0, *ends[:-1]]
    held = [range(first, end) for first, end in zip(starts, ends, strict=True)]
    return tuple(
        Stage(
            index=index,
            first_layer=layers.start,
            end_layer=layers.stop,
            buckets=gradient_buckets(job, strategy, layers),
        )
        for index, layers in enumerate(held)
    )


def _decoder_ends(job: Job, strategy: Strategy) -> list[int]:
    counts = strategy.stage_layers or even_layers(job.model.decoder.layers, strategy.stages)
    ends = [1 + sum(counts[: s + 1]) for s in range(strategy.stages)]
    ends[-1] += 1
    return ends


def _network_ends(network: Network, job: Job, strategy: Strategy) -> list[int]:
    """Where given, by the numbers of layers; else each stage ends where the FLOPs before it come nearest to
    its share of all, and has a layer at least."""
    counts = strategy.stage_layers
    if counts:
        return [sum(counts[: s + 1]) for s in range(strategy.stages)]
    sums = list(accumulate(layer_flops(part, job.seq_len) for part in network.parts))
    ends: list[int] = []
    for stage in range(1, strategy.stages):
        first = (ends[-1] if ends else 0) + 1
        last = len(sums) - (strategy.stages - stage)
        share = sums[-1] * stage / strategy.stages
        ends.append(min(range(first, last + 1), key=lambda end: (abs(sums[end - 1] - share), end)))
    return [*ends, len(sums)]


def even_layers(blocks: int, stages: int) -> tuple[int, ...]:
    """Blocks of each stage, spread evenly.

    Blocks left over go to the middle stages first, since the ends have the embedding and the head.
    """
    counts = [blocks // stages] * stages
    middle_first = sorted(range(stages), key=lambda s: (s in (0, stages - 1), s == stages - 1, s))
    for stage in middle_first[: blocks % stages]:
        counts[stage] += 1
    return tuple(counts)


def shard(model: Model, servers: int) -> tuple[tuple[int, ...], ...]:
    """Layers for each parameter server: the largest layer first, to the server that holds least."""
    shards: list[list[int]] = [[] for _ in range(servers)]
    held = [0] * servers
    if servers:
        for layer in sorted(model.layers, key=lambda layer: (-layer.parameters, layer.index)):
            target = held.index(min(held))
            shards[target].append(layer.index)
            held[target] += layer.parameters
    return tuple(tuple(sorted(layers)) for layers in shards)
