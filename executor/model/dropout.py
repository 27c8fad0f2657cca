"""Dropout after attention's probabilities, a block's halves and the embedding, where the job has it.

Masks are drawn from torch's own generator, which every worker seeds by its place: tensor-parallel ranks of
one place draw alike, so that what they all hold stays the same; replicas and stages draw numbers of their
own. Recomputation draws a pass's numbers again.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import attend
from .block import Block
from .embedding import Embedding

PROBABILITY = 0.1
"""Of a value to be dropped: as in GPT-2 and Megatron-LM (--attention-dropout, --hidden-dropout)."""


def seed_numbers(seed: int, *place: int) -> None:
    """Have this process draw the numbers of ``place`` in a run with this ``seed``."""
    torch.manual_seed(int(np.random.SeedSequence([seed, *place]).generate_state(1, np.uint64)[0] >> 1))


class DroppingCore:
    """Attention that drops some of its weights."""

    draws = True
    """Computed again, it must draw the same numbers (`recompute.py`)."""

    def __init__(self, probability: float):
        self.probability = probability

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend(q, k, v, dropout=self.probability)


def add_dropout(module: nn.Module, probability: float = PROBABILITY) -> None:
    """Drop values of the outputs of embeddings and halves of blocks in ``module``, and inside attention."""

    def dropped(own: nn.Module, _: object, out: Tensor) -> Tensor:
        return F.dropout(out, probability, training=own.training)

    for child in module.modules():
        if isinstance(child, Embedding):
            child.register_forward_hook(dropped)
        elif isinstance(child, Block):
            child.attention.core = DroppingCore(probability)
            child.attention.register_forward_hook(dropped)
            child.mlp.register_forward_hook(dropped)
