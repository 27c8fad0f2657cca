"""Norms of the residual stream, and of the heads of queries and keys."""

from __future__ import annotations

from torch import nn

from ...sim.model.decoder import Decoder

NORM_EPSILON = 1e-5
"""`layer_norm_epsilon` of GPT-2, `rms_norm_eps` of Llama 2 and 3."""


class RmsNorm(nn.RMSNorm):
    """Of ``size`` values."""

    def __init__(self, size: int):
        super().__init__(size, eps=NORM_EPSILON)


def make_norm(decoder: Decoder) -> nn.Module:
    """The norm of ``decoder`` over its hidden size."""
    if decoder.norm == "layernorm":
        return nn.LayerNorm(decoder.hidden, eps=NORM_EPSILON)
    return RmsNorm(decoder.hidden)
