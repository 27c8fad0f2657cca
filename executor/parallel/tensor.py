"""Tensor and sequence parallelism: every rank of a `tp` group has some heads, inner columns and tokens' rows.

By hand, as Megatron-LM does it, on plain local tensors: a block of a rank computes what a plain block of
its size does, and its exchanges are the collectives that the simulator predicts (`sim/costs/traffic.py`). The
first GEMM of attention and of an MLP is divided by its outputs, the second by its inputs; the embedding and
the head by the vocabulary, whose logits are never gathered. With sequence parallelism norms and residuals are
divided by tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...sim.plan.plan import Plan
from ..model.attention import Attention
from ..model.decoder import Layers
from ..model.embedding import Embedding
from ..model.head import Head
from ..model.latent_attention import LatentAttention
from ..model.mlp import Mlp
from ..model.pieces import Piece, cut
from .context import own_positions
from .rank_context import RankContext
from .regions import copied, gathered, in_working_dtype, scattered, summed
from .surroundings import Surroundings
from .vocabulary import VocabularyEmbedding, VocabularyLoss
from .wire import Wire


def refusals(plan: Plan, surroundings: Surroundings) -> list[str]:
    """What of the tensor parallelism of ``plan`` cannot be run here, and why."""
    strategy = plan.strategy
    if strategy.tp == 1 or plan.job.model.network is not None:
        return []
    found = []
    if strategy.overlap_tensor:
        why = (
            "gloo has none of the symmetric memory in which GEMMs work on what has arrived"
            if surroundings.kind == "cpu"
            else "GEMMs here wait for the whole exchange before them"
        )
        found.append(f"overlap_tensor ({why})")
    vocab = plan.job.model.decoder.vocab
    if vocab < strategy.tp:
        found.append(f"tp {strategy.tp} (the vocabulary has {vocab} rows, not one for every rank)")
    if plan.job.loss:
        found.append(f"tp {strategy.tp} with the loss {plan.job.loss} (no rank has all logits)")
    return found


def apply(layers: Layers, here: RankContext) -> None:
    """Keep of ``layers``, which are whole, what is this rank's part under the plan's tensor parallelism."""
    strategy = here.plan.strategy
    if strategy.tp == 1:
        return
    division = Division(here.wire("tp"), strategy.sequence_parallel)
    for module in list(layers.modules()):
        for kind, divide in DIVISIONS.items():
            if isinstance(module, kind):
                divide(module, division)
    if strategy.sequence_parallel and isinstance(layers.layers[0], Embedding):
        layers.layers[0].places = division.own(own_positions(here.plan, here.rank)).to(here.device)
    last = layers.layers[-1]
    if isinstance(last, Head):
        layers.loss = VocabularyLoss(division.first_row(here.plan.job.model.decoder.vocab), division.wire)
    division.describe(layers)


def whole_parameters(layers: Layers) -> list[nn.Parameter]:
    """Those that every tensor-parallel rank has whole, of whose gradients each has a summand."""
    return [p for name, p in layers.named_parameters() if name in layers.partial_gradients]


def sum_whole_gradients(gradients: Sequence[Tensor], here: RankContext) -> None:
    """Sum the gradients of what every tensor-parallel rank has whole but computes a part of: with sequence
    parallelism norms, biases behind the second GEMMs and positions, which see a part of the tokens; always
    norms of queries and keys, which see a part of the heads. One all-reduce (Megatron-LM,
    core/distributed/finalize_model_grads.py)."""
    if not gradients:
        return
    total = here.wire("tp").all_reduce(torch.cat([gradient.flatten() for gradient in gradients])).wait()
    parts = total.split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


class Division:
    """Cuts modules into this rank's parts, and remembers which parts these are."""

    def __init__(self, wire: Wire, split_tokens: bool):
        self.wire, self.split_tokens = wire, split_tokens
        self.pieces: dict[nn.Parameter, Piece] = {}
        self.partial: list[nn.Parameter] = []
        """Whole here, with gradients from a part of the heads."""
        self._cut: dict[Tensor, nn.Parameter] = {}

    def own(self, x: Tensor) -> Tensor:
        """This rank's one of nearly equal parts along the first dimension: the first are one longer where
        they cannot be equal."""
        return x.tensor_split(self.wire.size)[self.wire.index]

    def part(self, size: int, offset: int = 0) -> Tensor:
        """The indices of this rank's part of ``size``, counted from ``offset``."""
        return self.own(torch.arange(size)) + offset

    def first_row(self, rows: int) -> int:
        """The first of this rank's ``rows``."""
        return int(self.part(rows)[0])

    def parameter(self, whole: Tensor, dim: int, index: Tensor) -> nn.Parameter:
        """The part of ``whole``, the same one where it is asked for again (tied embeddings)."""
        if whole not in self._cut:
            piece = Piece(dim, index)
            mine = self._cut[whole] = nn.Parameter(cut(whole.detach(), piece))
            self.pieces[mine] = piece
        return self._cut[whole]

    def entered(self, x: Tensor) -> Tensor:
        """All tokens for a GEMM that is divided by its outputs."""
        x = in_working_dtype(x)
        return gathered(x, self.wire) if self.split_tokens else copied(x, self.wire)

    def left(self, x: Tensor) -> Tensor:
        """What GEMMs that are divided by their inputs give together."""
        return scattered(x, self.wire) if self.split_tokens else summed(x, self.wire)

    def describe(self, layers: Layers) -> None:
        """Tell ``layers`` what its parameters are parts of, and which gradients are summands; forget the
        wholes."""
        self._cut.clear()
        for name, parameter in layers.named_parameters():
            piece = self.pieces.get(parameter)
            if piece is not None:
                layers.pieces[name] = piece
            elif self.split_tokens or any(parameter is one for one in self.partial):
                layers.partial_gradients.add(name)


