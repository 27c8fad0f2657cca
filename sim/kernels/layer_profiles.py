"""Seconds of a layer as profiled on an accelerator, carried over to other micro-batches and tp degrees."""

from __future__ import annotations

from dataclasses import replace

from ..hardware.cluster import Accelerator, LayerProfile
from ..hardware.curves import interpolate
from ..plan.job import Job
from ..plan.software_stacks import DEFAULT_STACK, EXECUTOR_STACK
from ..plan.strategy import Strategy
from .layer_kernels import layer_kernels
from .roofline import kernels_s


def profiled_s(
    accelerator: Accelerator, job: Job, strategy: Strategy, kind: str, *, backward: bool
) -> float | None:
    """Seconds of one micro-batch through a layer of ``kind``; None where its shape was never profiled.

    A profile of the same micro-batch is used as it is, those of others by a straight line in the
    micro-batch, a single other one scaled by the ratio of rooflines. Profiles are of whole layers, so
    what divides a layer (tp, cp, ep) scales by the ratio of rooflines too. Recompute is not included.
    """
    points = _points(accelerator, job, kind, backward=backward)
    others = job.dropout or strategy.attention != "flash" or strategy.stack != DEFAULT_STACK
    if not points or others:
        return None  # profiles are of layers without dropout, with fused attention

    def roofline(micro_batch: int, shape: Strategy) -> float:
        own = layer_kernels(job, replace(shape, micro_batch=micro_batch), kind, part)
        return kernels_s(accelerator, own, job.precision)

    part = "backward" if backward else "forward"
    whole, wanted = Strategy(), strategy.micro_batch
    if len(points) == 1 and wanted not in points:
        ((micro_batch, seconds),) = points.items()
        return seconds * roofline(wanted, strategy) / roofline(micro_batch, whole)
    seconds = line(points, wanted)
    if strategy.tp == strategy.cp == strategy.ep == 1:
        return seconds
    return seconds * roofline(wanted, strategy) / roofline(wanted, whole)


def correction(accelerator: Accelerator, job: Job, strategy: Strategy, kind: str, *, backward: bool) -> float:
    """Factor on what the kernels of an eager layer of ``kind`` add up to on a GPU: measured over modelled
    where its shape was profiled, linear in the logarithm of the micro-batch between profiles, the nearest
    one's outside them; 1 where it was not.

    Unlike a straight line in the micro-batch it holds where the host is what a small layer waits for.
    """
    if accelerator.kind != "gpu" or strategy.stack != EXECUTOR_STACK or job.dropout:
        return 1.0
    profiles = [p for p in accelerator.layer_profiles if _matches(p, job, kind)]
    part, found = "backward" if backward else "forward", []
    for profile in sorted(profiles, key=lambda p: p.micro_batch):
        profiled = replace(job, global_batch=profile.micro_batch * profile.micro_batches)
        shape = Strategy(micro_batch=profile.micro_batch, stack=strategy.stack)
        own = layer_kernels(profiled, shape, kind, part)
        modelled = kernels_s(accelerator, own, job.precision, accelerator.host_launch_s)
        found.append((float(profile.micro_batch), _seconds(profile, backward=backward) / modelled))
    return interpolate(tuple(found), strategy.micro_batch) if found else 1.0


def line(points: dict[int, float], micro_batch: int) -> float:
    """Seconds at ``micro_batch`` on the straight line through the two nearest points.

    Outside the points it stays between what valid scaling allows: no less than in proportion and no more
    than the end point below them, no less than the end point above them.
    """
    if micro_batch in points:
        return points[micro_batch]
    known = sorted(points)
    if micro_batch < known[0]:
        low, high = known[:2]
    else:
        low = max(k for k in known[:-1] if k < micro_batch)
        high = known[known.index(low) + 1]
    slope = (points[high] - points[low]) / (high - low)
    seconds = points[low] + slope * (micro_batch - low)
    if micro_batch < known[0]:
        return min(max(seconds, points[low] * micro_batch / low), points[low])
    return max(seconds, points[high]) if micro_batch > known[-1] else seconds


def _points(accelerator: Accelerator, job: Job, kind: str, *, backward: bool) -> dict[int, float]:
    """Measured seconds by micro-batch of layers like this one."""
    return {
        p.micro_batch: _seconds(p, backward=backward)
        for p in accelerator.layer_profiles
        if _matches(p, job, kind)
    }


def _seconds(profile: LayerProfile, *, backward: bool) -> float:
    return profile.backward_s if backward else profile.forward_s


def _matches(profile: LayerProfile, job: Job, kind: str) -> bool:
    decoder = job.model.decoder
    if decoder.kv_rank or decoder.head_dim * decoder.heads != decoder.hidden:
        return False  # profiles are of heads that share out the hidden size
    shape = ("hidden", "heads", "kv_heads", "ffn", "vocab", "activation", "norm")
    return ((profile.kind, profile.seq_len, profile.precision) == (kind, job.seq_len, job.precision)) and all(
        getattr(profile, name) == getattr(decoder, name) for name in shape
    )
