"""Gradient buckets: whose gradients are reduced together, as DDP cuts them, or layer by layer (FSDP)."""

from __future__ import annotations

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
    width = bytes_per_gradient(job.precision, strategy.software)
    buckets: list[tuple[int, ...]] = []
    current: list[int] = []
    default = strategy.bucket_bytes == DDP_BUCKET_BYTES
    size, limit = 0.0, DDP_FIRST_BUCKET_BYTES if default else strategy.bucket_bytes
    for index in reversed(layers):
        current.append(index)
        size += held_parameters(job.model.layers[index], strategy) * width
        if size >= limit:
            buckets.append(tuple(current))
            current, size, limit = [], 0.0, strategy.bucket_bytes
    if current:
        buckets.append(tuple(current))
    return tuple(buckets)
