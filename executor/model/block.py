"""One block of the decoder."""

from __future__ import annotations

from torch import Tensor, nn

from ...sim.model.decoder import Decoder
from .attention import Attention
from .experts import ExpertMlp
from .latent_attention import LatentAttention
from .mlp import Mlp
from .norm import make_norm
from .recompute import block_again
from .routing import Routing


class Block(nn.Module):
    """Attention and MLP, each behind a norm and next to a residual."""

    def __init__(self, decoder: Decoder, recompute: str = "none", routing: Routing | None = None):
        """``routing`` is there in a block with experts."""
        super().__init__()
        self.recompute = recompute
        self.attention_norm = make_norm(decoder)
        self.attention = (LatentAttention if decoder.kv_rank else Attention)(decoder, recompute)
        self.mlp_norm = make_norm(decoder)
        self.mlp = Mlp(decoder) if routing is None else ExpertMlp(decoder, routing)

    def forward(self, x: Tensor) -> Tensor:
        return block_again(self.recompute, self._forward, x)

    def _forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))
