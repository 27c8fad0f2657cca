"""A network as a list of layers, each with the operations that it does for one token.

A token is what the network takes one of at a time: a word of a sentence, or, where a sample has no length (an
image, a row of features), the whole sample. So everything here is counted per token, and a job on images has
samples of one token. What an operation costs on an accelerator is in `network_kernels.py`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

PRODUCT, CONVOLUTION, RECURRENT = "product", "convolution", "recurrent"
ATTENTION, MEMORY, LOOKUP = "attention", "memory", "lookup"
KINDS = (PRODUCT, CONVOLUTION, RECURRENT, ATTENTION, MEMORY, LOOKUP)
PAIRS = "pairs"
"""Name of attention within a token: of its own vectors with each other (DLRM)."""
PRODUCTS = (PRODUCT, CONVOLUTION, RECURRENT)
"""Operations that multiply with weights."""

Broken = tuple[str, str, str]
"""Where a rule is broken, what was found, what was expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation on one token, forward; its backward follows from its kind."""

    kind: str
    """`product` with a matrix of weights; `convolution`, a GEMM for every place of the output;
    `recurrent`, a GEMM that waits for that of the token before; `attention` of every token on all of its
    sample; `memory`, bound by memory bandwidth; `lookup` in a table."""
    name: str = ""
    """Of a memory-bound operation: `norm` (by channel), `layer_norm`, `relu`, `add`, `pool`, `bias` ..."""
    rows: float = 1
    """Rows of the GEMM: places of the output; less than one where only some tokens have it."""
    n: int = 0
    """Columns of one group's GEMM: its output channels. Attention: heads."""
    k: int = 0
    """Inner size of one group's GEMM: its input channels times the window. Attention: size of a head."""
    groups: int = 1
    """Groups of channels that know nothing of each other."""
    window: tuple[int, int] = (1, 1)
    """Height and width of a convolution's filter."""
    stride: int = 1
    image: tuple[int, int] = (1, 1)
    """Height and width of a convolution's output."""
    reads: float = 0.0
    """Values that a GEMM or lookup reads, weights not counted."""
    writes: float = 0.0
    """Values that it writes."""
    moved: float = 0.0
    """Values that a memory-bound operation reads and writes forward."""
    moved_back: float = 0.0
    """The same backward."""
    weights: int = 0
    """Values of the matrix or table."""
    has_input_gradient: bool = True
    """Whether backward computes the gradient of the input; that of a network's input is not wanted."""

    @property
    def flops(self) -> float:
        """FLOPs of the forward, a multiplication and an addition each; attention's are `attention_flops`."""
        return 2.0 * self.rows * self.n * self.k * self.groups if self.kind in PRODUCTS else 0.0

    def attention_flops(self, seq_len: int) -> float:
        """FLOPs of one token's two attention GEMMs in a sample of ``seq_len`` tokens."""
        if self.kind != ATTENTION:
            return 0.0
        return 2.0 * self.n**2 * self.k if self.name == PAIRS else 4.0 * self.n * self.k * seq_len


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkLayer:
    """What is not cut: a matrix of weights and what follows it."""

    name: str
    parameters: int
    """Those of norms and biases included."""
    operations: tuple[Operation, ...]
    kept: float = 0.0
    """Values that one token leaves behind for backward, in the precision of the job."""
    kept_bytes: float = 0.0
    """What it leaves behind besides: indices, masks."""
    passed: float = 0.0
    """Values of one token that later layers read, so that cross a cut behind this one."""

    def score_bytes(self, bytes_per_value: int) -> float:
        """Bytes that one token keeps for each token of its sample in attention that is not fused: the
        softmax's output, and after dropout the mask and what is left."""
        heads = [(op.n, op.name) for op in self.operations if op.kind == ATTENTION and op.name != PAIRS]
        return float(sum(n * (2 * bytes_per_value + 1 if name else bytes_per_value) for n, name in heads))

    @property
    def same(self) -> tuple[object, ...]:
        """Layers of which this is equal cost the same."""
        return (self.parameters, self.operations, self.kept, self.kept_bytes, self.passed)

    @property
    def digest(self) -> str:
        """A short word that layers share which cost the same, in whatever network."""
        return hashlib.sha256(repr(self.same).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Network:
    """A model that is no decoder."""

    parts: tuple[NetworkLayer, ...]
    max_tokens: int = 1
    """Longest sample; 1 where a sample has no length."""
    classes: int = 0
    """Values of the output, where it is a classification."""
    input_bytes: float = 0.0
    """Bytes of one token as it comes from the host."""

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """By layer: a word that layers share which cost the same."""
        known: dict[tuple[object, ...], str] = {}
        return tuple(known.setdefault(part.same, f"layer{index}") for index, part in enumerate(self.parts))

    @cached_property
    def by_kind(self) -> dict[str, NetworkLayer]:
        """One layer of each kind."""
        found: dict[str, NetworkLayer] = {}
        for kind, part in zip(self.kinds, self.parts, strict=True):
            found.setdefault(kind, part)
        return found

    @cached_property
    def has_attention(self) -> bool:
        """Whether tokens of a sample attend to each other."""
        return any(op.kind == ATTENTION and op.name != PAIRS for part in self.parts for op in part.operations)

    def flops(self, seq_len: int = 1) -> float:
        """FLOPs of one token's forward in a sample of ``seq_len`` tokens."""
        return sum(layer_flops(part, seq_len) for part in self.parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; fields at their defaults are left out, for a network has thousands."""
        return _told(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Network:
        """What `to_dict` wrote."""
        return cls(**{**data, "parts": tuple(_part(part) for part in data["parts"])})

    @property
    def faults(self) -> list[Broken]:
        """Everything that no network has."""
        found = [] if self.parts else [("parts", "none", "at least one layer")]
        if self.max_tokens < 1:
            found.append(("max_tokens", str(self.max_tokens), "at least 1"))
        for index, part in enumerate(self.parts):
            found += [(f"parts.{index}.{where}", value, least) for where, value, least in _part_faults(part)]
        return found


def layer_flops(part: NetworkLayer, seq_len: int) -> float:
    """FLOPs of one token's forward through ``part``, in a sample of ``seq_len`` tokens."""
    return sum(op.flops + op.attention_flops(seq_len) for op in part.operations)


def _told(record: Any) -> dict[str, Any]:
    """A dataclass as plain values, without what is as by default."""
    told = {}
    for one in fields(record):
        value = getattr(record, one.name)
        if value == one.default and one.name != "kind":
            continue
        nested = isinstance(value, tuple) and value and hasattr(value[0], "__dataclass_fields__")
        told[one.name] = (
            [_told(v) for v in value] if nested else list(value) if isinstance(value, tuple) else value
        )
    return told


def _part(data: dict[str, Any]) -> NetworkLayer:
    operations = tuple(_operation(one) for one in data.get("operations", ()))
    return NetworkLayer(**{**data, "operations": operations})


def _operation(data: dict[str, Any]) -> Operation:
    pairs = {name: tuple(data[name]) for name in ("window", "image") if name in data}
    return Operation(**{**data, **pairs})


def _part_faults(part: NetworkLayer) -> list[Broken]:
    found = [
        (name, str(getattr(part, name)), "at least 0")
        for name in ("parameters", "kept", "kept_bytes", "passed")
        if not 0 <= getattr(part, name) < MAX_VALUES
    ]
    for index, op in enumerate(part.operations):
        found += [
            (f"operations.{index}.{where}", value, least) for where, value, least in _operation_faults(op)
        ]
    return found


MAX_VALUES = 1e15
"""Of anything a layer counts."""


def _operation_faults(op: Operation) -> list[Broken]:
    if op.kind not in KINDS:
        return [("kind", op.kind, " | ".join(KINDS))]
    least = {"rows": 1e-9, "groups": 1, "stride": 1, "weights": 0, "n": 0, "k": 0}
    found = [
        (name, str(getattr(op, name)), f"at least {low}")
        for name, low in least.items()
        if not low <= getattr(op, name) < MAX_VALUES
    ]
    if op.kind in (*PRODUCTS, ATTENTION) and min(op.n, op.k) < 1:
        found.append(("n", f"{op.n} × {op.k}", "at least 1 × 1"))
    for name in ("reads", "writes", "moved", "moved_back"):
        if not 0 <= getattr(op, name) < MAX_VALUES:
            found.append((name, str(getattr(op, name)), "at least 0"))
    for name in ("window", "image"):
        pair = getattr(op, name)
        if len(pair) != 2 or min(pair) < 1:
            found.append((name, str(list(pair)), "two numbers of at least 1"))
    return found
