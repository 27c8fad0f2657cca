"""The operations of a network in torch, by their names in the simulator's Builder.

Each is a module that is called with the inputs of the micro-batch and with the tensors that it reads. ReLU
and sigmoid work in place, as their costs say. What drops values out draws its mask from the samples
themselves, so that whoever computes a micro-batch drops the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....sim.errors import InputError
from ....sim.model.networks.graph import Tensor as Planned
from .program import Call, Program

IMAGE_DROPOUT, TOKEN_DROPOUT = 0.5, 0.1
"""Shares that are dropped: of AlexNet (Krizhevsky et al. 2012, section 4.2), of the Transformer (Vaswani et
al. 2017, section 5.4)."""
MASKED_TOKEN = -1
"""The token that stands where one is to be told: this from the end of the vocabulary."""


class _Module(nn.Module):
    """A torch module that reads one tensor."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, inputs: Tensor, x: Tensor) -> Tensor:
        return self.module(x)


class _Linear(nn.Module):
    """A matrix for all values of a sample or token, or for each of ``rows`` rows of them."""

    def __init__(self, inner: int, width: int, *, bias: bool, rows: int):
        super().__init__()
        self.rows, self.module = rows, nn.Linear(inner, width, bias=bias)

    def forward(self, inputs: Tensor, x: Tensor) -> Tensor:
        x = x.flatten(1) if x.dim() == 4 else x
        if self.rows == 1:
            return self.module(x)
        return self.module(x.unflatten(-1, (self.rows, -1))).flatten(-2)


class _Function(nn.Module):
    """Something without parameters."""

    def __init__(self, function: Callable[..., Tensor]):
        super().__init__()
        self.function = function

    def forward(self, inputs: Tensor, *xs: Tensor) -> Tensor:
        return self.function(*xs)


class _Dropout(nn.Module):
    """Drops a share ``rate`` of the values."""

    def __init__(self, rate: float, salt: int):
        super().__init__()
        self.rate, self.salt = rate, salt

    def forward(self, inputs: Tensor, x: Tensor) -> Tensor:
        return dropped(x, self.rate, inputs, self.salt)


class _Lstm(nn.Module):
    """One layer in one direction."""

    def __init__(self, width: int, hidden: int, *, backwards: bool):
        super().__init__()
        self.backwards = backwards
        self.module = nn.LSTM(width, hidden, batch_first=True)

    def forward(self, inputs: Tensor, x: Tensor) -> Tensor:
        if self.backwards:
            return self.module(x.flip(1))[0].flip(1)
        return self.module(x)[0]


class _Attention(nn.Module):
    """Every token on all of its sample."""

    def __init__(self, heads: int, rate: float, salt: int):
        super().__init__()
        self.heads, self.rate, self.salt = heads, rate, salt

    def forward(self, inputs: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (q, k, v))
        if self.rate:
            share = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, -1)
            y = dropped(share, self.rate, inputs, self.salt) @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v)
        return y.transpose(1, 2).flatten(2)


