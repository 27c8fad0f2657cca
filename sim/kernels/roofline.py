"""Seconds of kernels on an accelerator: the slower of arithmetic and memory, plus the launch.

Achieved rates come from the accelerator's measured curves; where one is missing, from the defaults below.
Williams, Waterman & Patterson 2009 is the roofline; what a GEMM reaches of the peak is in
`gemm_efficiency.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import InputError
from ..hardware.cluster import Accelerator, Curve
from ..hardware.curves import interpolate
from .convolution import DIRECT, FILTERED, convolution_efficiency
from .gemm_efficiency import CPU_GEMM_EFFICIENCY, DEFAULT_GEMM_EFFICIENCY, UNALIGNED, gemm_efficiency
from .kernel import Kernel

ATTENTION_BACKWARD = "attention_backward"
"""The family of flash attention's backward."""
DROPPED_ATTENTION = "attention_dropout"
"""The speed of attention with dropout, next to the same without."""

DEFAULT_ATTENTION_EFFICIENCY: Curve = (
    (6.7e7, 0.34),
    (2.7e8, 0.47),
    (1.1e9, 0.53),
    (4.3e9, 0.57),
    (1.7e10, 0.6),
)
"""Fraction of peak of causal flash attention forward, sequences of 512 to 8 Ki with head dimension 128 (A100,
FlashAttention-2, Dao 2023, figures 4-6)."""

DEFAULT_MEMORY_EFFICIENCY: Curve = ((1e5, 0.3), (1e6, 0.6), (1e7, 0.75), (1e8, 0.9))
"""Fraction of memory bandwidth against bytes (Calculon, as above)."""


CPU_FLAT: Curve = ((1.0, 0.8),)
"""Attention and memory-bound kernels of a core, of a measured peak and bandwidth: assumed, for want of a
calibration."""

DEFAULTS: Mapping[str, tuple[Curve, Curve, Curve]] = {
    "gpu": (DEFAULT_GEMM_EFFICIENCY, DEFAULT_ATTENTION_EFFICIENCY, DEFAULT_MEMORY_EFFICIENCY),
    "cpu": (CPU_GEMM_EFFICIENCY, CPU_FLAT, CPU_FLAT),
}
"""Of GEMMs, attention and memory, by the accelerator's kind."""


def kernels_s(
    accelerator: Accelerator, kernels: Sequence[Kernel], precision: str, host_launch_s: float = 0.0
) -> float:
    """Seconds of ``kernels`` one after the other, framework included.

    ``host_launch_s`` is what the host takes for one launch; it overlaps with the device, so the slower of the
    two counts.

    Raises:
        InputError: the accelerator has no peak for ``precision``.
    """
    device_s = accelerator.framework_factor * sum(kernel_s(accelerator, k, precision) for k in kernels)
    return max(device_s, host_launch_s * sum(k.launches for k in kernels))


def kernel_s(accelerator: Accelerator, kernel: Kernel, precision: str) -> float:
    """Seconds of one kernel on the device: max(arithmetic, memory) + what the device needs for each launch.

    A kernel's own precision counts before the job's ``precision``.
    """
    precision = kernel.precision or precision
    default = _defaults(accelerator)[2]
    efficiency = interpolate(accelerator.memory_efficiency or default, kernel.bytes / kernel.launches)
    memory_s = kernel.bytes / (accelerator.memory_bandwidth * efficiency)
    if kernel.kind == "memory":
        memory_s /= accelerator.kernel_speeds.get(kernel.family, kernel.speed)
    arithmetic_s = _arithmetic_s(accelerator, kernel, precision)
    return max(arithmetic_s, memory_s) + kernel.launches * accelerator.launch_overhead_s


def _arithmetic_s(accelerator: Accelerator, kernel: Kernel, precision: str) -> float:
    if kernel.kind == "memory":
        return 0.0
    gemm_default, attention_default, _ = _defaults(accelerator)
    if kernel.kind in (DIRECT, FILTERED):
        efficiency = convolution_efficiency(kernel)
    elif kernel.kind == "gemm":
        curve = _curve(accelerator.gemm_efficiency, precision) or gemm_default
        unaligned = accelerator.kernel_speeds.get(UNALIGNED, 0.0)
        efficiency = gemm_efficiency(kernel, curve, accelerator.sm_count, unaligned)
    else:
        return _attention_s(accelerator, kernel, precision, attention_default)
    rate = _peak(accelerator, precision) * efficiency * kernel.speed * accelerator.sustained
    return kernel.flops / rate


def _attention_s(accelerator: Accelerator, kernel: Kernel, precision: str, default: Curve) -> float:
    """By the curve of its pass where that was measured, else a backward by forward's and its own speed."""
    speed = kernel.speed
    curve = _curve(accelerator.attention_efficiency, precision) or default
    own = _curve(accelerator.attention_backward_efficiency, precision)
    if own and kernel.family == ATTENTION_BACKWARD:
        curve, speed = own, 1.0
    speed *= accelerator.kernel_speeds.get(head_family(kernel), 1.0)
    if kernel.dropped:
        speed *= accelerator.kernel_speeds.get(dropped_family(kernel), 1.0)
    efficiency = interpolate(curve, head_flops(kernel))
    return kernel.flops / (_peak(accelerator, precision) * efficiency * speed * accelerator.sustained)


def head_family(kernel: Kernel) -> str:
    """What attention with heads of this width is called among an accelerator's speeds, as `head_64`."""
    return f"head_{kernel.k}" + ("_backward" if kernel.family == ATTENTION_BACKWARD else "")


def dropped_family(kernel: Kernel) -> str:
    """What attention that drops some of its weights is called among an accelerator's speeds."""
    return DROPPED_ATTENTION + ("_backward" if kernel.family == ATTENTION_BACKWARD else "")


def head_flops(kernel: Kernel) -> float:
    """Causal FLOPs of one head's two GEMMs forward, which say how far attention gets: heads and
    samples are worked on side by side, and one alone is as slow as its queries and keys are few."""
    return 2.0 * kernel.m * kernel.n * kernel.k


def _defaults(accelerator: Accelerator) -> tuple[Curve, Curve, Curve]:
    """Those of a GPU for any accelerator that is no CPU."""
    return DEFAULTS["cpu" if accelerator.kind == "cpu" else "gpu"]


def _curve(curves: Mapping[str, Curve], precision: str) -> Curve:
    """The curve of ``precision``; bf16 and fp16 run on the same units, so one stands in for the other."""
    return curves.get(precision) or curves.get(_TWINS.get(precision, ""), ())


_TWINS = {"bf16": "fp16", "fp16": "bf16"}


def _peak(accelerator: Accelerator, precision: str) -> float:
    """FLOP/s of ``precision``, or of its twin where only that is given."""
    for name in (precision, _TWINS.get(precision, "")):
        if name in accelerator.peak_flops:
            return accelerator.peak_flops[name]
    raise InputError(
        f"accelerator {accelerator.name} has no peak_flops for precision {precision}; "
        f"it has {', '.join(accelerator.peak_flops) or 'none'}"
    )
