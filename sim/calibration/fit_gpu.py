"""Fits of a GPU: rates of GEMMs, attention and memory-bound kernels by what they are, and the host's part.

Curves are of fractions that are left when the tiles' own losses are taken out (`kernels/roofline.py`), which
the cost model charges again. Families of memory-bound kernels get a speed beside the curve of additions.
Series are those of `executor/calibrate/gpu.py`.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, replace
from typing import Any

from ..errors import InputError
from ..hardware.cluster import Accelerator, Curve, LayerProfile
from ..hardware.curves import interpolate
from ..kernels.attention import FLASH_BACKWARD_GEMMS
from ..kernels.decoder_kernels import backward_kernels, forward_kernels
from ..kernels.fp8 import FP8, FP8_BYTES
from ..kernels.gemm_efficiency import UNALIGNED, alignment_efficiency, tile_efficiency
from ..kernels.kernel import Kernel
from ..kernels.recompute import repeated_parts
from ..kernels.roofline import (
    ATTENTION_BACKWARD,
    DROPPED_ATTENTION,
    head_family,
    head_flops,
    kernel_s,
    kernels_s,
)
from ..kernels.torch_kernels import KINDS
from ..kernels.torch_operations import LAUNCHES
from ..model.decoder import Decoder
from ..model.layer import BLOCK
from ..plan.job import PRECISION_BYTES
from ..plan.joined_backward import CHECKPOINTED
from ..plan.software_stacks import EXECUTOR_STACK, STACKS
from .fit_compute import (
    attention_flops,
    attention_kernel,
    curve_of,
    gemm_flops,
    gemm_kernel,
    measured_launch_s,
    measured_optimizers,
    own_s,
)
from .fit_layers import measured_profiles
from .samples import Point, Samples

BACKWARD_FLOPS = sum(FLASH_BACKWARD_GEMMS) / 2
"""Of attention's backward beside forward, where queries and values are alike."""

Fitted = tuple[Accelerator, dict[str, float]]
"""An accelerator, and the median relative error of each fit."""


def fit_gpu(samples: Samples, *, source: str, date: str) -> Fitted:
    """The GPU that ``samples`` were taken on, and the residual of each of its fits.

    Peaks are the best rate of any GEMM of a precision, were all its waves full; memory bandwidth is that
    of the best addition.

    Raises:
        InputError: no GEMMs or additions were measured.
    """
    machine, launch_s = samples.machine, measured_launch_s(samples)
    host_s = {part: _host_launch_s(samples, part) for part in ("forward", "backward")}
    moved = [_moved(point, launch_s) for point in samples.of("memory")]
    if not samples.of("gemm") or not moved:
        raise InputError("no GEMMs (series gemm) or additions (series memory) were measured")
    bandwidth = max(rate for _, rate in moved)
    bare = Accelerator(
        name=machine["device"],
        kind="gpu",
        peak_flops={},
        memory_bytes=machine["memory_bytes"],
        memory_bandwidth=bandwidth,
        memory_efficiency=curve_of([(size, rate / bandwidth) for size, rate in moved]),
        launch_overhead_s=launch_s,
        host_launch_s=host_s["forward"],
        host_backward_launch_s=host_s["backward"],
        host_recompute_s=_host_recompute_s(samples, host_s["forward"]),
        sm_count=machine.get("multiprocessors", 0),
        reserved_bytes=machine.get("reserved_bytes", 0.0),
        layer_profiles=_profiles(samples),
        source=source,
        date=date,
    )
    costs, residuals = measured_optimizers(samples)
    fitted = replace(bare, optimizer_costs=costs)
    for fit in (_with_products, _with_attention, _with_families):
        fitted, found = fit(fitted, samples)
        residuals |= found
    return fitted, residuals | _layer_residual(fitted, samples)


def _profiles(samples: Samples) -> tuple[LayerProfile, ...]:
    """Measured layers, with the number of micro-batches of the steps that they were measured in."""
    counts = {_step_key(p.parameters): p.parameters["micro_batches"] for p in samples.of("step")}
    return tuple(
        replace(profile, micro_batches=counts.get(_step_key(asdict(profile)), 1))
        for profile in measured_profiles(samples)
    )


def _step_key(values: Mapping[str, Any]) -> tuple:
    return tuple(values[name] for name in ("hidden", "heads", "ffn", "vocab", "seq_len", "micro_batch"))


def _moved(point: Point, launch_s: float) -> tuple[float, float]:
    size = float(point.parameters["bytes"])
    return size, size / own_s(point, launch_s)


def _errors(name: str, pairs: Iterable[tuple[float, float]]) -> dict[str, float]:
    """The median of |predicted / measured - 1| over ``pairs``; nothing where there are none."""
    found = [abs(predicted / measured - 1.0) for predicted, measured in pairs]
    return {name: statistics.median(found)} if found else {}


