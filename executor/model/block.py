"""One block of the decoder."""

from __future__ import annotations

from torch import Tensor, nn

from ...sim.model.decoder import Decoder
from .attention import Attention
from .mlp import Mlp
from .norm import make_norm
from .recompute import maybe_again


class Block(nn.Module):
    """Attention and MLP, each behind a norm and next to a residual."""

    def __init__(self, decoder: Decoder, recompute: str = "none"):
        super().__init__()
        self.recompute = recompute
        self.attention_norm = make_norm(decoder)
        self.attention = Attention(decoder, recompute)
        self.mlp_norm = make_norm(decoder)
        self.mlp = Mlp(decoder)

    def forward(self, x: Tensor) -> Tensor:
        return maybe_again(self.recompute == "full", self._forward, x)

    def _forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))
