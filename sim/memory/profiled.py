"""Bytes on a host's own processor: what autograd was seen to keep, and what the allocator loses."""

from __future__ import annotations

from dataclasses import replace

from ..hardware.cluster import Accelerator
from ..hardware.curves import interpolate
from ..kernels.layer_profiles import profiled_bytes
from ..model.layer import BLOCKS, HEAD
from ..plan.plan import Plan, Stage
from .layer_bytes import kept_bytes
from .pass_timeline import StageBytes


def as_profiled(size: StageBytes, plan: Plan, stage: Stage, accelerator: Accelerator) -> StageBytes:
    """``size`` with what was seen of the stage's layers; as it is where one of them was never looked at.

    Recomputation keeps the same part of what was seen as of what is counted. What passes work with is in the
    allocator's loss, which was measured with it.
    """
    job, strategy = plan.job, plan.strategy
    kinds = [job.model.layers[i].kind for i in stage.layer_indices]
    seen = {kind: profiled_bytes(accelerator, job, strategy, kind) for kind in set(kinds)}
    known = {kind: value for kind, value in seen.items() if value is not None}
    if len(known) < len(seen):
        return size
    recomputed = 0.0
    if strategy.recompute != "none":
        for kind in set(kinds) & set(BLOCKS):
            whole = known[kind]
            known[kind] = whole * kept_bytes(job, strategy, kind) / kept_bytes(job, strategy, kind, "none")
            recomputed = max(recomputed, whole - known[kind])
    return replace(
        size,
        kept=sum(known[kind] for kind in kinds),
        recomputed=recomputed,
        gradients=0.0,
        loss_kept=0.0 if HEAD in known or job.model.network is not None else size.loss_kept,
    )


def allocator_loss_bytes(accelerator: Accelerator, micro_batches: int, kept: float) -> float:
    """Bytes of a process beyond its states and the ``kept`` activations at its peak."""
    if not accelerator.allocator_loss:
        return 0.0
    return kept * interpolate(accelerator.allocator_loss, micro_batches)