def _by_precision(points: Iterable[Point]) -> dict[str, list[Point]]:
    found: dict[str, list[Point]] = {}
    for point in points:
        found.setdefault(point.parameters["precision"], []).append(point)
    return found


def _with_products(bare: Accelerator, samples: Samples) -> Fitted:
    """Peaks and curves of GEMMs by precision; of those that are aligned to nothing, how much is left."""
    fitted, slow, pairs = bare, [], []
    for precision, points in _by_precision(samples.of("gemm")).items():
        width = FP8_BYTES if precision == FP8 else PRECISION_BYTES[precision]
        kernels = [(point, gemm_kernel(point, width)) for point in points]
        aligned = [(p, k) for p, k in kernels if alignment_efficiency(k, bare.sm_count) == 1.0]
        rates = [(k.flops, _rate(bare, p, k)) for p, k in aligned]
        peak = max(rate for _, rate in rates)
        curve = curve_of([(flops, rate / peak) for flops, rate in rates])
        fitted = replace(
            fitted,
            peak_flops={**fitted.peak_flops, precision: peak},
            gemm_efficiency={**fitted.gemm_efficiency, precision: curve},
        )
        for point, kernel in kernels:
            left = alignment_efficiency(kernel, bare.sm_count)
            if left < 1.0:
                slow.append(left * _rate(bare, point, kernel) / peak / interpolate(curve, kernel.flops))
        pairs += [(kernel_s(fitted, kernel, precision), point.own_s) for point, kernel in aligned]
    if slow:
        fitted = replace(fitted, kernel_speeds={**fitted.kernel_speeds, UNALIGNED: statistics.median(slow)})
    return fitted, _errors("gemm", pairs)


def _rate(bare: Accelerator, point: Point, kernel: Kernel) -> float:
    """FLOP/s of a GEMM, were its tiles to lose nothing."""
    return gemm_flops(point) / own_s(point, bare.launch_overhead_s) / tile_efficiency(kernel, bare.sm_count)


def _with_attention(bare: Accelerator, samples: Samples) -> Fitted:
    """Curves of forward and of backward by precision, of heads as wide as most; speeds of others beside."""
    fitted, residuals = bare, {}
    for what, factor in (("attention", 1.0), (ATTENTION_BACKWARD, BACKWARD_FLOPS)):
        curves: dict[str, Curve] = {}
        speeds: dict[str, list[float]] = {}
        pairs = []
        plain = [point for point in samples.of(what) if not point.parameters.get("dropout")]
        for precision, points in _by_precision(plain).items():
            reached = [_attended(bare, p, what, factor) for p in points]
            widths = [kernel.k for kernel, _ in reached]
            usual = max(set(widths), key=lambda width: (widths.count(width), width))
            curve = curve_of([(head_flops(kernel), one) for kernel, one in reached if kernel.k == usual])
            curves[precision] = curve
            for kernel, fraction in reached:
                expected = interpolate(curve, head_flops(kernel))
                if kernel.k == usual:
                    pairs.append((expected, fraction))
                elif precision == samples.machine["precision"]:
                    speeds.setdefault(head_family(kernel), []).append(fraction / expected)
        residuals |= _errors(what, pairs)
        own = {family: statistics.median(found) for family, found in speeds.items()}
        own |= _dropped_speed(samples, what)
        name = "attention_efficiency" if what == "attention" else "attention_backward_efficiency"
        fitted = replace(fitted, kernel_speeds={**fitted.kernel_speeds, **own}, **{name: curves})
    return fitted, residuals


def _dropped_speed(samples: Samples, what: str) -> dict[str, float]:
    """Of attention with dropout, next to the same shapes without; nothing where none was measured."""
    seconds: dict[tuple, dict[bool, float]] = {}
    for point in samples.of(what):
        sizes = tuple(sorted((name, v) for name, v in point.parameters.items() if name != "dropout"))
        seconds.setdefault(sizes, {})[bool(point.parameters.get("dropout"))] = point.median_s
    ratios = [both[False] / both[True] for both in seconds.values() if len(both) == 2]
    name = DROPPED_ATTENTION + ("_backward" if what == ATTENTION_BACKWARD else "")
    return {name: statistics.median(ratios)} if ratios else {}


def _attended(bare: Accelerator, p: Point, what: str, factor: float) -> tuple[Kernel, float]:
    """The kernel of a point, and the fraction of peak that it reached."""
    kernel = replace(attention_kernel(p), family=ATTENTION_BACKWARD if what == ATTENTION_BACKWARD else "")
    rate = factor * attention_flops(p) / own_s(p, bare.launch_overhead_s)
    return kernel, min(1.0, rate / bare.peak_flops[p.parameters["precision"]])


