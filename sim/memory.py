"""What stands in memory at the peak of one step, for every pipeline rank and every server.

The peak of a rank is the most that its micro-batches in flight keep, found by walking its actions.
`assumptions` says in words what the figures rest on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .activations import logits_bytes
from .cluster import Accelerator, Cluster
from .costs import MASTER_BYTES
from .job import GRADIENT_BYTES, OPTIMIZER_STATES, Job
from .layer_kernels import kept_bytes
from .mixed import stage_accelerators
from .model import EMBEDDING, HEAD
from .partition import held_parameters
from .plan import BACKWARDS, Actions, Kind, Plan, Stage
from .strategy import Strategy
from .traffic import message_bytes, split_parameters

FP32_BYTES = 4


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
    """Micro-batches whose activations it keeps at the peak."""
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
    reserved_bytes: float
    """Context and libraries of the accelerator."""
    capacity_bytes: float
    """Memory of the accelerator."""

    @property
    def total_bytes(self) -> float:
        """The peak."""
        return (
            self.weights_bytes
            + self.gradients_bytes
            + self.optimizer_bytes
            + self.activations_bytes
            + self.logits_bytes
            + self.buffers_bytes
            + self.reserved_bytes
        )

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
    workers = [_rank_memory(plan, cluster, rank) for rank in range(plan.strategy.pp)]
    servers = [_server_memory(plan, cluster, number) for number in range(plan.strategy.servers)]
    return (*workers, *servers)


class _Kept:
    """A list of actions that is known by its identity, which a search asks for again and again."""

    def __init__(self, actions: Actions):
        self.actions = actions

    def __hash__(self) -> int:
        return id(self.actions)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Kept) and other.actions is self.actions


@lru_cache(maxsize=1024)
def _events(kept: _Kept) -> tuple[np.ndarray, np.ndarray]:
    """The stages of ``kept.actions`` in order, and +1 where a forward keeps, -1 where a backward frees."""
    stages, signs = [], []
    for action in kept.actions:
        for part in action.passes:
            if part.kind is Kind.FORWARD or part.kind in BACKWARDS:
                stages.append(part.stage)
                signs.append(1.0 if part.kind is Kind.FORWARD else -1.0)
    return np.array(stages, dtype=np.int64), np.array(signs)


def in_flight(actions: Actions, sizes: Mapping[int, float] | None = None) -> float:
    """The most that is kept between forward and backward at any moment of ``actions``.

    ``sizes`` is what one micro-batch keeps on each stage; without it micro-batches are counted.
    """
    stages, signs = _events(_Kept(actions))
    if not len(stages):
        return 0.0
    by_stage = np.ones(int(stages.max()) + 1)
    for stage, size in (sizes or {}).items():
        by_stage[stage : stage + 1] = size
    return max(0.0, float(np.cumsum(signs * by_stage[stages]).max()))


def state_bytes(job: Job) -> tuple[int, int, int]:
    """Bytes of one parameter's weight, gradient and optimizer states.

    With AdamW they add up to 16 in fp32, 18 in bf16 and 20 in fp16 (Megatron Core user guide, "Distributed
    Optimizer", the column without it).
    """
    states = OPTIMIZER_STATES[job.optimizer] * FP32_BYTES + MASTER_BYTES[job.precision]
    return job.bytes_per_value, GRADIENT_BYTES[job.precision], states


def _rank_memory(plan: Plan, cluster: Cluster, pipeline_rank: int) -> RankMemory:
    job, strategy = plan.job, plan.strategy
    weight, gradient, states = state_bytes(job)
    held = plan.rank_stages(pipeline_rank)
    dense, experts = _parameters(plan, held)
    shards, expert_shards = strategy.shards, max(1, strategy.shards // strategy.ep)
    whole, sharded = dense + experts, dense / shards + experts / expert_shards
    keeps_weights = not strategy.shards_parameters
    keeps_gradients = strategy.sharding in ("ddp", "zero1")
    steps_itself = strategy.gradient_exchange != "parameter_server"
    offloads = strategy.offload in ("optimizer", "both")
    actions = plan.actions[pipeline_rank]
    flying = int(in_flight(actions))
    accelerator = _smallest_accelerator(plan, cluster, pipeline_rank)
    return RankMemory(
        role="worker",
        stage=pipeline_rank,
        parameters=whole,
        in_flight=flying,
        weights_bytes=weight * (whole * _weight_versions(plan, pipeline_rank) if keeps_weights else sharded)
        + (0.0 if keeps_weights else _gathered_bytes(plan, held)),
        gradients_bytes=gradient * (whole if keeps_gradients or strategy.pp > 1 else sharded),
        optimizer_bytes=states * sharded if steps_itself and not offloads else 0.0,
        activations_bytes=_activation_bytes(plan, pipeline_rank, held),
        logits_bytes=_logits_bytes(plan, pipeline_rank, held),
        buffers_bytes=_buffer_bytes(plan, pipeline_rank, held),
        reserved_bytes=accelerator.reserved_bytes,
        capacity_bytes=accelerator.memory_bytes,
    )


def _smallest_accelerator(plan: Plan, cluster: Cluster, pipeline_rank: int) -> Accelerator:
    """Of those of a stage's ranks, the one with the least memory to spare."""
    places = plan.strategy.replicas * plan.strategy.tp
    ranks = range(pipeline_rank * places, (pipeline_rank + 1) * places)
    if not cluster.node_groups:
        return cluster.accelerator
    kinds = [accelerator for accelerator, _ in stage_accelerators(cluster, ranks).values()]
    return min(kinds, key=lambda one: one.memory_bytes - one.reserved_bytes)


def _parameters(plan: Plan, held: list[Stage]) -> tuple[float, float]:
    """Dense and expert parameters of a rank before sharding, a copied embedding included."""
    layers = plan.job.model.layers
    dense, experts = split_parameters((layers[i] for s in held for i in s.layer_indices), plan.strategy)
    if plan.has_copied_embedding and held[-1].index == len(plan.stages) - 1:
        dense += plan.job.model.decoder.vocab * plan.job.model.decoder.hidden / plan.strategy.tp
    return dense, experts


def _weight_versions(plan: Plan, pipeline_rank: int) -> int:
    """Copies of the weights: PipeDream stashes one for each micro-batch in flight (Narayanan et al. 2019,
    section 3.3), 2BW keeps two (Narayanan et al. 2021, section 3.1)."""
    if not plan.strategy.is_unflushed:
        return 1
    return 2 if plan.strategy.schedule == "pipedream-2bw" else plan.strategy.pp - pipeline_rank


def _gathered_bytes(plan: Plan, held: list[Stage]) -> float:
    """Whole weights that stand beside the shards: the blocks at work and ahead, or all that is kept."""
    layers, strategy = plan.job.model.layers, plan.strategy
    sizes = sorted(
        (held_parameters(layers[i], strategy) for s in held for i in s.layer_indices), reverse=True
    )
    count = strategy.prefetch + 1 if strategy.reshard_after_forward else len(sizes)
    return plan.job.bytes_per_value * sum(sizes[:count])


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
        activations_bytes=0.0,
        logits_bytes=0.0,
        buffers_bytes=plan.strategy.dp * gradient * parameters,
        reserved_bytes=cluster.accelerator.reserved_bytes,
        capacity_bytes=cluster.accelerator.memory_bytes,
    )


