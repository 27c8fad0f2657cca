"""Multi-head latent attention (DeepSeek-AI 2024, DeepSeek-V2, section 2.1).

Keys and values of all heads are made from one narrow latent, and so are queries where the architecture has a
latent for them. A head's queries and keys have a part without positions and a part with rotary ones, and all
heads' keys share the latter. The ways down to the latents are one GEMM, as the costs of the simulator assume;
keys and values come up together, head by head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...sim.model.decoder import Decoder
from .attention import Core, attend
from .norm import RmsNorm
from .recompute import core_again
from .rope import rotate


class LatentAttention(nn.Module):
    """Causal attention through latents: [batch, seq, hidden] in and out."""

    def __init__(self, decoder: Decoder, recompute: str):
        super().__init__()
        self.decoder, self.recompute = decoder, recompute
        self.places: Tensor | None = None
        """Positions of the tokens in their sample; None: 0, 1, 2, ..."""
        self.core: Core = attend
        d = decoder
        self.down = nn.Linear(d.hidden, d.q_rank + d.kv_rank + d.rope_dim, bias=False)
        self.q_norm = RmsNorm(d.q_rank) if d.q_rank else None
        self.q = nn.Linear(d.q_rank or d.hidden, d.q_size, bias=False)
        self.kv_norm = RmsNorm(d.kv_rank)
        self.kv = nn.Linear(d.kv_rank, d.kv_size - d.kv_heads * d.rope_dim + d.v_size, bias=False)
        self.output = nn.Linear(d.o_size, d.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        d, without = self.decoder, self.decoder.head_dim - self.decoder.rope_dim
        own = d.v_head_dim or d.head_dim
        q_latent, kv_latent, k_shared = self.down(x).split([d.q_rank, d.kv_rank, d.rope_dim], dim=-1)
        q = self.q(x if self.q_norm is None else self.q_norm(q_latent))
        q = q.unflatten(-1, (-1, d.head_dim)).transpose(1, 2)
        kv = self.kv(self.kv_norm(kv_latent)).unflatten(-1, (-1, without + own)).transpose(1, 2)
        k, v = kv.split([without, own], dim=-1)
        turned = rotate(k_shared.unsqueeze(1), self.places).expand(-1, k.shape[1], -1, -1)
        q = torch.cat((q[..., :without], rotate(q[..., without:], self.places)), dim=-1)
        k = torch.cat((k, turned), dim=-1)
        y = core_again(self.recompute, self.core, q, k, v)
        return self.output(y.transpose(1, 2).flatten(2))