def _with_families(bare: Accelerator, samples: Samples) -> Fitted:
    """Speeds of families of memory-bound kernels beside additions of as many bytes: medians over sizes."""
    ratios: dict[str, list[float]] = {}
    for point in samples.of("elementwise"):
        family, size = point.parameters["family"], float(point.parameters["bytes"])
        launches = LAUNCHES.get(family, 1)
        plain = kernel_s(bare, _plain(size, launches), "") - launches * bare.launch_overhead_s
        ratios.setdefault(family, []).append(plain / own_s(point, launches * bare.launch_overhead_s))
    speeds = {family: statistics.median(found) for family, found in ratios.items()}
    pairs = [(one, speeds[family]) for family, found in ratios.items() for one in found]
    return replace(bare, kernel_speeds={**bare.kernel_speeds, **speeds}), _errors("elementwise", pairs)


def _plain(size: float, launches: int) -> Kernel:
    return Kernel(kind="memory", flops=0.0, bytes=size, launches=launches)


def _host_launch_s(samples: Samples, part: str) -> float:
    """Seconds of the host over launches, of passes of ``part`` in which the device waits; 0 where none were
    measured."""
    points = [
        p
        for p in samples.of("host")
        if p.parameters.get("recompute", "none") == "none" and p.parameters["part"] == part
    ]
    launches = sum(_launches(point) for point in points)
    return sum(point.median_s for point in points) / launches if launches else 0.0


def _host_recompute_s(samples: Samples, launch_s: float) -> dict[str, float]:
    """By policy: what passes take longer with recomputation, a block, beside what is launched again."""
    plain: dict[tuple[str, str], list[float]] = {}
    again: dict[str, dict[str, list[tuple[Point, float]]]] = {}
    for point in samples.of("host"):
        p = point.parameters
        if p.get("recompute", "none") == "none":
            plain.setdefault((p["norm"], p["part"]), []).append(point.median_s)
        else:
            again.setdefault(p["recompute"], {}).setdefault(p["part"], []).append((point, point.median_s))
    found = {}
    for policy, parts in again.items():
        extra = blocks = 0.0
        for part, points in parts.items():
            for point, seconds in points:
                p = point.parameters
                extra += seconds - statistics.median(plain[p["norm"], part])
                if part == "backward":
                    extra -= launch_s * p["layers"] * _repeated_launches(p)
                    blocks += p["layers"]
        found[policy] = max(0.0, extra / blocks) if blocks else 0.0
    return found


def _repeated_launches(p: Mapping[str, Any]) -> float:
    """Kernels of a block that backward computes again."""
    decoder = Decoder(**{f.name: p[f.name] for f in fields(Decoder) if f.name in p})
    kernels = _layer_kernels(decoder, BLOCK, "forward", p)
    stops_early = p["recompute"] in CHECKPOINTED
    parts = repeated_parts(decoder, BLOCK, p["recompute"], kernels, stops_early=stops_early, fused=True)
    return sum(part * kernel.launches for part, kernel in zip(parts, kernels, strict=True))


def _launches(point: Point) -> float:
    """Kernels of a whole model's pass, first micro-batch of a step."""
    p = point.parameters
    decoder = Decoder(**{f.name: p[f.name] for f in fields(Decoder) if f.name in p})
    counts = {kind: decoder.layers if kind == BLOCK else 1 for kind in KINDS}
    return sum(
        count * sum(kernel.launches for kernel in _layer_kernels(decoder, kind, p["part"], p))
        for kind, count in counts.items()
    )


def _layer_kernels(
    decoder: Decoder, kind: str, part: str, p: Mapping[str, Any], added: float = 0.0
) -> tuple[Kernel, ...]:
    make = forward_kernels if part == "forward" else backward_kernels
    return make(
        decoder,
        kind,
        micro_batch=p["micro_batch"],
        seq_len=p["seq_len"],
        tp=1,
        bytes_per_value=PRECISION_BYTES[p["precision"]],
        stack=STACKS[EXECUTOR_STACK],
        added=added,
    )


def _layer_residual(fitted: Accelerator, samples: Samples) -> dict[str, float]:
    """Profiled layers by their kernels, against the same measured; both passes of all kinds."""
    counts = {_step_key(p.parameters): p.parameters["micro_batches"] for p in samples.of("step")}
    pairs = []
    for part in ("forward", "backward"):
        for point in samples.of(part):
            p = point.parameters
            names = [f.name for f in fields(Decoder) if f.name in p]
            decoder = Decoder(layers=1, **{name: p[name] for name in names})
            added = 1.0 - 1.0 / counts.get(_step_key(p), 1)
            own = _layer_kernels(decoder, p["kind"], part, p, added)
            host_s = fitted.host_launch_s if part == "forward" else fitted.host_backward_launch_s
            pairs.append((kernels_s(fitted, own, p["precision"], host_s), point.own_s))
    return _errors("layers_by_kernels", pairs)
