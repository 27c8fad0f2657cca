"""Seconds of a layer as profiled on an accelerator, carried over to other micro-batches and tp degrees."""

from __future__ import annotations

from dataclasses import replace

from ..hardware.cluster import Accelerator
from ..hardware.curves import interpolate
from ..hardware.layer_profile import LayerProfile, Shard
from ..plan.job import Job
from ..plan.software_stacks import DEFAULT_STACK, EXECUTOR_STACK
from ..plan.strategy import Strategy
from .layer_kernels import layer_kernels
from .profile_keys import WHOLE, is_of_layer, shard_of
from .roofline import kernels_s

PASSES = ("forward", "backward", "input_gradient", "weight_gradient")
"""What is profiled of a layer, as parts of `layer_kernels`."""


def profiled_s(accelerator: Accelerator, job: Job, strategy: Strategy, kind: str, part: str) -> float | None:
    """Seconds of one micro-batch's ``part`` (of `PASSES`) through a layer of ``kind``; None where its
    shape was never profiled.

    Profiles of layers that were divided over ranks as ``strategy`` does come first. A profile of the same
    micro-batch is used as it is, those of others by a straight line in the micro-batch, a single other one
    scaled by the ratio of rooflines. Without one of that division, those of whole layers are scaled by the
    ratio of rooflines too. Recompute is not included.
    """
    if not _are_profiled(job, strategy):
        return None
    shard = shard_of(strategy, kind)
    points = _points(accelerator, job, kind, part, shard)
    division = strategy
    if not points:
        points, division = _points(accelerator, job, kind, part, WHOLE), Strategy()
    if not points:
        return None

    def roofline(micro_batch: int, shape: Strategy) -> float:
        own = layer_kernels(job, replace(shape, micro_batch=micro_batch), kind, part)
        return kernels_s(accelerator, own, job.precision)

    wanted = strategy.micro_batch
    if len(points) == 1 and wanted not in points:
        ((micro_batch, seconds),) = points.items()
        return seconds * roofline(wanted, strategy) / roofline(micro_batch, division)
    seconds = line(points, wanted)
    if division is strategy or shard == WHOLE:
        return seconds
    return seconds * roofline(wanted, strategy) / roofline(wanted, division)


def profiled_exchange_s(
    accelerator: Accelerator, job: Job, strategy: Strategy, kind: str, direction: str
) -> tuple[float, float] | None:
    """Seconds that the exchanges inside a layer's ``direction`` (`forward` or `backward`) were seen to add,
    waiting and at work, where it was divided as ``strategy`` divides it; None where nobody looked.
    Micro-batches in between are on a straight line."""
    if not _are_profiled(job, strategy):
        return None
    shard = shard_of(strategy, kind)
    alike = [
        p
        for p in accelerator.layer_profiles
        if p.shard == shard and _has_exchanges(p) and _matches(p, job, kind)
    ]
    whole, at_work = (
        {p.micro_batch: getattr(p, f"{direction}_exchange{name}_s") for p in alike} for name in ("", "_cpu")
    )
    if not whole or (len(whole) == 1 and strategy.micro_batch not in whole):
        return None
    cpu_s = line(at_work, strategy.micro_batch)
    return max(0.0, line(whole, strategy.micro_batch) - cpu_s), cpu_s


def profiled_bytes(accelerator: Accelerator, job: Job, strategy: Strategy, kind: str) -> float | None:
    """Bytes that autograd was seen to keep of a layer divided as ``strategy`` does, without recomputation;
    None where nobody looked. Micro-batches in between are on a straight line."""
    shard = shard_of(strategy, kind)
    points = {
        p.micro_batch: p.kept_bytes
        for p in accelerator.layer_profiles
        if p.shard == shard and p.kept_bytes and _matches(p, job, kind)
    }
    if not points:
        return None
    if len(points) == 1:
        ((micro_batch, size),) = points.items()
        return size * strategy.micro_batch / micro_batch
    return line(points, strategy.micro_batch)


def correction(accelerator: Accelerator, job: Job, strategy: Strategy, kind: str, *, backward: bool) -> float:
    """Factor on what the kernels of an eager layer of ``kind`` add up to on a GPU: measured over modelled
    where its shape was profiled, linear in the logarithm of the micro-batch between profiles, the nearest
    one's outside them; 1 where it was not.

    Unlike a straight line in the micro-batch it holds where the host is what a small layer waits for.
    """
    if accelerator.kind != "gpu" or strategy.stack != EXECUTOR_STACK or job.dropout:
        return 1.0
    profiles = [p for p in accelerator.layer_profiles if p.shard == WHOLE and _matches(p, job, kind)]
    part, found = "backward" if backward else "forward", []
    for profile in sorted(profiles, key=lambda p: p.micro_batch):
        profiled = replace(job, global_batch=profile.micro_batch * profile.micro_batches)
        shape = Strategy(micro_batch=profile.micro_batch, stack=strategy.stack)
        own = layer_kernels(profiled, shape, kind, part)
        host_launch_s = (backward and accelerator.host_backward_launch_s) or accelerator.host_launch_s
        modelled = kernels_s(accelerator, own, job.precision, host_launch_s)
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


def _points(accelerator: Accelerator, job: Job, kind: str, part: str, shard: Shard) -> dict[int, float]:
    """Measured seconds by micro-batch of layers like this one."""
    found = {
        p.micro_batch: getattr(p, f"{part}_s")
        for p in accelerator.layer_profiles
        if p.shard == shard and _matches(p, job, kind)
    }
    return {micro_batch: seconds for micro_batch, seconds in found.items() if seconds or part in PASSES[:2]}


def _are_profiled(job: Job, strategy: Strategy) -> bool:
    """Whether profiles are of layers like these: without dropout, with fused attention, as the executor has
    them."""
    return not job.dropout and strategy.attention == "flash" and strategy.stack == DEFAULT_STACK


def _has_exchanges(profile: LayerProfile) -> bool:
    return profile.forward_exchange_s + profile.backward_exchange_s > 0.0


def _seconds(profile: LayerProfile, *, backward: bool) -> float:
    return profile.backward_s if backward else profile.forward_s


def _matches(profile: LayerProfile, job: Job, kind: str) -> bool:
    is_alike = (profile.seq_len, profile.precision) == (job.seq_len, job.precision)
    return is_alike and is_of_layer(profile, job.model, kind)