def _activation_bytes(plan: Plan, pipeline_rank: int, held: list[Stage]) -> float:
    """What micro-batches in flight keep, and one block whole while it is computed again.

    Offloaded, only the micro-batches at work and fetched ahead are on the device.
    """
    recompute = plan.strategy.recompute
    kinds = {s.index: [plan.job.model.layers[i].kind for i in s.layer_indices] for s in held}
    sizes = {
        index: sum(kept_bytes(plan.job, plan.strategy, kind) for kind in own) for index, own in kinds.items()
    }
    kept = in_flight(plan.actions[pipeline_rank], sizes)
    if plan.strategy.offload in ("activations", "both"):
        kept = min(kept, 2 * max(sizes.values()))
    blocks = {kind for own in kinds.values() for kind in own} - {EMBEDDING, HEAD}
    if recompute == "none" or not blocks:
        return kept
    return kept + max(
        kept_bytes(plan.job, plan.strategy, k, "none") - kept_bytes(plan.job, plan.strategy, k, recompute)
        for k in blocks
    )


def _logits_bytes(plan: Plan, pipeline_rank: int, held: list[Stage]) -> float:
    last = len(plan.stages) - 1
    if all(stage.index != last for stage in held):
        return 0.0
    only_head = {stage.index: float(stage.index == last) for stage in held}
    flying = in_flight(plan.actions[pipeline_rank], only_head)
    return logits_bytes(
        plan.job.model.decoder,
        micro_batch=plan.strategy.micro_batch,
        seq_len=plan.job.seq_len,
        tp=plan.strategy.tp,
        bytes_per_value=plan.job.bytes_per_value,
        in_flight=int(flying),
        cp=plan.strategy.cp,
    )


