"""What stands in memory at the peak of one step, for every pipeline rank and every server.

The peak of a rank is found by walking its passes (`pass_timeline.py`): what is always there, and what the
micro-batches in flight keep, with what the pass at work needs besides. What the allocator cannot use, the
buffers of communicators and the accelerator's own context are terms of their own. `assumptions.py` says in
words what the figures rest on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from ..costs.accelerator_mix import stage_accelerators
from ..hardware.cluster import Accelerator, Cluster
from ..model.layer import BLOCK, BLOCKS, EMBEDDING, HEAD
from ..plan.job import Job
from ..plan.joined_backward import joins_halves
from ..plan.mixed_precision import bytes_per_gradient
from ..plan.plan import Plan, Stage
from ..plan.rank_parameters import held_parameters
from ..plan.sharding import gathers_parameters
from ..plan.strategy import Strategy
from ..plan.traffic import message_bytes
from . import autocast
from .layer_bytes import kept_bytes, weight_gradient_bytes, workspace_bytes
from .loss import loss_bytes
from .parameters import rank_states, state_bytes
from .pass_timeline import NOTHING, Moment, StageBytes, Walk, in_flight, walk
from .profiled import allocator_loss_bytes, as_profiled, reduced_copies_bytes

COMMUNICATOR_BYTES = {2: 544 * 2**20}
MANY_RANKS_COMMUNICATOR_BYTES = 688 * 2**20
"""Device memory of one NCCL communicator of two ranks, and of more, on A100 (NVIDIA/nccl issue 964)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankMemory:
    """Peak memory of one rank, in bytes, by what fills it. All ranks of a stage are alike."""

    role: str
    """`worker` or `server`."""
    stage: int
    """Pipeline rank of a worker, number of a server."""
    parameters: float
    """Parameters the rank holds."""
    in_flight: int
    """The most micro-batches that are between forward and backward."""
    weights_bytes: float
    """Weights as computed with."""
    gradients_bytes: float
    """Gradients as accumulated and reduced."""
    optimizer_bytes: float
    """Optimizer states, and the fp32 copies of mixed precision."""
    activations_bytes: float
    """Kept between forward and backward, and those of a block that is computed again."""
    logits_bytes: float
    """Logits and loss, on the last stage."""
    buffers_bytes: float
    """Messages and gradient buckets under way."""
    workspace_bytes: float = 0.0
    """Gradients of activations while backward is at work."""
    fragmentation_bytes: float = 0.0
    """Held by the allocator in blocks too small to be used."""
    communicators_bytes: float = 0.0
    """Of the libraries that communicate."""
    reserved_bytes: float
    """Context and libraries of the accelerator."""
    capacity_bytes: float
    """Memory of the accelerator."""

    @property
    def allocated_bytes(self) -> float:
        """What the framework asks its allocator for (torch.cuda.max_memory_allocated)."""
        return (
            self.weights_bytes
            + self.gradients_bytes
            + self.optimizer_bytes
            + self.activations_bytes
            + self.logits_bytes
            + self.buffers_bytes
            + self.workspace_bytes
        )

    @property
    def allocator_bytes(self) -> float:
        """What the allocator holds for that (torch.cuda.max_memory_reserved)."""
        return self.allocated_bytes + self.fragmentation_bytes

    @property
    def total_bytes(self) -> float:
        """The peak."""
        return self.allocator_bytes + self.communicators_bytes + self.reserved_bytes

    @property
    def fits(self) -> bool:
        """Whether the peak is within the capacity."""
        return self.total_bytes <= self.capacity_bytes

    @property
    def short_bytes(self) -> float:
        """Bytes that are missing; 0 where it fits."""
        return max(0.0, self.total_bytes - self.capacity_bytes)


def memory(plan: Plan, cluster: Cluster) -> tuple[RankMemory, ...]:
    """Peak memory of each pipeline rank, in order, then of each server."""
    workers = [rank_memory(plan, cluster, rank) for rank in range(plan.strategy.pp)]
    servers = [_server_memory(plan, cluster, number) for number in range(plan.strategy.servers)]
    return (*workers, *servers)


