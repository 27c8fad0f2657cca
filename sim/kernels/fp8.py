"""fp8 training: which of a layer's GEMMs run in fp8, and what their casts cost.

As Transformer Engine and torchao's float8 training do it: linear layers of the blocks multiply in fp8 (e4m3
forward, e5m2 for gradients) and write bf16; attention, norms, activations, residuals, the router and the head
stay in bf16; weights are kept in bf16 with an fp32 master copy, gradients in fp32 (Micikevicius et al. 2022,
arXiv:2209.05433; Transformer Engine user guide, "Using FP8 with Transformer Engine"). A cast writes its
tensor twice, as it is and transposed, since fp8 GEMMs want both factors contiguous along what is summed up
(`cast_transpose` in Transformer Engine's common/transpose).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from ..model.decoder import Decoder
from ..model.layer import BLOCKS
from .kernel import Kernel

FP8, BF16 = "fp8", "bf16"
FP8_BYTES = 1
BF16_BYTES = 2
"""Bytes of what is not in fp8."""
CAST_BYTES = BF16_BYTES + 2 * FP8_BYTES
"""Bytes of a cast for each value: read once, written as it is and transposed. The largest value for the scale
is found on the way (delayed scaling)."""


def in_fp8(decoder: Decoder, layer_kind: str, kernels: Iterable[Kernel]) -> tuple[Kernel, ...]:
    """``kernels`` of a layer of ``layer_kind``, those of linear layers in fp8 and after the casts they need.

    All others are in bf16, embedding and head among them. Weights are cast once a step, by whoever costs the
    optimizer.
    """
    if layer_kind not in BLOCKS:
        return tuple(replace(kernel, precision=BF16) for kernel in kernels)
    return tuple(one for kernel in kernels for one in _converted(decoder, kernel))


def _converted(decoder: Decoder, kernel: Kernel) -> Iterator[Kernel]:
    """The gradient of a weight takes two factors that are cast already: for the output, for its gradient."""
    if not _is_linear(decoder, kernel):
        yield replace(kernel, precision=BF16)
        return
    if not kernel.weights:
        values = kernel.batch * kernel.m * kernel.k
        yield Kernel(kind="memory", flops=0.0, bytes=float(CAST_BYTES * values), precision=BF16)
    factors = kernel.batch * (kernel.m * kernel.k + kernel.k * kernel.n)
    saved = (BF16_BYTES - FP8_BYTES) * factors
    yield replace(kernel, precision=FP8, bytes=max(0.0, kernel.bytes - saved))


def _is_linear(decoder: Decoder, kernel: Kernel) -> bool:
    """Whether a GEMM is a linear layer's: none of attention, no router and no gate of one value.

    The router is told by its width, which is no dimension of another GEMM.
    """
    if kernel.kind != "gemm" or kernel.attention:
        return False
    narrow = {1, decoder.experts} if decoder.experts else {1}
    return kernel.batch > 1 or not narrow & {kernel.m, kernel.n, kernel.k}