def _buffer_bytes(plan: Plan, pipeline_rank: int, held: list[Stage]) -> float:
    """A message each way to every neighbour stage, and the largest bucket of gradients."""
    ranks, last = plan.stage_ranks, len(plan.stages) - 1
    neighbours = {(s.index, n) for s in held for n in (s.index - 1, s.index + 1) if 0 <= n <= last}
    far = sum(ranks[n] != pipeline_rank for _, n in neighbours)
    layers = plan.job.model.layers
    buckets = (
        sum(held_parameters(layers[i], plan.strategy) for i in bucket) for s in held for bucket in s.buckets
    )
    largest = max(buckets, default=0.0) * GRADIENT_BYTES[plan.job.precision]
    return 2.0 * far * message_bytes(plan.job, plan.strategy) + largest


_SHARDED = {
    "ddp": "nothing is sharded over dp",
    "zero1": "optimizer states are sharded over dp × cp",
    "zero2": "optimizer states and gradients are sharded over dp × cp",
    "fsdp": "states, gradients and weights are sharded over dp × cp",
    "hsdp": "states, gradients and weights are sharded within groups of dp × cp",
}


def _network_assumptions(job: Job, strategy: Strategy) -> tuple[str, ...]:
    weight, gradient, states = state_bytes(job)
    said = [
        f"{weight} + {gradient} + {states} bytes per parameter: {job.precision} weight, gradient, and "
        f"{job.optimizer} states with the fp32 copies of mixed precision; {_SHARDED[strategy.sharding]}",
        "backward wants the inputs of products and norms and the outputs of activations, each kept once",
        "buffers are two messages for each neighbour stage and the largest gradient bucket",
        "fragmentation and workspace are not modelled beyond the accelerator's reserved bytes",
    ]
    if strategy.servers:
        said.append(
            "a server has a buffer for the gradients of each worker; workers keep no optimizer states"
        )
    return tuple(said)


def assumptions(job: Job, strategy: Strategy) -> tuple[str, ...]:
    """What the figures of `memory` rest on, one sentence each."""
    if job.model.network is not None:
        return _network_assumptions(job, strategy)
    weight, gradient, states = state_bytes(job)
    said = [
        f"{weight} + {gradient} + {states} bytes per parameter: {job.precision} weight, gradient, and "
        f"{job.optimizer} states with the fp32 copies of mixed precision; {_SHARDED[strategy.sharding]}",
        f"{strategy.attention} attention, {'with' if job.dropout else 'no'} dropout, fused MLP activation: "
        "activations after Korthikanti et al. 2022",
        "norms and inputs of products are split over the tensor-parallel ranks (sequence parallelism)"
        if strategy.sequence_parallel
        else "norms and inputs of products are whole on every tensor-parallel rank (no sequence parallelism)",
        "the last stage keeps fp32 log-probabilities for each micro-batch in flight, and at work its logits "
        "and an fp32 gradient",
        "buffers are two messages for each neighbour stage and the largest gradient bucket",
        "fragmentation and workspace are not modelled beyond the accelerator's reserved bytes",
    ]
    if strategy.recompute != "none":
        said.append("one block's activations stand whole while it is computed again")
    if job.model.decoder.tied_embeddings and strategy.pp > 1:
        said.append("the last stage has its own copy of the tied embedding table")
    if strategy.servers:
        said.append(
            "a server has a buffer for the gradients of each worker; workers keep no optimizer states"
        )
    return tuple(said)
