"""Bytes on a host's own processor: what autograd was seen to keep, and what the allocator loses.

torch asks the C library for aligned blocks, which leaves slivers between them that small objects settle in.
What is freed is then too small for an aligned block of the same size, and the heap grows until there are as
many such holes as a micro-batch has tensors. So what is lost depends on the tensors of one micro-batch, not
on how many are in flight, nor on whether they are kept or computed again.
"""

from __future__ import annotations

from dataclasses import replace

from ..hardware.cluster import Accelerator
from ..hardware.curves import interpolate
from ..kernels.layer_profiles import profiled_bytes
from ..model.layer import BLOCKS, HEAD
from ..plan.joined_backward import joins_halves
from ..plan.mixed_precision import bytes_per_gradient
from ..plan.plan import Plan, Stage
from ..plan.rank_parameters import held_parameters
from .layer_bytes import kept_bytes, output_gradient_bytes
from .pass_timeline import StageBytes


def as_profiled(size: StageBytes, plan: Plan, stage: Stage, accelerator: Accelerator) -> StageBytes:
    """``size`` with what was seen of the stage's layers; as it is where one of them was never looked at.

    Recomputation keeps the same part of what was seen as of what is counted. What passes work with is in the
    allocator's loss, which was measured with it. Between the halves of a backward the graph stays with all
    that it keeps (torch's `stage_backward_input`).
    """
    job, strategy = plan.job, plan.strategy
    kinds = [job.model.layers[i].kind for i in stage.layer_indices]
    known = _seen(plan, kinds, accelerator)
    if known is None:
        return size
    recomputed = 0.0
    if strategy.recompute != "none":
        for kind in set(kinds) & set(BLOCKS):
            whole = known[kind]
            known[kind] = whole * kept_bytes(job, strategy, kind) / kept_bytes(job, strategy, kind, "none")
            recomputed = max(recomputed, whole - known[kind])
    kept = sum(known[kind] for kind in kinds)
    of_outputs = sum(output_gradient_bytes(job, strategy, kind) for kind in kinds)
    return replace(
        size,
        kept=kept,
        for_weights=0.0 if joins_halves(strategy) else kept + of_outputs,
        recomputed=recomputed,
        gradients=0.0,
        loss_kept=0.0 if HEAD in known or job.model.network is not None else size.loss_kept,
    )


def allocator_loss_bytes(accelerator: Accelerator, plan: Plan) -> float:
    """Bytes of a process beyond what it uses at its peak: a share of what all layers of the model keep of one
    micro-batch, divided as the plan divides them."""
    if not accelerator.allocator_loss:
        return 0.0
    kinds = [layer.kind for layer in plan.job.model.layers]
    known = _seen(plan, kinds, accelerator)
    each = known or {kind: kept_bytes(plan.job, plan.strategy, kind, "none") for kind in set(kinds)}
    return sum(each[kind] for kind in kinds) * interpolate(accelerator.allocator_loss, plan.micro_batches)


def reduced_copies_bytes(plan: Plan, held: list[Stage]) -> float:
    """Of the flat copies in which gradients of ``held``, or parameters after local steps, are reduced: when
    they are made again the heap has no room where they were. Where states are shared out, this rank's part of
    the sums is another. A worker of parameter servers has messages of all its gradients, and buffers that all
    parameters arrive in.
    """
    strategy, layers = plan.strategy, plan.job.model.layers
    if strategy.replicas == 1 and not strategy.servers:
        return 0.0
    copied = sum(held_parameters(layers[i], strategy) for s in held for own in s.buckets for i in own)
    width = bytes_per_gradient(plan.job.precision, strategy.software)
    if strategy.servers:
        return copied * (width + plan.job.bytes_per_value)
    parts = 0.0 if strategy.sharding == "ddp" else 1.0 / strategy.shards
    return (1.0 + parts) * copied * width


def _seen(plan: Plan, kinds: list[str], accelerator: Accelerator) -> dict[str, float] | None:
    """By kind of layer: what autograd was seen to keep of it; None where one was never looked at."""
    seen = {kind: profiled_bytes(accelerator, plan.job, plan.strategy, kind) for kind in set(kinds)}
    known = {kind: value for kind, value in seen.items() if value is not None}
    return known if len(known) == len(seen) else None
