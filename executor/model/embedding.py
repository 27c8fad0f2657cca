"""Token look-up, with learned positions where the architecture has them."""

from __future__ import annotations

from torch import Tensor, nn

from ...sim.model.decoder import Decoder


class Embedding(nn.Module):
    """Tokens [batch, seq] to hidden states [batch, seq, hidden]."""

    def __init__(self, decoder: Decoder):
        super().__init__()
        self.tokens = nn.Embedding(decoder.vocab, decoder.hidden)
        learned = decoder.positions == "learned"
        self.positions = nn.Embedding(decoder.max_positions, decoder.hidden) if learned else None
        self.places: Tensor | None = None
        """Positions in their sample of the tokens that come out; None: 0, 1, 2, ..."""

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens)
        if self.positions is not None:
            rows = self.positions.weight
            x = x + (rows[: x.shape[1]] if self.places is None else rows[self.places])
        return x
