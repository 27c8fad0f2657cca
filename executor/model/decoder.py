"""The layers of a Model as torch modules, with the same parameters whatever the partition.

Every layer is initialised from a generator of its own, seeded by (seed, layer index), so a pipeline stage
that builds only its layers gets what a single process would have there. Query, key and value are one
GEMM, so are gate and up, as the costs of the simulator assume.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...sim.errors import InputError
from ...sim.model.decoder import Decoder
from .block import Block
from .embedding import Embedding
from .experts import ExpertMatrices
from .head import Head
from .initial import initialised
from .pieces import Piece
from .recompute import policy_of
from .routing import BALANCED, Router, Routing

EAGER, COMPILED = STACKS = ("torch-autocast", "torch-autocast-compile")
"""The software that this is, as `sim/plan/software_stacks.py` names and describes it."""


def build_layers(
    decoder: Decoder,
    layer_indices: Iterable[int],
    *,
    seed: int,
    recompute: str = "none",
    recompute_blocks: int = 0,
    routing: Routing = BALANCED,
    device: torch.device | None = None,
) -> Layers:
    """The layers with these indices as one module: tokens or hidden states in, hidden states or logits out.

    Tied embeddings are one matrix where embedding and head are both here; a head alone holds a copy,
    initialised alike. ``recompute`` and ``recompute_blocks`` are those of the Strategy. They are made and
    initialised on ``device``, each kind of which draws numbers of its own; None is the CPU.
    """
    with device or torch.device("cpu"):
        return Layers(
            decoder,
            tuple(layer_indices),
            seed=seed,
            recompute=recompute,
            recompute_blocks=recompute_blocks,
            routing=routing,
        )


def loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross entropy in fp32 of logits [batch, seq, vocab] for targets [batch, seq]."""
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


class Layers(nn.Module):
    """A run of a model's layers, in order."""

    elsewhere: frozenset[nn.Parameter] = frozenset()
    """Parameters that another stage of the same rank looks after."""

    def __init__(
        self,
        decoder: Decoder,
        indices: tuple[int, ...],
        *,
        seed: int,
        recompute: str = "none",
        recompute_blocks: int = 0,
        routing: Routing = BALANCED,
    ):
        super().__init__()
        self.indices = indices
        self.ends_in_logits = decoder.layers + 1 in indices
        self.boundary_dtype = torch.float32
        """What hidden states are passed on in; between the layers the residual stream stays in fp32."""
        self.loss: Callable[[Tensor, Tensor], Tensor] = loss
        """Of what the head gives and the targets: a micro-batch's mean, a scalar in fp32."""
        self.inputs: Tensor | None = None
        """Of the micro-batch whose forward comes next, on every stage; other models than decoders read them
        there."""
        self.pieces: dict[str, Piece] = {}
        """By a parameter's name in here: which part of a single process' parameter it is, if not all."""
        self.partial_gradients: set[str] = set()
        """Parameters that every tensor-parallel rank has whole, of whose gradients each has one summand."""
        self.layers = nn.ModuleList()
        first_block = max(1, indices[0])
        for index in indices:
            embedding = self.layers[0] if self.layers and indices[0] == 0 else None
            policy = policy_of(index - first_block, recompute, recompute_blocks)
            self.layers.append(_make(decoder, index, seed, policy, routing, embedding))

    def forward(self, x: Tensor) -> Tensor:
        if x.is_floating_point():
            x = x.float()
        return self.rest(x, first=0)

    def first(self, x: Tensor) -> Tensor:
        """The output of the first layer alone."""
        return self.layers[0](x)

    def rest(self, x: Tensor, *, first: int = 1) -> Tensor:
        """The output of all, from that of the layers before number ``first``."""
        for layer in self.layers[first:]:
            x = layer(x)
        return x if self.ends_in_logits else x.to(self.boundary_dtype)

    def expert_parameters(self) -> set[nn.Parameter]:
        """Those of experts, of which each expert-parallel rank has others."""
        found = (module for module in self.modules() if isinstance(module, ExpertMatrices))
        return {parameter for module in found for parameter in module.parameters()}

    def set_loss_scale(self, scale: float) -> None:
        """What a micro-batch's mean loss is multiplied with before backward, for losses that layers add."""
        for module in self.modules():
            if isinstance(module, Router):
                module.loss_scale = scale

    def enter(self, x: Tensor) -> Any:
        """What the first layer is given for ``x``."""
        return x.float() if x.is_floating_point() else x

    def leave(self, state: Any, layer: int) -> Any:
        """What is passed on, or put out, of what ``layer`` gave."""
        return state

    def compile_blocks(self) -> None:
        """Have each block compiled when it first runs; blocks are alike, so that is once."""
        for layer in self.layers:
            if isinstance(layer, Block):
                layer.compile()

    def named(self) -> dict[str, nn.Parameter]:
        """Parameters by name, as `3.attention.qkv.weight`: layer 3 of the model, whatever the partition."""
        return {self._name_in_model(name): parameter for name, parameter in self.named_parameters()}

    def _name_in_model(self, name: str) -> str:
        _, place, rest = name.split(".", 2)
        return f"{self.indices[int(place)]}.{rest}"

    def named_pieces(self) -> dict[str, Piece]:
        """`pieces` by the names of `named`."""
        names = {parameter: name for name, parameter in self.named().items()}
        return {
            names[parameter]: self.pieces[name]
            for name, parameter in self.named_parameters()
            if name in self.pieces
        }

    def expert_loads(self) -> dict[int, list[int]]:
        """By index of a layer with experts: how many tokens of this rank were for each expert so far."""
        return {
            index: module.loads.tolist()
            for index, layer in zip(self.indices, self.layers, strict=True)
            for module in layer.modules()
            if isinstance(module, Router)
        }

    def layer_parameters(self) -> dict[int, list[nn.Parameter]]:
        """Parameters by layer index; a matrix shared with the embedding is the embedding's alone, here or in
        another stage of the rank."""
        seen: set[nn.Parameter] = set(self.elsewhere)
        found: dict[int, list[nn.Parameter]] = {}
        for index, layer in zip(self.indices, self.layers, strict=True):
            found[index] = [p for p in layer.parameters() if p not in seen]
            seen.update(found[index])
        return found


def _make(
    decoder: Decoder, index: int, seed: int, recompute: str, routing: Routing, embedding: nn.Module | None
) -> nn.Module:
    """One layer, initialised. ``embedding`` is where a tied head finds its matrix, if it is at hand."""
    if index == 0:
        return initialised(Embedding(decoder), seed, index)
    if index <= decoder.layers:
        own = routing if decoder.has_experts(index) else None
        return initialised(Block(decoder, recompute, own), seed, index)
    if index != decoder.layers + 1:
        raise InputError(f"layer {index} does not exist; expected 0 to {decoder.layers + 1}")
    if decoder.tied_embeddings:
        table = embedding if isinstance(embedding, Embedding) else initialised(Embedding(decoder), seed, 0)
        return Head(decoder, cast(nn.Parameter, table.tokens.weight))
    return initialised(Head(decoder), seed, index)
