"""Bytes that one layer keeps, works with and owes, on one rank for one micro-batch."""

from __future__ import annotations

from ..kernels.fp8 import FP8, FP8_BYTES
from ..kernels.layer_kernels import rank_shape
from ..kernels.recompute import repeated_blocks, selective_op_bytes
from ..model.layer import BLOCKS
from ..plan.job import Job
from ..plan.strategy import FLASH, Strategy
from . import autocast
from .activations import (
    layer_activation_bytes,
    layer_output_gradient_bytes,
    layer_weight_gradient_bytes,
    layer_workspace_bytes,
)


def kept_bytes(job: Job, strategy: Strategy, kind: str, recompute: str | None = None) -> float:
    """Bytes that a layer keeps between the passes: under the policy ``recompute``, or under the strategy's in
    the mean over the blocks."""
    policy = strategy.recompute if recompute is None else recompute
    if recompute is None and 0.0 < repeated_blocks(job, strategy) < 1.0:
        return _mean_kept_bytes(job, strategy, kind)
    if autocast.covers(strategy, kind):
        return autocast.kept_bytes(job, strategy, kind, policy)
    if policy == "selective_op" and kind in BLOCKS:
        return _selective_op_bytes(job, strategy, kind)
    if job.model.network is not None:
        return _network_kept_bytes(job, strategy, kind, policy)
    stack = strategy.software
    casts = job.precision == FP8 and stack.fp8_inputs
    shape = {**rank_shape(job, strategy), "stack": stack, "input_bytes": FP8_BYTES if casts else 0}
    return layer_activation_bytes(job.model.decoder, kind, recompute=policy, **shape)


def workspace_bytes(job: Job, strategy: Strategy, kind: str) -> float:
    """Bytes of the gradients that stand at once while a layer's backward is at work."""
    if job.model.network is not None:
        layer = job.model.network.by_kind[kind]
        return 2.0 * strategy.micro_batch * job.seq_len * layer.passed * job.bytes_per_value
    return layer_workspace_bytes(job.model.decoder, kind, **rank_shape(job, strategy))


def weight_gradient_bytes(job: Job, strategy: Strategy, kind: str) -> float:
    """Bytes that a layer's gradients of weights need once those of its inputs are there; of a network what it
    keeps."""
    if job.model.network is not None:
        return _network_kept_bytes(job, strategy, kind, "none")
    return layer_weight_gradient_bytes(job.model.decoder, kind, **rank_shape(job, strategy))


def output_gradient_bytes(job: Job, strategy: Strategy, kind: str) -> float:
    """Bytes of the gradients from which those of a layer's weights are made; of a network that of what it
    passes on."""
    if job.model.network is not None:
        layer = job.model.network.by_kind[kind]
        return float(strategy.micro_batch * job.seq_len * layer.passed * job.bytes_per_value)
    return layer_output_gradient_bytes(job.model.decoder, kind, **rank_shape(job, strategy))


def _network_kept_bytes(job: Job, strategy: Strategy, kind: str, recompute: str) -> float:
    """Recomputed in full, a layer keeps what it passes on; unfused attention keeps its scores."""
    assert job.model.network is not None
    layer, tokens = job.model.network.by_kind[kind], strategy.micro_batch * job.seq_len
    if recompute == "full":
        return tokens * layer.passed * job.bytes_per_value
    scores = 0.0
    if strategy.attention not in FLASH and recompute == "none":
        scores = job.seq_len * layer.score_bytes(job.bytes_per_value)
    return tokens * (layer.kept * job.bytes_per_value + layer.kept_bytes + scores)


def _mean_kept_bytes(job: Job, strategy: Strategy, kind: str) -> float:
    """Where the policy holds for some blocks, the mean over all."""
    share = repeated_blocks(job, strategy)
    kept, whole = (kept_bytes(job, strategy, kind, policy) for policy in (strategy.recompute, "none"))
    return share * kept + (1 - share) * whole


def _selective_op_bytes(job: Job, strategy: Strategy, kind: str) -> float:
    return selective_op_bytes(
        job.model.decoder,
        kind,
        tokens=strategy.micro_batch * job.seq_len / strategy.cp,
        tp=strategy.tp,
        sequence_parallel=strategy.sequence_parallel,
        bytes_per_value=job.bytes_per_value,
    )
