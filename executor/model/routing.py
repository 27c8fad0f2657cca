"""Which experts a token visits, what their outputs weigh, and the loss that keeps them busy alike.

By default a run imposes the choice (`imposed`): experts follow from a token's place in its sample, so that
the busiest expert-parallel rank gets exactly what `Job.expert_imbalance` says, as Megatron-LM's
--moe-router-force-load-balancing makes routing even whatever the router has learned. The router then only
weighs what was chosen. With `learned` routing the highest scores are chosen, and loads are what they become.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...sim.model.decoder import Decoder
from ...sim.model.expert_imbalance import busiest_visits
from ...sim.plan.choices import IMPOSED
from ...sim.plan.job import Job

BALANCE = 1e-4
"""Weight of the balance loss (DeepSeek-AI 2024, DeepSeek-V3, section 4.2: alpha = 0.0001)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """How tokens find their experts."""

    kind: str = IMPOSED
    """`imposed` or `learned`."""
    imbalance: float = 1.0
    """Of imposed routing, tokens of the busiest expert-parallel rank over the mean."""
    ep: int = 1
    """Expert-parallel ranks of the strategy: what an imbalance is between. A single process that is to agree
    with a strategy routes for as many."""

    @classmethod
    def of(cls, job: Job, ep: int = 1) -> Routing:
        return cls(kind=job.routing, imbalance=job.expert_imbalance, ep=ep)


BALANCED = Routing()


def imposed_experts(decoder: Decoder, routing: Routing, positions: Tensor) -> Tensor:
    """The experts [tokens, experts_per_token] of the tokens at these ``positions`` [tokens] of a sample.

    A token visits v = `busiest_visits` / ep experts of the last expert-parallel rank in the mean: of the
    first t tokens there are floor(v t) visits to it, to its experts in turn; the others go to the experts of
    the other ranks in turn. So any run of tokens has even shares, but for one visit.
    """
    each, experts = decoder.experts_per_token, decoder.experts
    held = experts // routing.ep
    busiest = busiest_visits(decoder, routing.ep, routing.imbalance) / routing.ep
    begin = _visits(busiest, positions)
    own = (_visits(busiest, positions + 1) - begin)[:, None]
    before = begin[:, None]
    place = torch.arange(each, device=positions.device)[None]
    others = (each * positions[:, None] - before + place - own) % max(1, experts - held)
    elsewhere = held * (others % max(1, routing.ep - 1)) + others // max(1, routing.ep - 1)
    return torch.where(place < own, experts - held + (before + place) % held, elsewhere)


def imposed_counts(decoder: Decoder, routing: Routing, positions: Tensor) -> Tensor:
    """How many of the tokens at these ``positions`` visit each expert: [experts]."""
    return torch.bincount(imposed_experts(decoder, routing, positions).flatten(), minlength=decoder.experts)


def _visits(each: float, tokens: Tensor) -> Tensor:
    """floor(each × tokens), whatever the last digit of ``each``."""
    return torch.floor(tokens.double() * each + 1e-6).long()


class Router(nn.Module):
    """Scores experts for every token.

    Scores are a softmax; or, where the architecture has a value that balances their load (`router_bias`),
    sigmoids, to which it is added for the choice alone (DeepSeek-V3, section 2.1.2). It has no gradient and
    stays as it is: DeepSeek nudges it between steps. What an expert's output weighs is its score over the sum
    of the chosen ones' (Mixtral: the softmax of their logits). All in fp32.
    """

    def __init__(self, decoder: Decoder, routing: Routing):
        super().__init__()
        self.decoder, self.routing = decoder, routing
        self.weight = nn.Parameter(torch.empty(decoder.experts, decoder.hidden))
        self.bias = None
        if decoder.router_bias:
            self.bias = nn.Parameter(torch.zeros(decoder.experts), requires_grad=False)
        self.loss_scale = 1.0
        """What a micro-batch's mean loss is multiplied with before backward; the balance loss likewise."""
        self.sharers = Sharers()
        self.loads: Tensor
        self.register_buffer("loads", torch.zeros(decoder.experts, dtype=torch.long), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The experts of each token of ``x`` [batch, seq, hidden], and their weights, each [batch, seq,
        experts_per_token]."""
        with torch.autocast(x.device.type, enabled=False):
            logits = F.linear(x.float(), self.weight.float())
            scores = logits if self.bias is None else F.logsigmoid(logits)
            chosen = self._choose(scores)
            counts = torch.zeros(logits.shape[0], logits.shape[2], device=x.device).scatter_add_(
                1, chosen.flatten(1), torch.ones_like(chosen.flatten(1), dtype=torch.float32)
            )
            self.loads += counts.sum(0).long()
            weights = scores.gather(2, chosen).softmax(-1)
            if not torch.is_grad_enabled():
                return chosen, weights
            loss = self._balance(scores.softmax(-1), counts)
            return chosen, _Adds.apply(weights, loss, self.loss_scale * self.sharers.scale)

    def positions(self, tokens: int, device: torch.device) -> Tensor:
        """Where in their sample this rank's ``tokens`` tokens are."""
        return self.sharers.positions(tokens).to(device)

    def _choose(self, scores: Tensor) -> Tensor:
        batch, tokens, _ = scores.shape
        if self.routing.kind == IMPOSED:
            positions = self.positions(tokens, scores.device)
            return imposed_experts(self.decoder, self.routing, positions).expand(batch, -1, -1)
        seen = scores.detach()
        if self.bias is not None:
            seen = seen.exp() + self.bias
        return seen.topk(self.decoder.experts_per_token, dim=-1).indices

    def _balance(self, shares: Tensor, counts: Tensor) -> Tensor:
        """The sequence-wise balance loss (DeepSeek-V3, equations 17 to 20), the mean over the samples: the
        part of it that this rank's tokens make. Counts are those of all tokens of a sequence."""
        d, whole = self.decoder, shares.shape[1] * self.sharers.count
        if self.sharers.count > 1:
            counts = self._whole_counts(counts, whole)
        busy = counts * (d.experts / (d.experts_per_token * whole))
        return BALANCE * (busy * shares.sum(1) / whole).sum(1).mean()

    def _whole_counts(self, counts: Tensor, whole: int) -> Tensor:
        if self.routing.kind != IMPOSED:
            return self.sharers.summed(counts)
        found = imposed_counts(self.decoder, self.routing, torch.arange(whole, device=counts.device))
        return found.to(counts.dtype).expand_as(counts)


@dataclass(frozen=True, slots=True)
class Sharers:
    """The ranks that share a sequence, as a router sees them; by default it is alone."""

    count: int = 1
    scale: float = 1.0
    """What its balance loss is multiplied with besides the loss scale, so that the sum over all ranks is that
    of one process."""
    positions: Callable[[int], Tensor] = torch.arange
    """Positions in its sample of so many tokens of this rank."""
    summed: Callable[[Tensor], Tensor] = lambda counts: counts
    """The sum of counts over these ranks."""


class _Adds(torch.autograd.Function):
    """``x`` as it is; backward gives ``loss`` the gradient ``scale``, as if it were added to the loss
    (Megatron Core's `MoEAuxLossAutoScaler`)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, loss: Tensor, scale: float) -> Tensor:
        ctx.scale, ctx.like = scale, loss.new_ones(())
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        return grads[0], ctx.like * ctx.scale, None