def rank_memory(plan: Plan, cluster: Cluster, pipeline_rank: int, at: Moment | None = None) -> RankMemory:
    """Peak memory of the workers of one pipeline rank; or what stands there ``at`` another moment."""
    held = plan.rank_stages(pipeline_rank)
    accelerator = _smallest_accelerator(plan, cluster, pipeline_rank)
    on_host = accelerator.kind == "cpu"
    buffers = _buffer_bytes(plan, pipeline_rank, held, copies=on_host)
    states = rank_states(plan, pipeline_rank)
    moment = at or _peak_of(rank_walk(plan, pipeline_rank, accelerator).peak, states.copies)
    allocated = states.weights + states.gradients + states.optimizer + moment.total_bytes + buffers
    is_gpu = accelerator.kind == "gpu" and cluster.host is None
    return RankMemory(
        role="worker",
        stage=pipeline_rank,
        parameters=states.parameters,
        in_flight=in_flight(plan.actions[pipeline_rank]),
        weights_bytes=states.weights,
        gradients_bytes=states.gradients,
        optimizer_bytes=states.optimizer,
        activations_bytes=moment.activations_bytes,
        logits_bytes=moment.logits_bytes,
        buffers_bytes=buffers,
        workspace_bytes=moment.workspace_bytes,
        fragmentation_bytes=_unusable(plan.strategy, allocated, moment)
        if is_gpu
        else allocator_loss_bytes(accelerator, plan),
        communicators_bytes=_communicator_bytes(plan.strategy) if is_gpu else 0.0,
        reserved_bytes=accelerator.reserved_bytes,
        capacity_bytes=accelerator.memory_bytes,
    )


def _unusable(strategy: Strategy, allocated_bytes: float, moment: Moment) -> float:
    """What the allocator holds on top of what is allocated. Ranks that share a vocabulary gather logits."""
    stack = strategy.software
    of_loss = stack.loss_fragmentation if strategy.tp > 1 else 0.0
    return stack.fragmentation * allocated_bytes + of_loss * moment.logits_bytes


def rank_peak(plan: Plan, pipeline_rank: int) -> Moment:
    """When most stands on one pipeline rank."""
    return _peak_of(rank_walk(plan, pipeline_rank).peak, rank_states(plan, pipeline_rank).copies)


def _peak_of(moment: Moment, copies_bytes: float) -> Moment:
    """``moment``, or the optimizer at work on fp32 copies of gradients after all passes."""
    if moment.total_bytes >= copies_bytes:
        return moment
    return replace(NOTHING, at="optimizer step", workspace_bytes=copies_bytes)


def rank_walk(plan: Plan, pipeline_rank: int, accelerator: Accelerator | None = None) -> Walk:
    """What is kept on one pipeline rank, pass by pass; as seen on ``accelerator``, where anybody looked."""
    held = plan.rank_stages(pipeline_rank)
    sizes = {stage.index: _stage_bytes(plan, stage) for stage in held}
    if accelerator is not None and accelerator.kind == "cpu":
        sizes = {s.index: as_profiled(sizes[s.index], plan, s, accelerator) for s in held}
    offloads = plan.strategy.offloads_activations
    # Offloaded, only the micro-batches at work and fetched ahead are on the device.
    limit = 2 * max(size.kept for size in sizes.values()) if offloads else float("inf")
    return walk(plan.actions[pipeline_rank], sizes, limit)


def _stage_bytes(plan: Plan, stage: Stage) -> StageBytes:
    kinds = tuple(plan.job.model.layers[i].kind for i in stage.layer_indices)
    return _bytes_of_kinds(plan.job, plan.strategy, kinds, stage.index == len(plan.stages) - 1)


@lru_cache(maxsize=1024)
def _bytes_of_kinds(job: Job, strategy: Strategy, kinds: tuple[str, ...], is_last: bool) -> StageBytes:
    """Of a stage with layers of ``kinds``."""
    each = {kind: kept_bytes(job, strategy, kind) for kind in set(kinds)}
    joined = strategy.software.autocast and joins_halves(strategy)
    left = {kind: 0.0 if joined else weight_gradient_bytes(job, strategy, kind) for kind in set(kinds)}
    blocks = set(kinds) - {EMBEDDING, HEAD}
    again = gradients = 0.0
    for kind in blocks:
        weights = _placeholder_bytes(job, strategy, kind)
        gradients = max(gradients, workspace_bytes(job, strategy, kind) + weights)
        if strategy.recompute != "none":
            kept = kept_bytes(job, strategy, kind, strategy.recompute)
            again = max(again, kept_bytes(job, strategy, kind, "none") - kept)
    loss_kept, loss_work = _loss_bytes(job, strategy) if is_last else (0.0, 0.0)
    if strategy.software.autocast and BLOCK in blocks:
        # Forward caches all casts until the loss is there. A block's backward begins when the loss's is over.
        cached = autocast.uncounted_casts(job, strategy, kinds)
        loss_work = max(loss_work, cached + 0.75 * loss_work) if is_last else 0.0
        again, gradients = 0.0, max(0.0, autocast.block_work_bytes(job, strategy) - loss_kept - loss_work)
    return StageBytes(
        kept=sum(each[kind] for kind in kinds),
        for_weights=sum(left[kind] for kind in kinds),
        recomputed=again,
        gradients=gradients,
        loss_kept=loss_kept,
        loss_work=loss_work,
    )


