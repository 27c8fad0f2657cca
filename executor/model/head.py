"""Final norm and LM head."""

from __future__ import annotations

from torch import Tensor, nn

from ...sim.model.decoder import Decoder
from .norm import make_norm


class Head(nn.Module):
    """Final norm and LM head; ``tied`` is the embedding's matrix where they share one."""

    def __init__(self, decoder: Decoder, tied: nn.Parameter | None = None):
        super().__init__()
        self.norm = make_norm(decoder)
        self.output = nn.Linear(decoder.hidden, decoder.vocab, bias=False)
        if tied is not None:
            self.output.weight = tied

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.norm(x))
