"""Fits of one accelerator: rates of kernels, layers as profiled, optimizer steps."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..errors import InputError
from ..hardware.cluster import Accelerator, Curve, OptimizerCost
from ..kernels.attention import CAUSAL_SHARE
from ..kernels.decoder_kernels import backward_kernels, forward_kernels
from ..kernels.kernel import Kernel
from ..kernels.roofline import head_flops, kernel_s, kernels_s
from ..model.layer import BLOCK
from ..plan.mixed_precision import PRECISION_BYTES
from .fit_layers import decoder_of, is_whole, measured_profiles
from .fit_memory import process_memory
from .samples import Point, Samples

BINS_PER_DECADE = 2
"""Points of an efficiency curve for each power of ten."""


def fit_accelerator(samples: Samples, *, source: str, date: str) -> tuple[Accelerator, dict[str, float]]:
    """The accelerator, and the residual of each of its fits."""
    gemms = samples.of("gemm")
    if not gemms:
        raise InputError("no GEMMs (series gemm) were measured")
    machine, precision = samples.machine, gemms[0].parameters["precision"]
    launch_s = measured_launch_s(samples)
    peak = max(gemm_flops(p) / own_s(p, launch_s) for p in gemms)
    bandwidth = max((p.parameters["bytes"] / own_s(p, launch_s) for p in samples.of("memory")), default=0.0)
    ranks = _ranks(samples)
    held, shares = process_memory(samples)
    bare = Accelerator(
        name=machine["device"],
        kind=machine["kind"],
        peak_flops={precision: peak},
        memory_bytes=machine["memory_bytes"] / ranks,
        memory_bandwidth=bandwidth or peak,
        launch_overhead_s=launch_s,
        sm_count=machine.get("multiprocessors", 0),
        reserved_bytes=held,
        allocator_loss=shares,
        source=source,
        date=date,
    )
    fitted, residuals = _with_curves(bare, samples, precision)
    fitted = replace(fitted, layer_profiles=measured_profiles(samples))
    fitted, layer_residual = _with_framework_factor(fitted, samples)
    costs, optimizer_residual = measured_optimizers(samples)
    return replace(fitted, optimizer_costs=costs), residuals | layer_residual | optimizer_residual


def _ranks(samples: Samples) -> int:
    """Ranks that share the machine's memory: as many as were measured together, at least one a core."""
    machine = samples.machine
    if machine["kind"] != "cpu":
        return 1
    counts = [p.parameters["ranks"] for what in ("all_reduce", "send_recv") for p in samples.of(what)]
    return max([*counts, machine["cores"]])


def measured_launch_s(samples: Samples) -> float:
    points = samples.of("launch")
    return statistics.median(p.own_s for p in points) if points else 0.0


def own_s(point: Point, launch_s: float) -> float:
    """A kernel's time without its launch; never less than half of it, whatever the noise."""
    return max(point.own_s - launch_s, 0.5 * point.own_s)


def gemm_flops(point: Point) -> float:
    p = point.parameters
    return 2.0 * p["m"] * p["n"] * p["k"]


def attention_flops(point: Point) -> float:
    p = point.parameters
    return CAUSAL_SHARE * 4.0 * p["batch"] * p["heads"] * p["seq_len"] ** 2 * p["head_dim"]


def attention_kernel(point: Point) -> Kernel:
    p = point.parameters
    return Kernel(
        kind="attention",
        flops=attention_flops(point),
        bytes=1.0,
        m=p["seq_len"],
        n=p["seq_len"],
        k=p["head_dim"],
        batch=p["batch"] * p["heads"],
    )