def _placeholder_bytes(job: Job, strategy: Strategy, kind: str) -> float:
    """What stands for the gradients of weights that GEMMs add themselves: Transformer Engine keeps an
    empty tensor for each shape of a weight (pytorch/module/base.py, `get_dummy_wgrad`)."""
    decoder = job.model.decoder
    if strategy.software.accumulation != "fused" or kind not in BLOCKS:
        return 0.0
    inner = decoder.ffn if kind == BLOCK else decoder.expert_ffn + decoder.shared_ffn
    values = decoder.attention_parameters + decoder.mlp_matrices * decoder.hidden * inner
    return float(values * job.bytes_per_value / strategy.tp)


def _loss_bytes(job: Job, strategy: Strategy) -> tuple[float, float]:
    found = loss_bytes(
        job.model.decoder,
        micro_batch=strategy.micro_batch,
        seq_len=job.seq_len,
        tp=strategy.tp,
        bytes_per_value=job.bytes_per_value,
        cp=strategy.cp,
        stack=strategy.software,
    )
    return found.kept, found.work


def _communicator_bytes(strategy: Strategy) -> float:
    """Of one communicator for each dimension along which a rank talks to others."""
    degrees = (strategy.tp, strategy.replicas, strategy.cp, strategy.pp, strategy.ep)
    return float(
        sum(COMMUNICATOR_BYTES.get(ranks, MANY_RANKS_COMMUNICATOR_BYTES) for ranks in degrees if ranks > 1)
    )


def _smallest_accelerator(plan: Plan, cluster: Cluster, pipeline_rank: int) -> Accelerator:
    """Of those of a stage's ranks, the one with the least memory to spare."""
    if not cluster.node_groups:
        return cluster.accelerator
    places = plan.strategy.replicas * plan.strategy.tp
    ranks = range(pipeline_rank * places, (pipeline_rank + 1) * places)
    kinds = [accelerator for accelerator, _ in stage_accelerators(cluster, ranks).values()]
    return min(kinds, key=lambda one: one.memory_bytes - one.reserved_bytes)


def _server_memory(plan: Plan, cluster: Cluster, number: int) -> RankMemory:
    weight, gradient, states = state_bytes(plan.job)
    layers = plan.job.model.layers
    parameters = float(sum(layers[i].parameters for i in plan.shards[number]))
    return RankMemory(
        role="server",
        stage=number,
        parameters=parameters,
        in_flight=0,
        weights_bytes=weight * parameters,
        gradients_bytes=gradient * parameters,
        optimizer_bytes=states * parameters,
        activations_bytes=NOTHING.activations_bytes,
        logits_bytes=NOTHING.logits_bytes,
        buffers_bytes=plan.strategy.dp * gradient * parameters,
        reserved_bytes=cluster.accelerator.reserved_bytes,
        capacity_bytes=cluster.accelerator.memory_bytes,
    )


def _buffer_bytes(plan: Plan, pipeline_rank: int, held: list[Stage], *, copies: bool) -> float:
    """A message each way to every neighbour stage; and, where parameters are sharded, the largest bucket of
    gradients, which is copied before it is reduced. Others are reduced where they were accumulated (Megatron
    Core's distributed/param_and_grad_buffer.py). With ``copies`` there are those of `reduced_copies_bytes`
    instead."""
    ranks, last = plan.stage_ranks, len(plan.stages) - 1
    neighbours = {(s.index, n) for s in held for n in (s.index - 1, s.index + 1) if 0 <= n <= last}
    far = sum(ranks[n] != pipeline_rank for _, n in neighbours)
    messages = 2.0 * far * message_bytes(plan.job, plan.strategy)
    if copies:
        return messages + reduced_copies_bytes(plan, held)
    if not gathers_parameters(plan.strategy):
        return messages
    layers = plan.job.model.layers
    buckets = (
        sum(held_parameters(layers[i], plan.strategy) for i in bucket) for s in held for bucket in s.buckets
    )
    width = bytes_per_gradient(plan.job.precision, plan.strategy.software)
    return messages + max(buckets, default=0.0) * width
