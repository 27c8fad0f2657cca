"""What eager torch computes again in a layer's backward, which the host launches in one go with the rest.

The host launches what is repeated and what is not one after the other while the device works, so the slower
of the two sums counts (`Costs`), not the sum of the slower ones. Managing a checkpoint takes the host time of
its own, in Python.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..hardware.cluster import Accelerator
from ..kernels.kernel import Kernel
from ..kernels.layer_kernels import layer_kernels
from ..kernels.recompute import repeated_blocks, repeated_parts
from ..model.layer import EMBEDDING, HEAD
from ..plan.job import Job
from ..plan.strategy import Strategy


@dataclass(frozen=True, slots=True, kw_only=True)
class Recomputation:
    """Kernels of a forward, and what of them backward repeats, in the mean over all blocks."""

    kernels: tuple[Kernel, ...] = ()
    parts: tuple[float, ...] = ()
    """Of each of ``kernels``, 0 to 1."""
    host_s: float = 0.0
    """Seconds of the host beside the launches."""


def eager_recomputation(
    accelerator: Accelerator, job: Job, strategy: Strategy, layer_kind: str
) -> Recomputation:
    """Of a layer of ``layer_kind``; nothing of an embedding or a head."""
    blocks = repeated_blocks(job, strategy) if layer_kind not in (EMBEDDING, HEAD) else 0.0
    if not blocks:
        return Recomputation()
    kernels = layer_kernels(job, strategy, layer_kind, "forward")
    stops_early = strategy.software.recompute_stops_early
    parts = repeated_parts(
        job.model.decoder, layer_kind, strategy.recompute, kernels, stops_early=stops_early, fused=True
    )
    return Recomputation(
        kernels=kernels,
        parts=tuple(blocks * part for part in parts),
        host_s=blocks * _managing_s(accelerator, strategy),
    )


def _managing_s(accelerator: Accelerator, strategy: Strategy) -> float:
    """Seconds of the host to manage one block's checkpoint: as measured, else as the stack says."""
    if strategy.recompute in accelerator.host_recompute_s:
        return accelerator.host_recompute_s[strategy.recompute]
    usual = dict(strategy.software.host_recompute_s) if accelerator.kind == "gpu" else {}
    return usual.get(strategy.recompute, 0.0)
