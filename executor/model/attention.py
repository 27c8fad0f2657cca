"""Causal attention with grouped queries."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from ...sim.model.decoder import Decoder
from .initial import zero_biases
from .norm import RmsNorm
from .recompute import core_again
from .rope import rotate

Core = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Attention between its projections: queries [batch, heads, seq, head_dim], keys and values [batch, kv_heads,
seq, head_dim] to outputs shaped as the queries; values, and then outputs, may be narrower."""


def attend(q: Tensor, k: Tensor, v: Tensor, *, dropout: float = 0.0) -> Tensor:
    """Causal attention of whole sequences, whose weights are dropped with a probability of ``dropout``. Of
    keys and values the narrower are padded to the width of the other, since torch's fused kernels want it
    so."""
    grouped, scale = q.shape[1] != k.shape[1], None
    narrow = k.shape[-1] - v.shape[-1]
    if narrow > 0:
        return attend(q, k, F.pad(v, (0, narrow)), dropout=dropout)[..., :-narrow]
    if narrow < 0:
        scale = k.shape[-1] ** -0.5
        q, k = F.pad(q, (0, -narrow)), F.pad(k, (0, -narrow))
    return F.scaled_dot_product_attention(
        q, k, v, dropout_p=dropout, is_causal=True, scale=scale, enable_gqa=grouped
    )


class Attention(nn.Module):
    """Query, key and value are one GEMM. What tensor and context parallelism change are the numbers of
    heads, the projections, the tokens' places and the core."""

    def __init__(self, decoder: Decoder, recompute: str):
        super().__init__()
        self.recompute = recompute
        self.heads, self.kv_heads, self.head_dim = decoder.heads, decoder.kv_heads, decoder.head_dim
        self.rotary = decoder.positions == "rope"
        self.places: Tensor | None = None
        """Positions of the tokens in their sample; None: 0, 1, 2, ..."""
        self.core: Core = attend
        self.qkv = nn.Linear(
            decoder.hidden, decoder.q_size + 2 * decoder.kv_size, bias=decoder.attention_bias
        )
        self.output = nn.Linear(decoder.q_size, decoder.hidden, bias=decoder.output_bias)
        self.q_norm = RmsNorm(decoder.head_dim) if decoder.qk_norm else nn.Identity()
        self.k_norm = RmsNorm(decoder.head_dim) if decoder.qk_norm else nn.Identity()
        zero_biases(self)

    def forward(self, x: Tensor) -> Tensor:
        size = self.head_dim
        queries, keys = self.heads * size, self.kv_heads * size
        q, k, v = self.qkv(x).split([queries, keys, keys], dim=-1)
        q = self.q_norm(q.unflatten(-1, (self.heads, size))).transpose(1, 2)
        k = self.k_norm(k.unflatten(-1, (self.kv_heads, size))).transpose(1, 2)
        v = v.unflatten(-1, (self.kv_heads, size)).transpose(1, 2)
        if self.rotary:
            q, k = rotate(q, self.places), rotate(k, self.places)
        y = core_again(self.recompute, self.core, q, k, v)
        return self.output(y.transpose(1, 2).flatten(2))
