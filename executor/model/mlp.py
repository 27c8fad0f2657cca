"""The MLP of a dense block; gate and up are one GEMM."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from ...sim.model.decoder import Decoder
from .initial import zero_biases


class Mlp(nn.Module):
    """`swiglu`: silu(gate) × up; `gelu`: the tanh form that GPT-2 uses."""

    def __init__(self, decoder: Decoder):
        super().__init__()
        self.gated = decoder.activation == "swiglu"
        inner = decoder.ffn * (2 if self.gated else 1)
        self.inner = nn.Linear(decoder.hidden, inner, bias=decoder.mlp_bias)
        self.output = nn.Linear(decoder.ffn, decoder.hidden, bias=decoder.mlp_bias)
        zero_biases(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(activate(self.inner(x), gated=self.gated))


def activate(x: Tensor, *, gated: bool) -> Tensor:
    """The activation of an MLP's inner values; of gate and up, half as many."""
    if not gated:
        return F.gelu(x, approximate="tanh")
    gate, up = x.chunk(2, dim=-1)
    return F.silu(gate) * up
