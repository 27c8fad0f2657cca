"""Linear layers in fp8: the GEMMs of a block's linear layers by `torch._scaled_mm`, casts scaled by tensor.

As torchao's float8 training with dynamic, tensorwise scaling: inputs and weights in e4m3, gradients of
outputs in e5m2 (Micikevicius et al. 2022, arXiv:2209.05433), each scaled by the largest value in it; results
in bf16, gradients of weights in fp32 like the weights. Head, embedding, norms and attention stay as autocast
has them. Weights are cast once a step and kept until the optimizer changes them. What the simulator takes it
to cost is in `sim/kernels/torch_float8.py`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .block import Block

FP8 = "fp8"
E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
CAPABLE = (8, 9)
"""Compute capability of Ada, the first with fp8 GEMMs (NVIDIA, "CUDA C++ Programming Guide")."""
MULTIPLE = 16
"""All sizes of an fp8 GEMM are multiples of it: rows begin at 16 bytes (`torch._scaled_mm`)."""
scaled_mm = torch._scaled_mm  # pyright: ignore[reportPrivateImportUsage]
"""[m, k] x [k, n] of two matrices in fp8, the second laid column by column, each with its scale."""
LEAST = 1e-12
"""No scale is made of a largest value below it (torchao's EPS)."""


def use_float8(module: nn.Module) -> None:
    """Exchange every linear layer inside the blocks of ``module``; parameters stay the same objects."""
    for block in [child for child in module.modules() if isinstance(child, Block)]:
        for parent in list(block.modules()):
            for name, child in list(parent.named_children()):
                if type(child) is nn.Linear:
                    setattr(parent, name, Float8Linear(child))


class Copies(NamedTuple):
    """A weight [n, k] in fp8."""

    weight: Tensor
    turned: Tensor
    """Contiguous [k, n]."""
    scale: Tensor
    """What a value of the copy is multiplied by."""


class Float8Linear(nn.Linear):
    """A linear layer of bf16 results whose GEMMs are in fp8, with the parameters of another."""

    def __init__(self, linear: nn.Linear):
        with torch.device("meta"):
            super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None)
        self.weight, self.bias = linear.weight, linear.bias
        self._kept: tuple[int, Copies] | None = None

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as nn.Linear calls it
        rows = input.to(torch.bfloat16).flatten(0, -2)
        bias = None if self.bias is None else self.bias.to(torch.bfloat16)
        y = _Product.apply(rows, self.weight, bias, *self._copies())
        return y.unflatten(0, input.shape[:-1])  # type: ignore[union-attr]

    def _copies(self) -> Copies:
        """Of the weight as it is; those of a step are made once, but inside compiled code."""
        if torch.compiler.is_compiling():
            return _copies_of(self.weight)
        if self._kept is None or self._kept[0] != self.weight._version:
            self._kept = (self.weight._version, _copies_of(self.weight))
        return self._kept[1]


@torch.no_grad()
def _copies_of(weight: Tensor) -> Copies:
    copy, scale = to_float8(weight, E4M3)
    return Copies(copy, copy.t().contiguous(), scale)


def to_float8(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """``x`` in ``dtype``, and the scale (fp32, one value) that its values are to be multiplied by."""
    largest = torch.linalg.vector_norm(x, float("inf"), dtype=torch.float32)
    scale = largest.clamp(min=LEAST) * (1.0 / torch.finfo(dtype).max)
    return (x * scale.reciprocal()).to(dtype), scale


class _Product(torch.autograd.Function):
    """x [m, k] times a weight [n, k], transposed; the weight itself is there for its gradient alone."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        copy: Tensor,
        turned: Tensor,
        scale: Tensor,
    ) -> Tensor:
        rows, scale_x = to_float8(x, E4M3)
        ctx.save_for_backward(rows, scale_x, turned, scale)
        return scaled_mm(rows, copy.t(), scale_a=scale_x, scale_b=scale, bias=bias, out_dtype=torch.bfloat16)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        rows, scale_x, turned, scale = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        g, scale_g = to_float8(gradient, E5M2)
        of_x = of_weight = of_bias = None
        if wanted[0]:
            of_x = scaled_mm(g, turned.t(), scale_a=scale_g, scale_b=scale, out_dtype=torch.bfloat16)
        if wanted[1]:
            of_weight = scaled_mm(
                g.t().contiguous(),
                rows.t().contiguous().t(),
                scale_a=scale_g,
                scale_b=scale_x,
                out_dtype=torch.float32,
            )
        if wanted[2]:
            of_bias = gradient.sum(0)
        return of_x, of_weight, of_bias, None, None, None