class ColumnParallel(nn.Linear):
    """A linear layer of which this rank has some outputs."""

    def __init__(self, whole: nn.Linear, rows: Tensor, division: Division):
        super().__init__(whole.in_features, len(rows), bias=whole.bias is not None, device="meta")
        self.weight = division.parameter(whole.weight, 0, rows)
        if whole.bias is not None:
            self.bias = division.parameter(whole.bias, 0, rows)
        self.division = division

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return F.linear(self.division.entered(input), self.weight, self.bias)


class RowParallel(nn.Linear):
    """A linear layer of which this rank has some inputs; its bias, which all have, comes after the sum."""

    def __init__(self, whole: nn.Linear, columns: Tensor, division: Division):
        super().__init__(len(columns), whole.out_features, bias=whole.bias is not None, device="meta")
        self.weight = division.parameter(whole.weight, 1, columns)
        self.bias = whole.bias
        self.division = division

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        x = self.division.left(F.linear(input, self.weight))
        return x if self.bias is None else x + self.bias.to(x.dtype)


def _divide_embedding(module: Embedding, division: Division) -> None:
    rows = division.part(module.tokens.num_embeddings)
    weight = division.parameter(module.tokens.weight, 0, rows)
    module.tokens = VocabularyEmbedding(weight, int(rows[0]), division.wire, division.split_tokens)


def _divide_attention(module: Attention, division: Division) -> None:
    """Whole heads of queries, with the keys and values that they read."""
    size, ranks = module.head_dim, division.wire.size
    queries, keys = module.heads * size, module.kv_heads * size
    rows = torch.cat(
        [
            division.part(queries),
            division.part(keys, queries),
            division.part(keys, queries + keys),
        ]
    )
    module.qkv = ColumnParallel(module.qkv, rows, division)
    module.output = RowParallel(module.output, division.part(queries), division)
    module.heads, module.kv_heads = module.heads // ranks, module.kv_heads // ranks
    division.partial += [*module.q_norm.parameters(), *module.k_norm.parameters()]


def _divide_latent_attention(module: LatentAttention, division: Division) -> None:
    """Whole heads, from latents that every rank has: the ways down are within the region, so that each rank
    has a summand of their gradients."""
    module.register_forward_pre_hook(lambda _, inputs: (division.entered(inputs[0]),))
    for name in ("q", "kv"):
        whole: nn.Linear = getattr(module, name)
        part = nn.Linear(whole.in_features, whole.out_features, bias=False, device="meta")
        part.weight = division.parameter(whole.weight, 0, division.part(whole.out_features))
        part.out_features = len(part.weight)
        setattr(module, name, part)
    module.output = RowParallel(module.output, division.part(module.output.in_features), division)
    latents = (module.down, module.q_norm, module.kv_norm)
    division.partial += [p for one in latents if one is not None for p in one.parameters()]


def _divide_mlp(module: Mlp, division: Division) -> None:
    """The same columns of gate and up."""
    ffn = module.output.in_features
    parts = [division.part(ffn, offset) for offset in range(0, module.inner.out_features, ffn)]
    module.inner = ColumnParallel(module.inner, torch.cat(parts), division)
    module.output = RowParallel(module.output, division.part(ffn), division)


def _divide_head(module: Head, division: Division) -> None:
    rows = division.part(module.output.out_features)
    module.output = ColumnParallel(module.output, rows, division)


DIVISIONS: dict[type[nn.Module], Callable[..., None]] = {
    Embedding: _divide_embedding,
    Attention: _divide_attention,
    LatentAttention: _divide_latent_attention,
    Mlp: _divide_mlp,
    Head: _divide_head,
}
"""How each kind of module is divided."""
