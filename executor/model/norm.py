"""Norms of the residual stream, and of the heads of queries and keys."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from ...sim.model.decoder import Decoder

NORM_EPSILON = 1e-5
"""`layer_norm_epsilon` of GPT-2, `rms_norm_eps` of Llama 2 and 3."""


class RmsNorm(nn.RMSNorm):
    """Of ``size`` values."""

    apart = False
    """Whether weights come in by operations of their own, whose weight gradients do not read them: they
    may be dropped by then (sharded states, with backwards in halves)."""

    def __init__(self, size: int):
        super().__init__(size, eps=NORM_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        if not self.apart:
            return super().forward(x)
        return F.rms_norm(x, self.normalized_shape, eps=self.eps) * self.weight


class LayerNorm(nn.LayerNorm):
    """Of ``size`` values, in the precision of what is normalised: sharded parameters are gathered in half
    precision, which the kernel of CPUs does not mix."""

    apart = False
    """As of `RmsNorm`."""

    def __init__(self, size: int):
        super().__init__(size, eps=NORM_EPSILON)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        weight, bias = (x.to(input.dtype) for x in (self.weight, self.bias))
        if self.apart:
            return F.layer_norm(input, self.normalized_shape, eps=self.eps) * weight + bias
        return F.layer_norm(input, self.normalized_shape, weight, bias, self.eps)


def make_norm(decoder: Decoder) -> nn.Module:
    """The norm of ``decoder`` over its hidden size."""
    if decoder.norm == "layernorm":
        return LayerNorm(decoder.hidden)
    return RmsNorm(decoder.hidden)
