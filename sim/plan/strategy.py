"""How to train, with no hardware in it: degrees of parallelism, sharding, schedule, exchange, synchrony.

What a Job allows of it is in `strategy_rules.py`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import groupby

from .choices import (
    ATTENTIONS,
    COLLECTIVE_ALGORITHMS,
    CP_EXCHANGES,
    EXPERT_DISPATCHES,
    FLASH,
    GRADIENT_EXCHANGES,
    OFFLOADS,
    RECOMPUTES,
    SHARDINGS,
    SYNCHRONIES,
    parse_synchrony,
)
from .job import GRADIENT_BYTES, Job
from .schedules import find_schedule
from .software_stacks import DEFAULT_STACK, STACKS, Stack

__all__ = [
    "ATTENTIONS",
    "COLLECTIVE_ALGORITHMS",
    "CP_EXCHANGES",
    "DDP_BUCKET_BYTES",
    "EXPERT_DISPATCHES",
    "FLASH",
    "GRADIENT_EXCHANGES",
    "OFFLOADS",
    "RECOMPUTES",
    "SHARDINGS",
    "SYNCHRONIES",
    "Strategy",
]

DDP_BUCKET_BYTES = 25 * 2**20
"""torch.nn.parallel.DistributedDataParallel, `bucket_cap_mb` default."""

STEADY_STEPS = 4
"""Steps with a full pipeline that a plan of a schedule without flush plays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """One way to train. dp × cp × tp × pp is the number of workers; experts divide over dp × cp."""

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
    product and attention (selective_op), or the whole block."""
    recompute_blocks: int = 0
    """Blocks of each stage that `recompute` holds for; 0 is all of them."""
    attention: str = "flash"
    """`flash` (FlashAttention-2), `flash1`, `triton`, `flash3` (cuDNN's on Hopper); `unfused`: products, a
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
    """Pipeline messages travel beside compute; else both ends wait for them."""
    overlap_tensor: bool = False
    """What tensor parallelism gathers and scatters travels piecewise beside the products it belongs to
    (Transformer Engine's userbuffers, PyTorch's async tensor parallelism)."""
    expert_dispatch: str = "all_to_all"
    """A token travels to each of its experts, or once to each node that has any of them and on from there
    (`per_node`: DeepEP, HybridEP)."""
    overlap_experts: bool = False
    """Tokens on their way to and from experts travel beside another micro-batch's pass through the layer
    (Megatron Core's --overlap-moe-expert-parallel-comm)."""

    @property
    def software(self) -> Stack:
        """The stack that `stack` names."""
        return STACKS[self.stack]

    @property
    def workers(self) -> int:
        """Ranks that compute gradients."""
        return self.dp * self.tp * self.pp * self.cp

    @property
    def world_size(self) -> int:
        """All ranks, servers of their own included."""
        return self.workers + (0 if self.servers_colocated else self.servers)

    @property
    def stages(self) -> int:
        """Pipeline stages over all ranks."""
        return self.pp * self.vp

    @property
    def replicas(self) -> int:
        """Ranks that hold the same parameters, but for experts: dp × cp."""
        return self.dp * self.cp

    @property
    def shards(self) -> int:
        """Ranks over which a replica's states are divided: 1 without sharding."""
        if self.sharding == "ddp":
            return 1
        return self.shard_degree if self.sharding == "hsdp" else self.replicas

    @property
    def shards_parameters(self) -> bool:
        """Whether parameters are gathered before they are used."""
        return self.sharding in ("fsdp", "hsdp")

    @property
    def reduces_every_micro_batch(self) -> bool:
        """Whether each backward reduces its gradients, so that none are kept whole.

        Of sharded gradients, except in a pipeline, where each stage accumulates and reduces once (as
        torchtitan does with FSDP under pipeline parallelism).
        """
        return self.sharding in ("zero2", "fsdp", "hsdp") and self.pp == 1

    @property
    def protocol(self) -> tuple[str, int]:
        """`synchrony` as its name and number: ("stale", 2); 0 where there is none."""
        return parse_synchrony(self.synchrony) or (self.synchrony, 0)

    def steps(self, job: Job) -> int:
        """Optimizer steps' worth of micro-batches that one plan plays: those between two averages; or, in a
        pipeline that is never drained, enough to see it full."""
        name, count = self.protocol
        if name == "local":
            return max(1, count)
        return STEADY_STEPS + 2 * self.filling_steps(job) if self.is_unflushed else 1

    @property
    def is_unflushed(self) -> bool:
        """Whether the pipeline is never drained."""
        return find_schedule(self.schedule).unflushed is not None and self.pp > 1

    def filling_steps(self, job: Job) -> int:
        """Steps in which a pipeline that is never drained fills, and in which it would empty."""
        return -(-2 * self.pp // self.micro_batches(job))

    @property
    def offloads_activations(self) -> bool:
        """Whether activations wait for their backward in host memory."""
        return self.offload in ("activations", "both")

    def gradient_bytes(self, job: Job) -> int:
        """Bytes of one gradient as accumulated and reduced: in the weights' own precision where the software
        does so."""
        stack = self.software
        half = stack.accumulation == "same" or stack.half_gradients
        return job.bytes_per_value if half else GRADIENT_BYTES[job.precision]

    def micro_batches(self, job: Job) -> int:
        """Micro-batches of one replica in one step."""
        return job.global_batch // (self.dp * self.micro_batch)

    @property
    def label(self) -> str:
        """Short and unique, as `dp2 pp2 1f1b mb4` or `ps-async dp2+1 mb4`."""
        if self.gradient_exchange == "parameter_server":
            parts = [f"ps-{self.synchrony}", f"dp{self.dp}+{self.servers}"]
            parts += [f"r{self.server_replicas}"] * (self.server_replicas > 1)
            parts += ["colocated"] * self.servers_colocated
        else:
            parts = [f"{name}{degree}" for name, degree in self._degrees() if degree > 1] or ["single"]
            parts += [self.synchrony] * (self.synchrony != "sync")
        return " ".join([*parts, *self._pipeline_label(), f"mb{self.micro_batch}", *self._memory_label()])

    def _degrees(self) -> list[tuple[str, int]]:
        return [(name, getattr(self, name)) for name in ("dp", "cp", "tp", "pp", "vp", "ep")]

    def _pipeline_label(self) -> list[str]:
        parts = ["sp"] * self.sequence_parallel
        parts += [self.cp_exchange] * (self.cp > 1 and self.cp_exchange != "ring")
        if self.pp > 1 or self.vp > 1:
            parts.append(self.schedule)
            parts += ["layers" + "-".join(_runs(self.stage_layers))] * bool(self.stage_layers)
            parts += ["blocking"] * (not self.overlap_transfers)
        return parts

    def _memory_label(self) -> list[str]:
        some = f"-{self.recompute_blocks}" if self.recompute_blocks else ""
        parts = [f"recompute-{self.recompute}{some}"] * (self.recompute != "none")
        parts += [self.attention] * (self.attention != "flash")
        parts += [self.stack] * (self.stack != DEFAULT_STACK)
        if self.sharding != "ddp":
            parts.append(self.sharding + (f"{self.shard_degree}" if self.shard_degree else ""))
            if self.shards_parameters:
                parts += ["keep"] * (not self.reshard_after_forward)
                parts += [f"prefetch{self.prefetch}"] * (self.prefetch != 1)
        parts += [f"offload-{self.offload}"] * (self.offload != "none")
        parts += [self.collective_algorithm] * (self.collective_algorithm != "auto")
        parts += [f"bucket{self.bucket_bytes}"] * (self.bucket_bytes != DDP_BUCKET_BYTES)
        parts += ["no-overlap"] * (not self.overlap_gradients)
        parts += ["dispatch-per-node"] * (self.expert_dispatch == "per_node")
        parts += ["overlap-tensor"] * self.overlap_tensor + ["overlap-experts"] * self.overlap_experts
        return parts

    def to_dict(self) -> dict[str, object]:
        """The fields as plain values."""
        return {**asdict(self), "stage_layers": list(self.stage_layers)}


LONGEST_RUN = 3
"""Equal numbers that a label writes out."""


def _runs(numbers: tuple[int, ...]) -> list[str]:
    """Numbers as text, long runs of one as `1x22`."""
    found: list[str] = []
    for number, own in groupby(numbers):
        count = sum(1 for _ in own)
        found += [f"{number}x{count}"] if count > LONGEST_RUN else [str(number)] * count
    return found