def _with_curves(bare: Accelerator, samples: Samples, precision: str) -> tuple[Accelerator, dict[str, float]]:
    """Efficiency curves of GEMMs, attention and memory, and what each leaves when one point is out."""
    launch_s, peak = bare.launch_overhead_s, bare.peak_flops[precision]
    width = PRECISION_BYTES[precision]

    def rate(flops: Callable[[Point], float], point: Point) -> tuple[float, float]:
        return flops(point), min(1.0, flops(point) / own_s(point, launch_s) / peak)

    def attended(point: Point) -> tuple[float, float]:
        return head_flops(attention_kernel(point)), rate(attention_flops, point)[1]

    def moved(point: Point) -> tuple[float, float]:
        size = float(point.parameters["bytes"])
        return size, min(1.0, size / own_s(point, launch_s) / bare.memory_bandwidth)

    fits: list[tuple[str, list[Point], Callable[[Point], tuple[float, float]], Callable, Callable]] = [
        (
            "gemm",
            samples.of("gemm"),
            lambda p: rate(gemm_flops, p),
            lambda p: gemm_kernel(p, width),
            lambda a, curve: replace(a, gemm_efficiency={precision: curve}),
        ),
        (
            "attention",
            samples.of("attention"),
            attended,
            attention_kernel,
            lambda a, curve: replace(a, attention_efficiency={precision: curve}),
        ),
        (
            "memory",
            samples.of("memory"),
            moved,
            lambda p: Kernel(kind="memory", flops=0.0, bytes=float(p.parameters["bytes"])),
            lambda a, curve: replace(a, memory_efficiency=curve),
        ),
    ]
    fitted, residuals = bare, {}
    for name, points, efficiency, kernel, with_curve in fits:
        found = [efficiency(p) for p in points]
        if found:
            fitted = with_curve(fitted, curve_of(found))
        errors = []
        for out, point in enumerate(points):
            others = found[:out] + found[out + 1 :]
            if others:
                accelerator = with_curve(bare, curve_of(others))
                errors.append(abs(kernel_s(accelerator, kernel(point), precision) / point.own_s - 1.0))
        if errors:
            residuals[name] = statistics.median(errors)
    return fitted, residuals


def gemm_kernel(point: Point, width: int) -> Kernel:
    m, n, k = (point.parameters[name] for name in "mnk")
    size = float(width * (m * k + k * n + m * n))
    return Kernel(kind="gemm", flops=gemm_flops(point), bytes=size, m=m, n=n, k=k)


def curve_of(points: Sequence[tuple[float, float]]) -> Curve:
    """Points (x, y) as a curve: those of like x as one, at their medians."""
    bins: dict[int, list[tuple[float, float]]] = {}
    for x, y in points:
        bins.setdefault(round(BINS_PER_DECADE * math.log10(x)), []).append((x, y))
    return tuple(
        (statistics.median(x for x, _ in found), statistics.median(y for _, y in found))
        for _, found in sorted(bins.items())
    )


def _with_framework_factor(
    accelerator: Accelerator, samples: Samples
) -> tuple[Accelerator, dict[str, float]]:
    """What a block takes over the sum of its kernels: the factor for layers that were not profiled."""
    pairs = [
        (kernels_s(accelerator, _layer_kernels(point.parameters, what), precision), point.own_s)
        for what in ("forward", "backward")
        for point in samples.of(what)
        if point.parameters["kind"] == BLOCK and is_whole(point)
        for precision in (point.parameters["precision"],)
    ]
    if not pairs:
        return accelerator, {}
    factor = statistics.median(measured / kernels for kernels, measured in pairs)
    errors = [abs(factor * kernels / measured - 1.0) for kernels, measured in pairs]
    return replace(accelerator, framework_factor=factor), {"layers_by_kernels": statistics.median(errors)}


def _layer_kernels(p: Mapping[str, Any], what: str) -> tuple[Kernel, ...]:
    make = forward_kernels if what == "forward" else backward_kernels
    return make(
        decoder_of(p),
        p["kind"],
        micro_batch=p["micro_batch"],
        seq_len=p["seq_len"],
        tp=1,
        bytes_per_value=PRECISION_BYTES[p["precision"]],
    )


# Optimizer


def measured_optimizers(samples: Samples) -> tuple[dict[str, OptimizerCost], dict[str, float]]:
    """A straight line for each optimizer; the error is that of the line at its own points."""
    points: dict[str, list[tuple[float, float]]] = {}
    for point in samples.of("optimizer"):
        p = point.parameters
        points.setdefault(p["name"], []).append((float(p["parameters"]), point.own_s))
    costs = {name: line_of(found) for name, found in points.items()}
    errors = [
        abs((costs[name].overhead_s + costs[name].per_parameter_s * count) / seconds - 1.0)
        for name, found in points.items()
        for count, seconds in found
    ]
    return costs, {"optimizer": statistics.median(errors)} if errors else {}


def line_of(points: Sequence[tuple[float, float]]) -> OptimizerCost:
    """Overhead and slope, neither negative, of least relative squares through (parameters, seconds)."""
    import numpy as np
    from scipy.optimize import nnls

    counts, seconds = np.array(points, dtype=float).T
    if len(points) == 1:
        return OptimizerCost(overhead_s=0.0, per_parameter_s=float(seconds[0] / counts[0]))
    scale = counts.max()
    matrix = np.column_stack([np.ones(len(counts)), counts / scale]) / seconds[:, None]
    (overhead, slope), _ = nnls(matrix, np.ones(len(counts)))
    return OptimizerCost(overhead_s=float(overhead), per_parameter_s=float(slope / scale))
