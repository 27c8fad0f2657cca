"""Rows of the vocabulary on each tensor-parallel rank: look-up of tokens, and the loss over all rows.

As in Megatron-LM (core/tensor_parallel/cross_entropy.py) and torchtitan (`loss_parallel`) logits stay where
they are, and three values a token are reduced: a largest value, the target's logit, a sum of exponentials.
Here each rank takes the log-softmax of its own rows, as a loss over so many rows alone would, and its
log-sum-exps are what is summed up.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F

from .regions import scattered, summed
from .wire import Wire


class VocabularyEmbedding(nn.Embedding):
    """Look-up of the rows from ``first`` on; those of other ranks add theirs."""

    def __init__(self, weight: nn.Parameter, first: int, wire: Wire, split_tokens: bool):
        """``weight`` [rows, hidden]; with ``split_tokens`` each rank goes on with its part of the tokens."""
        super().__init__(weight.shape[0], weight.shape[1], device="meta")
        self.weight = weight
        self.first, self.wire, self.split_tokens = first, wire, split_tokens

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        rows, elsewhere = own_rows(input, self.first, self.num_embeddings)
        x = F.embedding(rows, self.weight).masked_fill(elsewhere.unsqueeze(-1), 0.0)
        return scattered(x, self.wire) if self.split_tokens else summed(x, self.wire)


class VocabularyLoss:
    """Mean cross entropy in fp32 of logits [batch, seq, rows] of each rank for targets [batch, seq]."""

    def __init__(self, first: int, wire: Wire):
        self.first, self.wire = first, wire

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        found = _VocabularyLoss.apply(logits.flatten(0, 1), targets.flatten(), self.first, self.wire)
        return cast(Tensor, found)


def own_rows(tokens: Tensor, first: int, rows: int) -> tuple[Tensor, Tensor]:
    """Places of ``tokens`` among ``rows`` rows from ``first`` on, and which lie elsewhere (their place is
    0)."""
    places = tokens - first
    elsewhere = (places < 0) | (places >= rows)
    return places.masked_fill(elsewhere, 0), elsewhere


class _VocabularyLoss(Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, first: int, wire: Wire) -> Tensor:
        values = logits.float()
        places, elsewhere = own_rows(targets, first, values.shape[1])
        shares = F.log_softmax(values, dim=1)
        here = values[:, 0] - shares[:, 0]
        target = values.gather(1, places.unsqueeze(1)).squeeze(1).masked_fill(elsewhere, 0.0)
        target = wire.all_reduce(target).wait()
        peak = wire.all_reduce(here.clone(), dist.ReduceOp.MAX).wait()
        total = peak + wire.all_reduce(torch.exp(here - peak)).wait().log()
        ctx.save_for_backward(shares, here - total, places, elsewhere)
        ctx.dtype = logits.dtype
        return (total - target).mean()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        shares, here, places, elsewhere = ctx.saved_tensors
        share = grads[0] / len(places)
        gradient = (shares + here.unsqueeze(1)).exp_().mul_(share)
        ones = torch.where(elsewhere, torch.zeros_like(share), -share)
        gradient.scatter_add_(1, places.unsqueeze(1), ones.unsqueeze(1))
        return gradient.to(ctx.dtype), None, None, None
