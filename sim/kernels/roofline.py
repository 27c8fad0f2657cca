"""Seconds of kernels on an accelerator: the slower of arithmetic and memory, plus the launch.

Achieved rates come from the accelerator's measured curves; where one is missing, from the defaults below.
Williams, Waterman & Patterson 2009 is the roofline; tiles and waves are those of NVIDIA's "Matrix
Multiplication Background User's Guide".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..errors import InputError
from ..hardware.cluster import Accelerator, Curve
from ..hardware.curves import interpolate
from .convolution import DIRECT, FILTERED, convolution_efficiency
from .decoder_kernels import Kernel

TILE = 128
"""Rows and columns of the output that one multiprocessor computes (NVIDIA's guide, section 3)."""

ALIGNMENT = 8
"""Half-precision values in 16 bytes."""

UNALIGNED_EFFICIENCY = 0.7
"""For every halving of what the dimensions of a product are multiples of."""

WIDE = 1024
DEPTH, WIDTH = 133.0, 60.0
"""Sum and narrower side at which a product reaches half of its rate: queries times keys over heads of 128
reach 0.34 of a V100's peak, probabilities times values 0.42, where large products reach 0.65 (PROFILE of
`elementwise.py`)."""

DEFAULT_GEMM_EFFICIENCY: Curve = ((1e7, 0.08), (1e9, 0.5), (1.6e10, 0.75), (1.28e11, 0.8))
"""Fraction of peak against FLOPs. The top is the best product found on an H100, 80 % of peak (Bekman, "ML
Engineering", Maximum Achievable Matmul FLOPS; an A100 reaches 87 %), the fall towards small ones that of
Calculon's A100 (Isaev et al. 2023, `systems/a100_80g.json`)."""

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


CPU_GEMM_EFFICIENCY: Curve = ((1e5, 0.1), (1e6, 0.5), (1e7, 0.9), (1e8, 1.0))
"""The same on one core, whose peak is a measured one: 24 fp32 products of torch 2.13 took 7 microseconds
and FLOPs / 120 GFLOP/s, within 6-10 % in the mean."""

CPU_FLAT: Curve = ((1.0, 0.8),)
"""Attention and memory-bound kernels of a core, of a measured peak and bandwidth: assumed, for want of a
calibration."""

DEFAULTS: Mapping[str, tuple[Curve, Curve, Curve]] = {
    "gpu": (DEFAULT_GEMM_EFFICIENCY, DEFAULT_ATTENTION_EFFICIENCY, DEFAULT_MEMORY_EFFICIENCY),
    "cpu": (CPU_GEMM_EFFICIENCY, CPU_FLAT, CPU_FLAT),
}
"""Of products, attention and memory, by the accelerator's kind."""


def kernels_s(
    accelerator: Accelerator, kernels: Sequence[Kernel], precision: str, host_launch_s: float = 0.0
) -> float:
    """Seconds of ``kernels`` one after the other, framework included.

    ``host_launch_s`` is what the host takes for one launch; it runs beside the device, so the slower of the
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
        memory_s /= kernel.speed
    arithmetic_s = _arithmetic_s(accelerator, kernel, precision)
    return max(arithmetic_s, memory_s) + kernel.launches * accelerator.launch_overhead_s


def _arithmetic_s(accelerator: Accelerator, kernel: Kernel, precision: str) -> float:
    if kernel.kind == "memory":
        return 0.0
    gemm_default, attention_default, _ = _defaults(accelerator)
    if kernel.kind in (DIRECT, FILTERED):
        efficiency = convolution_efficiency(kernel)
    elif kernel.kind == "gemm":
        efficiency = interpolate(
            _curve(accelerator.gemm_efficiency, precision) or gemm_default, kernel.flops
        ) * _tile_efficiency(kernel, accelerator.sm_count)
    else:
        curve = _curve(accelerator.attention_efficiency, precision) or attention_default
        efficiency = interpolate(curve, head_flops(kernel))
    rate = _peak(accelerator, precision) * efficiency * kernel.speed * accelerator.sustained
    return kernel.flops / rate


def _tile_efficiency(kernel: Kernel, sm_count: int) -> float:
    return (
        wave_efficiency(kernel, sm_count)
        * group_efficiency(kernel, sm_count)
        * narrow_efficiency(kernel, sm_count)
        * alignment_efficiency(kernel, sm_count)
    )


def head_flops(kernel: Kernel) -> float:
    """Causal FLOPs of one head's two products forward, which say how far attention gets: heads and
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


def wave_efficiency(kernel: Kernel, sm_count: int) -> float:
    """Part of the multiprocessors that work while a product's tiles run in whole waves.

    Below one wave libraries take smaller tiles or split k, which the measured curve against FLOPs already
    holds, so nothing is lost here; ``sm_count`` 0 is an accelerator without waves.
    """
    tiles = -(-kernel.m // TILE) * -(-kernel.n // TILE) * kernel.batch
    if not sm_count or tiles <= sm_count:
        return 1.0
    waves = -(-tiles // sm_count)
    return tiles / (waves * sm_count)


def narrow_efficiency(kernel: Kernel, sm_count: int) -> float:
    """Part of the rate that is left where a product is shallow or narrow, as those of attention's heads are.

    Each tile begins and ends once however short the sum, and one narrow side is read again for every tile of
    the other. The measured curves are of products with both at `WIDE` and more.
    """
    if not sm_count:
        return 1.0
    side = min(kernel.m, kernel.n)
    if kernel.batch > 1:
        side = -(-side // TILE) * TILE  # what is missing of a tile is `group_efficiency`'s
    return _saturation(kernel.k, DEPTH) * _saturation(side, WIDTH)


def _saturation(size: int, half: float) -> float:
    """size / (size + half), 1 at `WIDE`."""
    return min(1.0, size / (size + half) * (WIDE + half) / WIDE)


def alignment_efficiency(kernel: Kernel, sm_count: int) -> float:
    """Part of the rate that is left where rows do not begin at 16 bytes: eight half-precision values.

    NVIDIA's guide, section 2.2, figure 3: an odd dimension takes several times as long.
    """
    if not sm_count:
        return 1.0
    odd = max(ALIGNMENT // math.gcd(ALIGNMENT, one) for one in (kernel.m, kernel.n, kernel.k) if one)
    return UNALIGNED_EFFICIENCY ** math.log2(odd)


def group_efficiency(kernel: Kernel, sm_count: int) -> float:
    """Part of the tiles of a grouped product that is no padding.

    All products of one launch have tiles of one size, so one with few rows still takes whole tiles (DeepGEMM
    aligns every group's rows to 128). A lone product takes smaller tiles, which the measured curve holds.
    """
    if not sm_count or kernel.batch == 1:
        return 1.0
    padded = -(-kernel.m // TILE) * -(-kernel.n // TILE) * TILE**2
    return kernel.m * kernel.n / padded
