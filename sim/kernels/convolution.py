"""How fast convolutions run: part of an accelerator's peak, by the sizes of their GEMMs.

Fitted on the convolutions of ten networks, timed layer by layer in fp32 on a V100 (15.7 TFLOP/s, 900 GB/s),
forward and backward, 759 times of more than a millisecond: by a fifth off in the mean, and the sums of most
networks within 12 % (msr-fiddle/pipedream@7db6a1c, profiler/image_classification/profiles; the speed of its
ReLUs says which accelerator it was). Fractions of peak are taken to hold for others too.
"""

from __future__ import annotations

from .kernel import Kernel

DIRECT, FILTERED = "convolution", "winograd"
"""Kinds of kernels: implicit GEMMs, and the GEMMs of Winograd's tiles."""

BEST = 0.89
"""Of the peak, for GEMMs that are large every way."""
WIDTH, DEPTH = 55.0, 52.0
"""Channels, and inner size, with which an implicit GEMM reaches half of it."""
FILTERED_DEPTH = 9.7
"""Channels with which the GEMM of tiles does."""
FUSED_SPEED = 0.38
"""Of filtering in one kernel against an implicit GEMM of as many multiplications."""
TRANSFORM_SPEED = 0.55
"""Of the transforms against other kernels that are bound by memory: 0.49 of the bandwidth, not 0.9."""
STRIDED_GRADIENT_SPEED = 0.64
"""Of the input's gradient where the window moves by more than one place: much of it is zeros."""


def convolution_efficiency(kernel: Kernel) -> float:
    """Part of the accelerator's peak that a kernel of either kind reaches, its own `speed` not counted."""
    if kernel.kind == FILTERED:
        return BEST * _saturation(kernel.k, FILTERED_DEPTH)
    return BEST * _saturation(min(kernel.m, kernel.n), WIDTH) * _saturation(kernel.k, DEPTH)


def _saturation(size: float, half: float) -> float:
    return size / (size + half)
