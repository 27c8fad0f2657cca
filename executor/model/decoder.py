"""The layers of a Model as torch modules, with the same parameters whatever the partition.

Every layer is initialised from a generator of its own, seeded by (seed, layer index), so a pipeline stage
that builds only its layers gets what a single process would have there. Query, key and value are one
GEMM, so are gate and up, as the costs of the simulator assume.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...sim.errors import InputError
from ...sim.model.decoder import Decoder
from .recompute import maybe_again, policy_of

INIT_STD = 0.02
"""Standard deviation of initial weights (GPT-2, Radford et al. 2019, as released)."""
NORM_EPSILON = 1e-5
"""`layer_norm_epsilon` of GPT-2, `rms_norm_eps` of Llama 2 and 3."""
EAGER, COMPILED = STACKS = ("torch-autocast", "torch-autocast-compile")
"""The software that this is, as `sim/plan/software_stacks.py` names and describes it."""
M = TypeVar("M", bound=nn.Module)

ROPE_THETA = 10_000.0
"""Base of the rotary frequencies (Su et al. 2021, RoFormer, section 3.2.2)."""


def build_layers(
    decoder: Decoder,
    layer_indices: Iterable[int],
    *,
    seed: int,
    recompute: str = "none",
    recompute_blocks: int = 0,
    device: torch.device | None = None,
) -> Layers:
    """The layers with these indices as one module: tokens or hidden states in, hidden states or logits out.

    Tied embeddings are one matrix where embedding and head are both here; a head alone holds a copy,
    initialised alike. ``recompute`` and ``recompute_blocks`` are those of the Strategy. They are made and
    initialised on ``device``, each kind of which draws numbers of its own; None is the CPU.
    """
    with device or torch.device("cpu"):
        return Layers(
            decoder, tuple(layer_indices), seed=seed, recompute=recompute, recompute_blocks=recompute_blocks
        )


def loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross entropy in fp32 of logits [batch, seq, vocab] for targets [batch, seq]."""
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


class Layers(nn.Module):
    """A run of a model's layers, in order."""

    def __init__(
        self,
        decoder: Decoder,
        indices: tuple[int, ...],
        *,
        seed: int,
        recompute: str = "none",
        recompute_blocks: int = 0,
    ):
        super().__init__()
        self.indices = indices
        self.ends_in_logits = decoder.layers + 1 in indices
        self.boundary_dtype = torch.float32
        """What hidden states are passed on in; between the layers the residual stream stays in fp32."""
        self.layers = nn.ModuleList()
        first_block = max(1, indices[0])
        for index in indices:
            embedding = self.layers[0] if self.layers and indices[0] == 0 else None
            policy = policy_of(index - first_block, recompute, recompute_blocks)
            self.layers.append(_make(decoder, index, seed, policy, embedding))

    def forward(self, x: Tensor) -> Tensor:
        if x.is_floating_point():
            x = x.float()
        for layer in self.layers:
            x = layer(x)
        return x if self.ends_in_logits else x.to(self.boundary_dtype)

    def compile_blocks(self) -> None:
        """Have each block compiled when it first runs; blocks are alike, so that is once."""
        for layer in self.layers:
            if isinstance(layer, Block):
                layer.compile()

    def layer_parameters(self) -> dict[int, list[nn.Parameter]]:
        """Parameters by layer index; a matrix shared with the embedding is the embedding's alone."""
        seen: set[nn.Parameter] = set()
        found: dict[int, list[nn.Parameter]] = {}
        for index, layer in zip(self.indices, self.layers, strict=True):
            found[index] = [p for p in layer.parameters() if p not in seen]
            seen.update(found[index])
        return found


def _make(decoder: Decoder, index: int, seed: int, recompute: str, embedding: nn.Module | None) -> nn.Module:
    """One layer, initialised. ``embedding`` is where a tied head finds its matrix, if it is at hand."""
    if index == 0:
        return _initialised(Embedding(decoder), seed, index)
    if index <= decoder.layers:
        return _initialised(Block(decoder, recompute), seed, index)
    if index != decoder.layers + 1:
        raise InputError(f"layer {index} does not exist; expected 0 to {decoder.layers + 1}")
    if decoder.tied_embeddings:
        table = embedding if isinstance(embedding, Embedding) else _initialised(Embedding(decoder), seed, 0)
        return Head(decoder, cast(nn.Parameter, table.tokens.weight))
    return _initialised(Head(decoder), seed, index)


def _initialised(module: M, seed: int, index: int) -> M:
    """Matrices drawn from N(0, INIT_STD), biases 0, norms 1, from the layer's own generator."""
    state = np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0]
    parameters = list(module.parameters())
    generator = torch.Generator(parameters[0].device).manual_seed(int(state))
    with torch.no_grad():
        for parameter in parameters:
            if parameter.dim() > 1:
                parameter.normal_(0.0, INIT_STD, generator=generator)
    return module


