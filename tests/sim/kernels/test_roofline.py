"""A kernel's seconds: arithmetic, memory, launch, and what the accelerator lacks."""

from __future__ import annotations

from dataclasses import replace

import pytest
from machines import gpu

from traincast.sim.errors import InputError
from traincast.sim.kernels.kernel import Kernel
from traincast.sim.kernels.roofline import kernel_s, kernels_s


def test_a_kernel_takes_the_slower_of_arithmetic_and_memory():
    """And its launch; half of peak and of bandwidth here."""
    flat = ((1.0, 0.5),)
    accelerator = gpu(gemm_efficiency={"bf16": flat}, memory_efficiency=flat, sm_count=0)
    product = Kernel(kind="gemm", flops=156e9, bytes=1e6, m=1, n=1, k=1)
    copy = Kernel(kind="memory", flops=0.0, bytes=1.02e9)
    assert kernel_s(accelerator, product, "bf16") == pytest.approx(1e-3 + 3e-6)
    assert kernel_s(accelerator, copy, "bf16") == pytest.approx(1e-3 + 3e-6)
    slower = replace(accelerator, framework_factor=1.5)
    assert kernels_s(slower, [product, copy], "bf16") == pytest.approx(1.5 * (2e-3 + 6e-6))


def test_a_precision_the_accelerator_lacks_is_refused():
    """fp16 runs on the units of bf16; tf32 is not given."""
    product = Kernel(kind="gemm", flops=1e12, bytes=1e6, m=128, n=128, k=128)
    without = gpu(peak_flops={"bf16": 312e12, "fp32": 19.5e12})
    assert kernel_s(without, product, "fp16") == kernel_s(without, product, "bf16")
    with pytest.raises(InputError, match="A100 has no peak_flops for precision tf32; it has bf16, fp32"):
        kernel_s(without, product, "tf32")
