"""From p5 to p95: how far a predicted step time may be off, by what the cluster file says of its fits."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from ..hardware.cluster import Cluster

UNCALIBRATED_RESIDUAL = 0.12
"""Standard deviation of the logarithm of a step time where the cluster file states none: with it, 87 %
of 2,920 published runs are between p5 and p95 (`traincast validate`)."""

DATASHEET_RESIDUAL = 0.21
"""The same where only a datasheet tells of an accelerator: the best GEMM then has 0.8 of peak by default,
and what was measured on 12 accelerators differs from that by 0.17 in logarithm, root mean square (bf16, 0.51
on an MI300X to 0.97 on a Gaudi 2: Bekman, "ML Engineering", Maximum Achievable Matmul FLOPS); to that comes
the error above, squares added."""

STEP_RESIDUALS = ("single_step", "crowded_step")
"""Which of a calibrated cluster's residuals stand for the error of a whole step: the larger counts."""


def with_residual(cluster: Cluster, steps: list[float], seed: int) -> tuple[float, ...]:
    """``steps``, in seconds, each times the error that the calibration leaves.

    The factors are the lognormal's own quantiles in an order drawn from ``seed``, so a few samples already
    have its median, 1, and its spread.
    """
    known = [cluster.residuals[name] for name in STEP_RESIDUALS if name in cluster.residuals]
    residual = max(known, default=UNCALIBRATED_RESIDUAL if cluster.is_measured else DATASHEET_RESIDUAL)
    places = np.random.default_rng(seed).permutation(len(steps))
    normal = NormalDist()
    factors = [math.exp(residual * normal.inv_cdf((place + 0.5) / len(steps))) for place in places]
    return tuple(s * factor for s, factor in zip(steps, factors, strict=True))
