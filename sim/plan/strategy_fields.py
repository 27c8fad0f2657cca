"""What a strategy says: degrees of parallelism, sharding, schedule, exchange, synchrony; no hardware.

What follows from the fields is in `strategy.py`, what a Job allows of them in `strategy_rules.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from .software_stacks import DEFAULT_STACK

DDP_BUCKET_BYTES = 25 * 2**20
"""torch.nn.parallel.DistributedDataParallel, `bucket_cap_mb` default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyFields:
    """The fields of a `Strategy`. dp × cp × tp × pp is the number of workers; experts divide over dp × cp."""

    dp: int = 1
    """Data-parallel replicas."""
    tp: int = 1
    """Tensor-parallel ranks that share every layer."""
    pp: int = 1
    """Pipeline ranks."""
    vp: int = 1
    """Stages that each pipeline rank holds (virtual stages, model chunks)."""
    cp: int = 1
    """Context-parallel ranks that share every sequence."""
    ep: int = 1
    """Expert-parallel ranks that share the experts of a layer; neighbours among the dp × cp ranks."""
    micro_batch: int = 1
    """Samples of one micro-batch."""
    schedule: str = "1f1b"
    """Order of forward and backward on a pipeline rank."""
    stage_layers: tuple[int, ...] = ()
    """Transformer blocks of each stage; empty spreads them evenly."""
    recompute: str = "none"
    """What backward computes again instead of keeping: nothing, attention (selective), all but every second
    GEMM and attention (selective_op), or the whole block."""
    recompute_blocks: int = 0
    """Blocks of each stage that `recompute` holds for; 0 is all of them."""
    attention: str = "flash"
    """`flash` (FlashAttention-2), `flash1`, `triton`, `flash3` (cuDNN's on Hopper); `unfused`: GEMMs, a
    fused softmax and dropout, which keep the scores; `eager`: the same with mask and softmax apart."""
    stack: str = DEFAULT_STACK
    """Software that trains, by its name in `stacks.py`."""
    sharding: str = "ddp"
    """What the replicas share out: nothing, optimizer states (zero1), gradients too (zero2), parameters too
    (fsdp), the same within groups of `shard_degree` replicas (hsdp)."""
    shard_degree: int = 0
    """Replicas of one sharding group of hsdp; 0 elsewhere."""
    reshard_after_forward: bool = True
    """Gathered parameters are dropped after each pass and gathered again for backward (fsdp, hsdp)."""
    prefetch: int = 1
    """Blocks whose parameters are gathered ahead of the one at work (fsdp, hsdp)."""
    sequence_parallel: bool = False
    """Norms and residuals are split over the tensor-parallel ranks (Korthikanti et al. 2022)."""
    cp_exchange: str = "ring"
    """Context parallelism passes keys and values round a ring, gathers them at once, or exchanges heads for
    tokens all-to-all."""
    offload: str = "none"
    """What lives in host memory: optimizer states, activations between the passes, both."""
    gradient_exchange: str = "allreduce"
    servers: int = 0
    """Parameter servers; each holds an equal shard of the layers' parameters."""
    server_replicas: int = 1
    """Servers that hold each shard."""
    servers_colocated: bool = False
    """Servers share the places, interfaces and processors of the first workers."""
    synchrony: str = "sync"
    """`sync`; `async`; `stale:K` at most K rounds ahead of the slowest; `backup:B` without the B slowest;
    `local:H` steps between averages."""
    collective_algorithm: str = "auto"
    bucket_bytes: int = DDP_BUCKET_BYTES
    """Gradients are reduced in buckets of about this size."""
    overlap_gradients: bool = True
    """Gradients are reduced while backward still runs; else after it."""
    overlap_transfers: bool = True
    """Pipeline messages travel next to compute; else both ends wait for them."""
    overlap_tensor: bool = False
    """What tensor parallelism gathers and scatters is overlapped piecewise with the GEMMs it belongs to
    (Transformer Engine's userbuffers, PyTorch's async tensor parallelism)."""
    expert_dispatch: str = "all_to_all"
    """A token travels to each of its experts, or once to each node that has any of them and on from there
    (`per_node`: DeepEP, HybridEP)."""
    overlap_experts: bool = False
    """Tokens on their way to and from experts overlap with another micro-batch's pass through the layer
    (Megatron Core's --overlap-moe-expert-parallel-comm)."""
