"""Gradient buckets: whose gradients are reduced together, as DDP cuts them, or layer by layer (FSDP); or
pushed together to a parameter server."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .job import Job
from .mixed_precision import bytes_per_gradient
from .rank_parameters import held_parameters
from .sharding import gathers_parameters
from .strategy import Strategy
from .strategy_fields import DDP_BUCKET_BYTES

DDP_FIRST_BUCKET_BYTES = 2**20
"""torch.distributed._DEFAULT_FIRST_BUCKET_BYTES: where its bucket size is the default, DDP's first bucket is
small, to start reducing early."""


def gradient_buckets(job: Job, strategy: Strategy, layers: range) -> tuple[tuple[int, ...], ...]:
    """Whole layers from the last to the first: as DDP fills its buckets, or, where parameters are gathered
    layer by layer (FSDP), every layer by itself."""
    if strategy.replicas == 1 or strategy.gradient_exchange != "allreduce":
        return ()
    if gathers_parameters(strategy):
        return tuple((index,) for index in reversed(layers))
    return tuple(_filled(job, strategy, reversed(layers)))


def pushed_buckets(
    job: Job, strategy: Strategy, shards: Sequence[Sequence[int]]
) -> tuple[tuple[int, ...], ...]:
    """Layers whose gradients a worker pushes together while backward still runs, in the order in which it
    makes them whole; the layers of a bucket are one server's, of those in ``shards``.

    None where gradients are pushed after backward: every server's at once. Parameters that are averaged after
    local steps are whole after the last one only.
    """
    if not strategy.overlap_gradients or strategy.protocol[0] == "local":
        return ()
    found = [bucket for shard in shards for bucket in _filled(job, strategy, sorted(shard, reverse=True))]
    return tuple(sorted(found, key=min, reverse=True))


def _filled(job: Job, strategy: Strategy, layers: Iterable[int]) -> list[tuple[int, ...]]:
    """Buckets of whole layers, in the order of ``layers``, each as soon as it holds its limit."""
    width = bytes_per_gradient(job.precision, strategy.software)
    buckets: list[tuple[int, ...]] = []
    current: list[int] = []
    default = strategy.bucket_bytes == DDP_BUCKET_BYTES
    size, limit = 0.0, DDP_FIRST_BUCKET_BYTES if default else strategy.bucket_bytes
    for index in layers:
        current.append(index)
        size += held_parameters(job.model.layers[index], strategy) * width
        if size >= limit:
            buckets.append(tuple(current))
            current, size, limit = [], 0.0, strategy.bucket_bytes
    if current:
        buckets.append(tuple(current))
    return buckets
