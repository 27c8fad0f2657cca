"""The MLP of a block with experts: a router, experts of which a token visits some, and shared ones.

Tokens are copied for each of their experts, sorted by expert, and brought to where the experts are
(`exchange`: nowhere, in a single process); what comes back is weighed by the router and summed in the order
of tokens. Each expert's matrices are one GEMM for gate and up and one for its output, of as many rows as it
has tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...sim.model.decoder import Decoder
from .mlp import Mlp, activate
from .routing import Router, Routing

Experts = Callable[[Tensor, list[int]], Tensor]
"""Outputs [n, hidden] of this rank's experts for rows [n, hidden] sorted by expert, and how many each has."""

Exchange = Callable[[Tensor, Tensor, Experts], Tensor]
"""What the experts of all ranks make of rows [n, hidden], of which the first ``counts[0]`` [experts] are for
the first expert and so on; the last argument are those of this rank."""


def stay_here(rows: Tensor, counts: Tensor, experts: Experts) -> Tensor:
    """All experts are on this rank."""
    return experts(rows, counts.tolist())


def as_it_is(x: Tensor) -> Tensor:
    return x


def _computed_with(x: Tensor) -> Tensor:
    """``x`` as the experts' GEMMs read it, which is what travels."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


class ExpertMatrices(nn.Module):
    """The matrices of the experts that are on this rank: gate and up in one, and the output."""

    def __init__(self, decoder: Decoder):
        super().__init__()
        self.gated = decoder.activation == "swiglu"
        inner = decoder.expert_ffn * (decoder.mlp_matrices - 1)
        self.inner = nn.Parameter(torch.empty(decoder.experts, inner, decoder.hidden))
        self.output = nn.Parameter(torch.empty(decoder.experts, decoder.hidden, decoder.expert_ffn))

    def forward(self, rows: Tensor, counts: list[int]) -> Tensor:
        """Each expert's output for its rows; an expert without any takes part all the same."""
        parts = rows.split(counts)
        each = zip(parts, self.inner.unbind(), self.output.unbind(), strict=True)
        return torch.cat([F.linear(activate(F.linear(x, i), gated=self.gated), o) for x, i, o in each])


class ExpertMlp(nn.Module):
    """Routed experts and, where the architecture has them, shared ones, scaled by a gate or not."""

    def __init__(self, decoder: Decoder, routing: Routing):
        super().__init__()
        self.router = Router(decoder, routing)
        self.experts = ExpertMatrices(decoder)
        self.shared = (
            Mlp(replace(decoder, ffn=decoder.shared_ffn, mlp_bias=False)) if decoder.shared_ffn else None
        )
        self.shared_gate = nn.Linear(decoder.hidden, 1, bias=False) if decoder.shared_gate else None
        self.exchange: Exchange = stay_here
        self.enter: Callable[[Tensor], Tensor] = as_it_is
        """What tensor parallelism does before all of it."""
        self.leave: Callable[[Tensor], Tensor] = as_it_is
        """And behind it."""

    def forward(self, x: Tensor) -> Tensor:
        """[batch, seq, hidden] in and out."""
        x = self.enter(x)
        chosen, weights = self.router(x)
        shared = self._shared(x)
        y = self._routed(x.flatten(0, 1), chosen.flatten(0, 1), weights.flatten(0, 1)).view_as(x)
        return self.leave(y if shared is None else y + shared)

    def _routed(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """The weighed sum of what its experts make of each token of ``x`` [tokens, hidden]."""
        order = chosen.flatten().argsort(stable=True)
        counts = torch.bincount(chosen.flatten(), minlength=self.router.decoder.experts)
        tokens = order // chosen.shape[1]
        rows = self.exchange(_computed_with(x)[tokens], counts, self.experts)
        weighed = rows * weights.flatten()[order][:, None]
        return weighed.new_zeros(x.shape).index_add(0, tokens, weighed)

    def _shared(self, x: Tensor) -> Tensor | None:
        if self.shared is None:
            return None
        y = self.shared(x)
        return y if self.shared_gate is None else y * torch.sigmoid(self.shared_gate(x))