class Embedding(nn.Module):
    """Token look-up, with learned positions where the architecture has them."""

    def __init__(self, decoder: Decoder):
        super().__init__()
        self.tokens = nn.Embedding(decoder.vocab, decoder.hidden)
        learned = decoder.positions == "learned"
        self.positions = nn.Embedding(decoder.max_positions, decoder.hidden) if learned else None

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens)
        if self.positions is not None:
            x = x + self.positions.weight[: tokens.shape[1]]
        return x


class Block(nn.Module):
    """Attention and MLP, each behind a norm and beside a residual."""

    def __init__(self, decoder: Decoder, recompute: str = "none"):
        super().__init__()
        self.recompute = recompute
        self.attention_norm = _norm(decoder)
        self.attention = Attention(decoder, recompute)
        self.mlp_norm = _norm(decoder)
        self.mlp = Mlp(decoder)

    def forward(self, x: Tensor) -> Tensor:
        return maybe_again(self.recompute == "full", self._forward, x)

    def _forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class Attention(nn.Module):
    """Causal attention with grouped queries."""

    def __init__(self, decoder: Decoder, recompute: str):
        super().__init__()
        self.decoder = decoder
        self.recompute = recompute
        self.qkv = nn.Linear(
            decoder.hidden, decoder.q_size + 2 * decoder.kv_size, bias=decoder.attention_bias
        )
        self.output = nn.Linear(decoder.q_size, decoder.hidden, bias=decoder.output_bias)
        self.q_norm = _RmsNorm(decoder.head_dim) if decoder.qk_norm else nn.Identity()
        self.k_norm = _RmsNorm(decoder.head_dim) if decoder.qk_norm else nn.Identity()
        _zero_biases(self)

    def forward(self, x: Tensor) -> Tensor:
        d = self.decoder
        q, k, v = self.qkv(x).split([d.q_size, d.kv_size, d.kv_size], dim=-1)
        q = self.q_norm(q.unflatten(-1, (d.heads, d.head_dim))).transpose(1, 2)
        k = self.k_norm(k.unflatten(-1, (d.kv_heads, d.head_dim))).transpose(1, 2)
        v = v.unflatten(-1, (d.kv_heads, d.head_dim)).transpose(1, 2)
        if d.positions == "rope":
            q, k = rotate(q), rotate(k)
        y = maybe_again(self.recompute == "selective", _attend, q, k, v)
        return self.output(y.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """`swiglu`: silu(gate) × up; `gelu`: the tanh form that GPT-2 uses."""

    def __init__(self, decoder: Decoder):
        super().__init__()
        self.gated = decoder.activation == "swiglu"
        inner = decoder.ffn * (2 if self.gated else 1)
        self.inner = nn.Linear(decoder.hidden, inner, bias=decoder.mlp_bias)
        self.output = nn.Linear(decoder.ffn, decoder.hidden, bias=decoder.mlp_bias)
        _zero_biases(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x)
        if self.gated:
            gate, up = x.chunk(2, dim=-1)
            return self.output(F.silu(gate) * up)
        return self.output(F.gelu(x, approximate="tanh"))


class Head(nn.Module):
    """Final norm and LM head; ``tied`` is the embedding's matrix where they share one."""

    def __init__(self, decoder: Decoder, tied: nn.Parameter | None = None):
        super().__init__()
        self.norm = _norm(decoder)
        self.output = nn.Linear(decoder.hidden, decoder.vocab, bias=False)
        if tied is not None:
            self.output.weight = tied

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.norm(x))


class _RmsNorm(nn.RMSNorm):
    def __init__(self, size: int):
        super().__init__(size, eps=NORM_EPSILON)


def _norm(decoder: Decoder) -> nn.Module:
    if decoder.norm == "layernorm":
        return nn.LayerNorm(decoder.hidden, eps=NORM_EPSILON)
    return _RmsNorm(decoder.hidden)


def _zero_biases(module: nn.Module) -> None:
    for child in module.children():
        if isinstance(child, nn.Linear) and child.bias is not None:
            nn.init.zeros_(child.bias)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    grouped = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)


def rotate(x: Tensor) -> Tensor:
    """Rotary positions on [batch, heads, seq, head_dim]: the two halves of a head are the pairs' parts."""
    cos, sin = _angles(x.shape[-2], x.shape[-1], x.device, x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


_ANGLES: dict[tuple[int, int, torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}


def _angles(seq: int, size: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines [seq, size / 2] for every position and pair; kept, since every block needs them."""
    key = (seq, size, device, dtype)
    if key not in _ANGLES:
        frequencies = ROPE_THETA ** (-torch.arange(0, size, 2, device=device, dtype=torch.float64) / size)
        angles = torch.outer(torch.arange(seq, device=device, dtype=torch.float64), frequencies)
        _ANGLES[key] = (angles.cos().to(dtype), angles.sin().to(dtype))
    return _ANGLES[key]
