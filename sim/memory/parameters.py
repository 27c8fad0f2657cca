"""Bytes of what stands for parameters on a rank: weights, gradients, optimizer states, under the sharding."""

from __future__ import annotations

from dataclasses import dataclass

from ..model.layer import EMBEDDING, HEAD
from ..plan.job import OPTIMIZER_STATES, Job
from ..plan.mixed_precision import GRADIENT_BYTES, MASTER_BYTES, bytes_per_gradient
from ..plan.plan import Plan, Stage
from ..plan.rank_parameters import held_parameters, split_parameters
from ..plan.schedules import find_schedule
from ..plan.sharding import gathers_parameters, reduces_every_micro_batch
from ..plan.step_counts import is_unflushed
from . import autocast

FP32_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class StateBytes:
    """Of one pipeline rank."""

    parameters: float
    """How many the rank holds."""
    weights: float
    """Bytes of weights as computed with; of gathered ones those that stand at once."""
    gradients: float
    optimizer: float
    """Bytes of optimizer states and of fp32 copies of weights."""
    copies: float
    """Bytes of fp32 copies of half-precision gradients, which stand only while the optimizer is at work
    (Megatron-LM's `Float16OptimizerWithFloat16Params`, `_copy_model_grads_to_main_grads`)."""


def state_bytes(job: Job) -> tuple[int, int, int]:
    """Bytes of one parameter's weight, gradient and optimizer states.

    With AdamW they add up to 16 in fp32, 18 in bf16 and 20 in fp16 (Megatron Core user guide, "Distributed
    Optimizer", the column without it).
    """
    states = OPTIMIZER_STATES[job.optimizer] * FP32_BYTES + MASTER_BYTES[job.precision]
    return job.bytes_per_value, GRADIENT_BYTES[job.precision], states


def rank_states(plan: Plan, pipeline_rank: int) -> StateBytes:
    """What stands for the parameters of one pipeline rank."""
    held = plan.rank_stages(pipeline_rank)
    job, strategy = plan.job, plan.strategy
    if strategy.software.autocast and not gathers_parameters(strategy):
        return _autocast_states(plan, held)
    weight, _, states = state_bytes(job)
    gradient = bytes_per_gradient(job.precision, strategy.software)
    dense, experts = _parameters(plan, held)
    shards, expert_shards = strategy.shards, max(1, strategy.shards // strategy.ep)
    whole, sharded = dense + experts, dense / shards + experts / expert_shards
    if gathers_parameters(strategy):
        # FSDP's shards are the fp32 copies themselves, which gathering casts.
        software = strategy.software
        is_copy = (software.accumulation == "sharded" or software.autocast) and MASTER_BYTES[job.precision]
        shard = 0 if is_copy else weight
        weights = shard * sharded + _gathered_bytes(plan, held)
    else:
        weights = weight * whole * _weight_versions(plan, pipeline_rank)
    keeps_gradients = strategy.sharding in ("ddp", "zero1") or strategy.pp > 1
    steps_itself = strategy.gradient_exchange != "parameter_server"
    offloads = strategy.offload in ("optimizer", "both")
    optimized = sharded if steps_itself and not offloads else 0.0
    copy = FP32_BYTES if gradient < FP32_BYTES else 0
    # In fp16 the states count the copies of gradients in (`MASTER_BYTES`).
    lasting = states - (copy if job.precision == "fp16" else 0)
    return StateBytes(
        parameters=whole,
        weights=weights,
        gradients=gradient * (whole if keeps_gradients else sharded),
        optimizer=lasting * optimized,
        copies=copy * optimized,
    )


def _autocast_states(plan: Plan, held: list[Stage]) -> StateBytes:
    """Of plain torch under autocast: everything in fp32, but that ranks which share out optimizer states
    (zero1, zero2) compute with weights as they are gathered, and step an fp32 part. A step of one micro-batch
    has no gradients until its backward makes them, since they were dropped after the step before; their
    copies stand for them then."""
    job, strategy = plan.job, plan.strategy
    dense, experts = _parameters(plan, held)
    whole = dense + experts
    sharded = dense / strategy.shards + experts / max(1, strategy.shards // strategy.ep)
    kinds = tuple(job.model.layers[i].kind for s in held for i in s.layer_indices)
    float8 = autocast.float8_weight_bytes(job, strategy, kinds)
    table = autocast.table_gradient_bytes(plan.job, plan.strategy) if EMBEDDING in kinds else 0.0
    tables = table * (1 + (plan.job.model.decoder.tied_embeddings and HEAD in kinds))
    several = plan.micro_batches > 1
    steps_itself = strategy.gradient_exchange != "parameter_server"
    stays = strategy.offload not in ("optimizer", "both")
    width = job.bytes_per_value if strategy.shards > 1 else FP32_BYTES
    copy = FP32_BYTES if width < FP32_BYTES else 0
    return StateBytes(
        parameters=whole,
        weights=width * whole * _weight_versions(plan, held[0].index) + copy * sharded + float8,
        gradients=FP32_BYTES * (sharded if reduces_every_micro_batch(strategy) else whole)
        if several
        else 0.0,
        optimizer=FP32_BYTES * OPTIMIZER_STATES[job.optimizer] * sharded if steps_itself and stays else 0.0,
        copies=tables if several else FP32_BYTES * whole + tables - table,
    )


def _parameters(plan: Plan, held: list[Stage]) -> tuple[float, float]:
    """Dense and expert parameters of a rank before sharding, a copied embedding included."""
    layers = plan.job.model.layers
    dense, experts = split_parameters((layers[i] for s in held for i in s.layer_indices), plan.strategy)
    if plan.has_copied_embedding and held[-1].index == len(plan.stages) - 1:
        dense += plan.job.model.decoder.vocab * plan.job.model.decoder.hidden / plan.strategy.tp
    return dense, experts


def _weight_versions(plan: Plan, pipeline_rank: int) -> int:
    """Copies of the weights: several where the pipeline is never drained."""
    unflushed = find_schedule(plan.strategy.schedule).unflushed
    if unflushed is None or not is_unflushed(plan.strategy):
        return 1
    return unflushed.weight_versions(pipeline_rank, plan.strategy.pp)


def _gathered_bytes(plan: Plan, held: list[Stage]) -> float:
    """Whole weights that stand next to the shards: the blocks at work and ahead, or all that is kept."""
    layers, strategy = plan.job.model.layers, plan.strategy
    sizes = sorted(
        (held_parameters(layers[i], strategy) for s in held for i in s.layer_indices), reverse=True
    )
    count = strategy.prefetch + 1 if strategy.reshard_after_forward else len(sizes)
    return plan.job.bytes_per_value * sum(sizes[:count])
