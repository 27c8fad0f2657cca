"""What stands in memory at the peak of one step, for a rank of every pipeline stage and for every server.

The peak of a stage is its largest number of micro-batches in flight, found by walking its actions.
`assumptions` says in words what the figures rest on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .activations import layer_activation_bytes, logits_bytes
from .cluster import Cluster
from .costs import MASTER_BYTES
from .job import GRADIENT_BYTES, OPTIMIZER_STATES, Job
from .model import BLOCK, HEAD
from .plan import Action, Kind, Plan
from .strategy import Strategy

FP32_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class RankMemory:
    """Peak memory of one rank, in bytes, by what fills it. All ranks of a stage are alike."""

    role: str
    """`worker` or `server`."""
    stage: int
    """Pipeline stage of a worker, number of a server."""
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
    """Peak memory of a rank of each pipeline stage, in order, then of each server."""
    stages = [_stage_memory(plan, cluster, stage.index) for stage in plan.stages]
    servers = [_server_memory(plan, cluster, number) for number in range(plan.strategy.servers)]
    return (*stages, *servers)


def in_flight(actions: Iterable[Action]) -> int:
    """The most micro-batches that are forward and not yet backward at any moment of ``actions``."""
    count = most = 0
    for action in actions:
        kind = action.kind
        if kind is Kind.FORWARD:
            count += 1
            most = max(most, count)
        elif kind is Kind.BACKWARD or kind is Kind.WEIGHT_GRADIENT:
            count -= 1
    return most


def state_bytes(job: Job) -> tuple[int, int, int]:
    """Bytes of one parameter's weight, gradient and optimizer states.

    With AdamW they add up to 16 in fp32, 18 in bf16 and 20 in fp16 (Megatron Core user guide, "Distributed
    Optimizer", the column without it).
    """
    states = OPTIMIZER_STATES[job.optimizer] * FP32_BYTES + MASTER_BYTES[job.precision]
    return job.bytes_per_value, GRADIENT_BYTES[job.precision], states


def _stage_memory(plan: Plan, cluster: Cluster, stage: int) -> RankMemory:
    job, strategy = plan.job, plan.strategy
    weight, gradient, states = state_bytes(job)
    parameters = plan.stage_parameters(stage) / strategy.tp
    flying = in_flight(plan.actions[stage])
    steps_itself = strategy.gradient_exchange != "parameter_server"
    return RankMemory(
        role="worker",
        stage=stage,
        parameters=parameters,
        in_flight=flying,
        weights_bytes=weight * parameters,
        gradients_bytes=gradient * parameters,
        optimizer_bytes=states * parameters if steps_itself else 0.0,
        activations_bytes=_activation_bytes(plan, stage, flying),
        logits_bytes=_logits_bytes(plan, stage, flying),
        buffers_bytes=_buffer_bytes(plan, stage),
        reserved_bytes=cluster.accelerator.reserved_bytes,
        capacity_bytes=cluster.accelerator.memory_bytes,
    )


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


def _activation_bytes(plan: Plan, stage: int, flying: int) -> float:
    """What micro-batches in flight keep, and one block whole while it is computed again."""
    kinds = [plan.job.model.layers[i].kind for i in plan.stages[stage].layer_indices]
    recompute = plan.strategy.recompute
    kept = flying * sum(_layer_bytes(plan, kind, recompute) for kind in kinds)
    if recompute == "none" or BLOCK not in kinds:
        return kept
    return kept + _layer_bytes(plan, BLOCK, "none") - _layer_bytes(plan, BLOCK, recompute)


def _layer_bytes(plan: Plan, kind: str, recompute: str) -> float:
    return layer_activation_bytes(
        plan.job.model.decoder,
        kind,
        micro_batch=plan.strategy.micro_batch,
        seq_len=plan.job.seq_len,
        tp=plan.strategy.tp,
        bytes_per_value=plan.job.bytes_per_value,
        recompute=recompute,
    )


def _logits_bytes(plan: Plan, stage: int, flying: int) -> float:
    if all(plan.job.model.layers[i].kind != HEAD for i in plan.stages[stage].layer_indices):
        return 0.0
    return logits_bytes(
        plan.job.model.decoder,
        micro_batch=plan.strategy.micro_batch,
        seq_len=plan.job.seq_len,
        tp=plan.strategy.tp,
        bytes_per_value=plan.job.bytes_per_value,
        in_flight=flying,
    )


def _buffer_bytes(plan: Plan, stage: int) -> float:
    """A message each way to every neighbour stage, and the largest bucket of gradients."""
    job, strategy = plan.job, plan.strategy
    message = strategy.micro_batch * job.seq_len * job.model.decoder.hidden * job.bytes_per_value
    neighbours = (stage > 0) + (stage < strategy.pp - 1)
    layers = job.model.layers
    buckets = (sum(layers[i].parameters for i in bucket) for bucket in plan.stages[stage].buckets)
    largest = max(buckets, default=0) / strategy.tp * GRADIENT_BYTES[job.precision]
    return 2.0 * neighbours * message + largest


def assumptions(job: Job, strategy: Strategy) -> tuple[str, ...]:
    """What the figures of `memory` rest on, one sentence each."""
    weight, gradient, states = state_bytes(job)
    said = [
        f"{weight} + {gradient} + {states} bytes per parameter: {job.precision} weight, gradient, and "
        f"{job.optimizer} states with the fp32 copies of mixed precision; nothing is sharded over dp",
        "flash attention, no dropout, fused MLP activation: activations after Korthikanti et al. 2022",
        "norms and inputs of products are whole on every tensor-parallel rank (no sequence parallelism)",
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
