"""Which part of an accelerator's peak a GEMM reaches: by its FLOPs, and by how its sizes fill the device.

The fraction of peak against FLOPs is the accelerator's measured curve, or a default below. What tiles, waves
and alignment lose beyond it follows NVIDIA's "Matrix Multiplication Background User's Guide".
"""

from __future__ import annotations

import math

from ..hardware.cluster import Curve
from ..hardware.curves import interpolate
from .kernel import Kernel

TILE = 128
"""Rows and columns of the output that one multiprocessor computes (NVIDIA's guide, section 3)."""

ALIGNMENT = 8
"""Half-precision values in 16 bytes."""

UNALIGNED_EFFICIENCY = 0.7
"""For every halving of what the dimensions of a GEMM are multiples of."""

WIDE = 1024

DEPTH, WIDTH = 133.0, 60.0
"""Sum and narrower side at which a GEMM reaches half of its rate: queries times keys over heads of 128
reach 0.34 of a V100's peak, probabilities times values 0.42, where large GEMMs reach 0.65 (PROFILE of
`elementwise.py`)."""

DEFAULT_GEMM_EFFICIENCY: Curve = ((1e7, 0.08), (1e9, 0.5), (1.6e10, 0.75), (1.28e11, 0.8))
"""Fraction of peak against FLOPs. The top is the best GEMM found on an H100, 80 % of peak (Bekman, "ML
Engineering", Maximum Achievable Matmul FLOPS; an A100 reaches 87 %), the fall towards small ones that of
Calculon's A100 (Isaev et al. 2023, `systems/a100_80g.json`)."""

CPU_GEMM_EFFICIENCY: Curve = ((1e5, 0.1), (1e6, 0.5), (1e7, 0.9), (1e8, 1.0))
"""The same on one core, whose peak is a measured one: 24 fp32 GEMMs of torch 2.13 took 7 microseconds
and FLOPs / 120 GFLOP/s, within 6-10 % in the mean."""


UNALIGNED = "unaligned"
"""What GEMMs of unaligned sizes are called among an accelerator's measured speeds."""


def gemm_efficiency(kernel: Kernel, curve: Curve, sm_count: int, unaligned: float = 0.0) -> float:
    """Part of the peak that a GEMM reaches: ``curve`` of fraction against FLOPs, less what tiles lose.

    ``sm_count`` is the accelerator's multiprocessors; 0 is one without tiles, which loses nothing by them.
    ``unaligned`` is what was measured to be left where sizes are not aligned, 0 where nobody did.
    """
    return interpolate(curve, kernel.flops) * tile_efficiency(kernel, sm_count, unaligned)


def tile_efficiency(kernel: Kernel, sm_count: int, unaligned: float = 0.0) -> float:
    """Part of the rate that is left by waves, padding, narrow sides and alignment."""
    aligned = alignment_efficiency(kernel, sm_count)
    if aligned < 1.0 and unaligned:
        aligned = unaligned
    return (
        wave_efficiency(kernel, sm_count)
        * group_efficiency(kernel, sm_count)
        * narrow_efficiency(kernel, sm_count)
        * aligned
    )


def wave_efficiency(kernel: Kernel, sm_count: int) -> float:
    """Part of the multiprocessors that work while a GEMM's tiles run in whole waves.

    Below one wave libraries take smaller tiles or split k, which the measured curve against FLOPs already
    holds, so nothing is lost here; ``sm_count`` 0 is an accelerator without waves.
    """
    tiles = -(-kernel.m // TILE) * -(-kernel.n // TILE) * kernel.batch
    if not sm_count or tiles <= sm_count:
        return 1.0
    waves = -(-tiles // sm_count)
    return tiles / (waves * sm_count)


def narrow_efficiency(kernel: Kernel, sm_count: int) -> float:
    """Part of the rate that is left where a GEMM is shallow or narrow, as those of attention's heads are.

    Each tile begins and ends once however short the sum, and one narrow side is read again for every tile of
    the other. The measured curves are of GEMMs with both at `WIDE` and more.
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
    """Part of the tiles of a grouped GEMM that is no padding.

    All GEMMs of one launch have tiles of one size, so one with few rows still takes whole tiles (DeepGEMM
    aligns every group's rows to 128). A lone GEMM takes smaller tiles, which the measured curve holds.
    """
    if not sm_count or kernel.batch == 1:
        return 1.0
    padded = -(-kernel.m // TILE) * -(-kernel.n // TILE) * TILE**2
    return kernel.m * kernel.n / padded
