"""What a matrix product loses to its last wave and to tiles that are not full."""

from __future__ import annotations

from dataclasses import replace

import pytest
from machines import gpu

from traincast.sim.kernels.gemm_efficiency import group_efficiency, wave_efficiency
from traincast.sim.kernels.kernel import Kernel
from traincast.sim.kernels.roofline import kernel_s


def test_waves_lose_what_the_last_one_leaves_idle():
    """109 tiles on 108 multiprocessors take two waves; 108 take one; fewer lose nothing here."""
    of = lambda tiles: wave_efficiency(Kernel(kind="gemm", flops=1, bytes=1, m=128 * tiles, n=128, k=1), 108)  # noqa: E731
    assert [of(50), of(108), of(109), of(216)] == [1.0, 1.0, pytest.approx(109 / 216), 1.0]
    assert wave_efficiency(Kernel(kind="gemm", flops=1, bytes=1, m=10**6, n=128, k=1), 0) == 1.0


def test_small_experts_pay_for_whole_tiles():
    """Sixteen rows fill an eighth of a tile of 128, 129 just over half of two; a lone product chooses its
    tiles, an accelerator without waves has none."""

    def of(rows: int, batch: int = 8, sm_count: int = 132) -> float:
        kernel = Kernel(kind="gemm", flops=1, bytes=1, m=rows, n=256, k=64, batch=batch)
        return group_efficiency(kernel, sm_count)

    assert [of(16), of(128), of(129), of(256)] == [1 / 8, 1.0, 129 / 256, 1.0]
    assert of(16, batch=1) == of(16, sm_count=0) == 1.0
    experts = Kernel(kind="gemm", flops=1e13, bytes=1e6, m=64, n=256, k=64, batch=8)
    whole = replace(experts, m=128)
    slower, faster = kernel_s(gpu(), experts, "bf16"), kernel_s(gpu(), whole, "bf16")
    overhead = gpu().launch_overhead_s
    assert slower - overhead == pytest.approx(2 * (faster - overhead))