class _ScoredAttention(nn.Module):
    """By the normalised score of Bahdanau et al. 2014: g · v/|v| · tanh(query + key + b)."""

    def __init__(self, width: int):
        super().__init__()
        self.vector, self.bias = nn.Parameter(torch.empty(width, 1)), nn.Parameter(torch.zeros(width))
        self.length = nn.Parameter(torch.full((1,), width**-0.5))

    def forward(self, inputs: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        both = torch.tanh(q.unsqueeze(2) + k.unsqueeze(1) + self.bias)
        direction = self.length * self.vector / self.vector.norm()
        return torch.softmax((both @ direction).squeeze(-1), -1) @ v


class _Lookup(nn.Module):
    """Rows of a table, by columns of the inputs."""

    def __init__(self, table: nn.Embedding, columns: slice):
        super().__init__()
        self.table, self.columns = table, columns

    def forward(self, inputs: Tensor) -> Tensor:
        found = self.table(inputs[..., self.columns].long())
        return found.squeeze(-2) if found.shape[-2] == 1 else found.flatten(-2)


class _SharedLinear(nn.Module):
    """A GEMM with the table of a look-up."""

    def __init__(self, table: nn.Embedding):
        super().__init__()
        self.table = table

    def forward(self, inputs: Tensor, x: Tensor) -> Tensor:
        return F.linear(x, self.table.weight)


class _Predict(nn.Module):
    """BERT's head on the tokens that are masked."""

    def __init__(self, table: nn.Embedding, width: int, *, bias: bool):
        super().__init__()
        self.inner, self.norm = nn.Linear(width, width), nn.LayerNorm(width)
        self.table = table
        self.bias = nn.Parameter(torch.zeros(table.num_embeddings)) if bias else None

    def forward(self, inputs: Tensor, x: Tensor) -> Tensor:
        masked = x[inputs[..., 0] == self.table.num_embeddings + MASKED_TOKEN]
        return F.linear(self.norm(F.gelu(self.inner(masked))), self.table.weight, self.bias)


class _NextSentence(nn.Module):
    """BERT's other head, on the first token."""

    def __init__(self, width: int):
        super().__init__()
        self.pooler, self.classes = nn.Linear(width, width), nn.Linear(width, 2)

    def forward(self, inputs: Tensor, x: Tensor) -> Tensor:
        return self.classes(torch.tanh(self.pooler(x[:, 0])))


def dropped(x: Tensor, rate: float, inputs: Tensor, salt: int) -> Tensor:
    """``x`` without a share ``rate`` of its values, the others larger by as much: a mask of a byte a value,
    drawn from the samples (their bits, and ``salt`` for the place)."""
    bits = inputs.detach().contiguous().flatten().view(torch.int32).long()
    places = torch.arange(1, len(bits) + 1, device=bits.device)
    seed = (int((bits * places).sum()) * 1_000_003 + salt) % 2**63
    generator = torch.Generator(x.device).manual_seed(seed)
    kept = torch.empty(x.shape, dtype=torch.bool, device=x.device).bernoulli_(1 - rate, generator=generator)
    return (x * kept).mul_(1 / (1 - rate))


def _interactions(x: Tensor, rows: int) -> Tensor:
    """Products of vectors with each other, below the diagonal."""
    vectors = x.unflatten(-1, (rows, -1))
    below = torch.tril_indices(rows, rows, -1, device=x.device)
    return (vectors @ vectors.transpose(-1, -2))[..., below[0], below[1]]


def make_operation(call: Call, program: Program, number: int, table: nn.Embedding | None) -> nn.Module:
    """The module of ``call``, the ``number``-th of its network; ``table`` is the one that layers share."""
    return _MAKERS[call.name](call, program, number, table)


Maker = Callable[[Call, Program, int, nn.Embedding | None], nn.Module]
_MAKERS: dict[str, Maker] = {}


def _maker(name: str) -> Callable[[Maker], Maker]:
    def keep(maker: Maker) -> Maker:
        _MAKERS[name] = maker
        return maker

    return keep


@_maker("conv")
def _conv(call: Call, *_: Any) -> nn.Module:
    a, (x,) = call.arguments, call.reads
    return _Module(
        nn.Conv2d(
            x.channels,
            a["channels"],
            a["window"],
            stride=a["stride"],
            padding=a["padding"],
            groups=a["groups"],
            bias=a["bias"],
        )
    )


@_maker("linear")
def _linear(call: Call, *_: Any) -> nn.Module:
    a, (x,) = call.arguments, call.reads
    return _Linear(x.values // a["rows"], a["width"], bias=a["bias"], rows=a["rows"])


@_maker("batch_norm")
def _batch_norm(call: Call, program: Program, *_: Any) -> nn.Module:
    (x,) = call.reads
    return _Module((nn.BatchNorm2d if x in program.images else nn.BatchNorm1d)(x.channels))


@_maker("concat")
def _concat(call: Call, program: Program, *_: Any) -> nn.Module:
    dimension = 1 if call.reads[0] in program.images else -1
    return _Function(lambda *xs: torch.cat(xs, dimension))


@_maker("max_pool")
def _max_pool(call: Call, *_: Any) -> nn.Module:
    a = call.arguments
    return _Module(nn.MaxPool2d(a["window"], a["stride"], a["padding"], ceil_mode=a["ceil"]))


@_maker("average_pool")
def _average_pool(call: Call, *_: Any) -> nn.Module:
    a = call.arguments
    return _Module(nn.AvgPool2d(a["window"], a["stride"], a["padding"]))


@_maker("global_pool")
def _global_pool(call: Call, *_: Any) -> nn.Module:
    (x,), size = call.reads, call.arguments["size"]
    return _Module(nn.Identity() if x.height == size == x.width else nn.AdaptiveAvgPool2d(size))


@_maker("dropout")
def _dropout(call: Call, program: Program, number: int, _: Any) -> nn.Module:
    return _Dropout(_rate(call.reads[0], program), number)


@_maker("attention")
def _attention(call: Call, program: Program, number: int, _: Any) -> nn.Module:
    rate = TOKEN_DROPOUT if call.arguments["dropout"] else 0.0
    return _Attention(call.arguments["heads"], rate, number)


@_maker("lookup")
def _lookup(call: Call, program: Program, number: int, table: nn.Embedding | None) -> nn.Module:
    own = table if call is program.table and table is not None else make_table(call)
    return _Lookup(own, call.columns)


def make_table(call: Call) -> nn.Embedding:
    """The table of a look-up."""
    return nn.Embedding(call.arguments["rows"], call.arguments["width"])


def _rate(x: Planned, program: Program) -> float:
    return IMAGE_DROPOUT if program.network.max_tokens == 1 else TOKEN_DROPOUT


def _shared(table: nn.Embedding | None) -> nn.Embedding:
    if table is None:
        raise InputError("a network shares a table that no layer of it has")
    return table


_MAKERS.update(
    {
        "layer_norm": lambda call, *_: _Module(nn.LayerNorm(call.reads[0].channels)),
        "relu": lambda *_: _Module(nn.ReLU(inplace=True)),
        "sigmoid": lambda *_: _Function(torch.sigmoid_),
        "gelu": lambda *_: _Module(nn.GELU()),
        "add": lambda *_: _Function(torch.add),
        "loss": lambda *_: _Module(nn.Identity()),
        "lstm": lambda call, *_: _Lstm(
            call.reads[0].values, call.arguments["hidden"], backwards=call.arguments["backwards"]
        ),
        "scored_attention": lambda call, *_: _ScoredAttention(call.reads[0].values),
        "interactions": lambda call, *_: _Function(lambda x: _interactions(x, call.arguments["rows"])),
        "shared_lookup": lambda call, program, number, table: _Lookup(_shared(table), call.columns),
        "shared_linear": lambda call, program, number, table: _SharedLinear(_shared(table)),
        "predict_some": lambda call, program, number, table: _Predict(
            _shared(table), call.reads[0].values, bias=call.arguments["bias"]
        ),
        "next_sentence": lambda call, *_: _NextSentence(call.reads[0].values),
    }
)
