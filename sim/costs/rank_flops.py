"""FLOPs of one micro-batch through a layer on one tensor-parallel rank, as papers count them."""

from __future__ import annotations

from ..kernels import flops
from ..kernels.recompute import repeated_blocks
from ..model.layer import EMBEDDING, HEAD, Layer
from ..plan.job import Job
from ..plan.strategy import Strategy


def forward_flops(job: Job, strategy: Strategy, layer: Layer) -> float:
    """FLOPs of one micro-batch's forward on one rank (`flops.layer_flops`)."""
    tokens = _tokens(job, strategy)
    return flops.model_layer_flops(job.model, layer.kind, tokens=tokens, seq_len=job.seq_len) / strategy.tp


def backward_flops(job: Job, strategy: Strategy, layer: Layer) -> float:
    """FLOPs of one micro-batch's backward on one rank, recomputed ones included."""
    again = repeated_blocks(job, strategy) * _recompute_flops(job, strategy, layer)
    return 2.0 * forward_flops(job, strategy, layer) + again


def _tokens(job: Job, strategy: Strategy) -> float:
    """Tokens of one micro-batch on one rank."""
    return strategy.micro_batch * job.seq_len / strategy.cp


def _recompute_flops(job: Job, strategy: Strategy, layer: Layer) -> float:
    if layer.kind in (EMBEDDING, HEAD) or strategy.recompute == "none":
        return 0.0
    if strategy.recompute == "full":
        return forward_flops(job, strategy, layer)
    tokens = _tokens(job, strategy)
    if strategy.recompute == "selective_op":
        return tokens * flops.selective_op_flops(job.model.decoder, layer.kind) / strategy.tp
    whole = flops.layer_attention_flops(job.model, layer.kind, tokens=tokens, seq_len=job.seq_len)
    return whole / strategy.tp
