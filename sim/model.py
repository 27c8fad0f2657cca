"""What is trained, as a list of layers: an embedding, transformer blocks, a head.

A `Decoder` holds the architecture as `config.json` files name it; a `Model` is its layers with their
parameters. What a layer costs is in `kernels.py`; reading Hugging Face files in `hf_config.py`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property

EMBEDDING, BLOCK, HEAD = "embedding", "block", "head"
MOE_BLOCK = "moe_block"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder:
    """A decoder-only transformer (GPT-2, Llama, Qwen and Mistral are instances)."""

    layers: int
    """Transformer blocks."""
    hidden: int
    heads: int
    kv_heads: int
    """Key-value heads; fewer than `heads` is grouped-query attention."""
    head_dim: int
    ffn: int
    """Inner width of the MLP."""
    vocab: int
    max_positions: int
    activation: str = "swiglu"
    """`swiglu` has a gate, so three matrices in the MLP; `gelu` has two."""
    norm: str = "rmsnorm"
    """`rmsnorm` or `layernorm`."""
    positions: str = "rope"
    """`rope`, or `learned`: a table of `max_positions` rows."""
    attention_bias: bool = False
    """Query, key and value projections have a bias."""
    output_bias: bool = False
    """The attention's output projection has a bias."""
    mlp_bias: bool = False
    qk_norm: bool = False
    """Queries and keys are normalised per head (Qwen3)."""
    tied_embeddings: bool = False
    """The head's matrix is the embedding's."""

    @property
    def q_size(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv_size(self) -> int:
        return self.kv_heads * self.head_dim

    @property
    def norm_parameters(self) -> int:
        """Parameters of one norm over the hidden size."""
        return self.hidden * (2 if self.norm == "layernorm" else 1)

    @property
    def attention_parameters(self) -> int:
        count = self.hidden * (self.q_size + 2 * self.kv_size) + self.q_size * self.hidden
        if self.attention_bias:
            count += self.q_size + 2 * self.kv_size
        if self.output_bias:
            count += self.hidden
        if self.qk_norm:
            count += 2 * self.head_dim
        return count

    @property
    def mlp_parameters(self) -> int:
        inner = 2 if self.activation == "swiglu" else 1
        count = (inner + 1) * self.hidden * self.ffn
        if self.mlp_bias:
            count += inner * self.ffn + self.hidden
        return count

    @property
    def block_parameters(self) -> int:
        return self.attention_parameters + self.mlp_parameters + 2 * self.norm_parameters

    @property
    def embedding_parameters(self) -> int:
        table = self.vocab * self.hidden
        return table + (self.max_positions * self.hidden if self.positions == "learned" else 0)

    @property
    def head_parameters(self) -> int:
        """Final norm and LM head; a tied head has only the norm of its own."""
        return self.norm_parameters + (0 if self.tied_embeddings else self.vocab * self.hidden)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer of a Model; layers of the same `kind` in one Model cost the same."""

    index: int
    kind: str
    """`embedding`, `block` or `head`."""
    parameters: int
    expert_parameters: int = 0
    """Those of them that expert parallelism divides."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A named architecture and its layers: embedding, blocks, head."""

    name: str
    decoder: Decoder
    source: str = ""
    """Where the architecture was read."""

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        decoder = self.decoder
        sizes = [
            (EMBEDDING, decoder.embedding_parameters),
            *[(BLOCK, decoder.block_parameters)] * decoder.layers,
            (HEAD, decoder.head_parameters),
        ]
        return tuple(Layer(index=i, kind=kind, parameters=size) for i, (kind, size) in enumerate(sizes))

    @property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers)

    def to_dict(self) -> dict[str, object]:
        """The fields as plain values; `from_dict` reads them back."""
        return {"name": self.name, "source": self.source, "decoder": asdict(self.decoder)}

    @classmethod
    def from_dict(cls, data: dict) -> Model:
        return cls(name=data["name"], source=data.get("source", ""), decoder=Decoder(**data["decoder"]))
