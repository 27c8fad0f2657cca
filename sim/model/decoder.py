"""The architecture of a decoder-only transformer, as `config.json` files name it, and its parameters."""

from __future__ import annotations

from dataclasses import dataclass

from .layer import BLOCK, BLOCKS, EMBEDDING, HEAD, MOE_BLOCK


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder:
    """A decoder-only transformer (GPT-2, Llama, Qwen, Mistral, Mixtral and DeepSeek are instances)."""

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
    experts: int = 0
    """Experts of a block's MLP; 0 is a dense model."""
    experts_per_token: int = 0
    expert_ffn: int = 0
    """Inner width of one expert."""
    router_bias: bool = False
    """The router has a value for every expert, which balances their load (DeepSeek-V3)."""
    shared_ffn: int = 0
    """Inner width of all shared experts together, which every token visits."""
    shared_gate: bool = False
    """The shared experts' output is scaled by a gate of one value (Qwen2-MoE)."""
    dense_layers: int = 0
    """Blocks from the first on that have a dense MLP all the same (DeepSeek)."""
    q_rank: int = 0
    """Multi-head latent attention (DeepSeek-V2, section 2.1): width of the queries' latent; 0 has none."""
    kv_rank: int = 0
    """Width of the latent of keys and values; above 0 is multi-head latent attention."""
    rope_dim: int = 0
    """Of a head's `head_dim`, the part with rotary positions, which all heads' keys share."""
    v_head_dim: int = 0
    """Values of one head; 0 is `head_dim`."""

    @property
    def q_size(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Keys of one token as attention reads them."""
        return self.kv_heads * self.head_dim

    @property
    def v_size(self) -> int:
        """Values of one token as attention reads them."""
        return self.kv_heads * (self.v_head_dim or self.head_dim)

    @property
    def o_size(self) -> int:
        """Attention's output of one token, all heads."""
        return self.heads * (self.v_head_dim or self.head_dim)

    @property
    def mlp_matrices(self) -> int:
        """Matrices of one MLP or expert."""
        return 3 if self.activation == "swiglu" else 2

    @property
    def norm_parameters(self) -> int:
        """Parameters of one norm over the hidden size."""
        return self.hidden * (2 if self.norm == "layernorm" else 1)

    @property
    def attention_parameters(self) -> int:
        if self.kv_rank:
            return self._latent_attention_parameters
        count = self.hidden * (self.q_size + self.kv_size + self.v_size) + self.o_size * self.hidden
        if self.attention_bias:
            count += self.q_size + self.kv_size + self.v_size
        if self.output_bias:
            count += self.hidden
        if self.qk_norm:
            count += 2 * self.head_dim
        return count

    @property
    def _latent_attention_parameters(self) -> int:
        """Down to the latents and up from them, each latent with a norm; and the shared rotary keys."""
        queries = self.hidden * self.q_size
        if self.q_rank:
            queries = self.hidden * self.q_rank + self.q_rank + self.q_rank * self.q_size
        keys = self.kv_size - self.kv_heads * self.rope_dim
        latent = self.hidden * (self.kv_rank + self.rope_dim) + self.kv_rank
        return queries + latent + self.kv_rank * (keys + self.v_size) + self.o_size * self.hidden

    @property
    def mlp_parameters(self) -> int:
        count = self.mlp_matrices * self.hidden * self.ffn
        if self.mlp_bias:
            count += (self.mlp_matrices - 1) * self.ffn + self.hidden
        return count

    @property
    def expert_parameters(self) -> int:
        """Of all experts of one block but the shared ones."""
        return self.experts * self.mlp_matrices * self.hidden * self.expert_ffn

    @property
    def moe_parameters(self) -> int:
        """Of a block's router, experts and shared experts."""
        shared = self.mlp_matrices * self.hidden * self.shared_ffn + (self.hidden if self.shared_gate else 0)
        router = self.hidden * self.experts + (self.experts if self.router_bias else 0)
        return router + self.expert_parameters + shared

    def has_experts(self, block: int) -> bool:
        """Whether block number ``block``, from 1, has experts."""
        return bool(self.experts) and block > self.dense_layers

    @property
    def block_parameters(self) -> int:
        return self.attention_parameters + self.mlp_parameters + 2 * self.norm_parameters

    @property
    def moe_block_parameters(self) -> int:
        return self.attention_parameters + self.moe_parameters + 2 * self.norm_parameters

    def whole_parameters(self, layer_kind: str) -> int:
        """Of a layer's parameters, those that every tensor-parallel rank has whole (Megatron Core: norms,
        biases behind a row-parallel GEMM, position embeddings, the router, the way down to a latent)."""
        if layer_kind == EMBEDDING:
            return self.max_positions * self.hidden if self.positions == "learned" else 0
        if layer_kind == HEAD:
            return self.norm_parameters
        count = 2 * self.norm_parameters + (self.hidden if self.output_bias else 0)
        if layer_kind == BLOCK:
            count += self.hidden if self.mlp_bias else 0
        elif self.router_bias:
            count += self.experts
        return count + self._whole_between_divided(layer_kind)

    def _whole_between_divided(self, layer_kind: str) -> int:
        """Of the whole parameters of a block, those with divided GEMMs before or behind them, or both: norms
        of queries and keys, the ways down to latents, the router, the gate of shared experts."""
        count = 2 * self.head_dim if self.qk_norm else 0
        if self.kv_rank:
            count += self.hidden * (self.kv_rank + self.rope_dim) + self.kv_rank
            count += (self.hidden + 1) * self.q_rank
        if layer_kind != BLOCK:
            count += self.hidden * self.experts + (self.hidden if self.shared_gate else 0)
        return count

    def partial_parameters(self, layer_kind: str, *, split_tokens: bool) -> int:
        """Of a layer's whole parameters, those of whose gradients every tensor-parallel rank has a summand:
        what sees a part of the heads or of the experts' columns, and with sequence parallelism what sees a
        part of the tokens, which is all (Megatron Core, distributed/finalize_model_grads.py). The values that
        balance experts' loads have no gradient."""
        if split_tokens:
            fixed = self.experts if layer_kind == MOE_BLOCK and self.router_bias else 0
            return self.whole_parameters(layer_kind) - fixed
        return self._whole_between_divided(layer_kind) if layer_kind in BLOCKS else 0

    @property
    def active_parameters(self) -> int:
        """Those that one token meets: all but the experts it is not sent to."""
        moe = self.layers - min(self.dense_layers, self.layers) if self.experts else 0
        idle = moe * self.expert_parameters * (1 - self.experts_per_token / self.experts) if moe else 0
        dense = (self.layers - moe) * self.block_parameters + moe * self.moe_block_parameters
        return round(self.embedding_parameters + dense + self.head_parameters - idle)

    @property
    def embedding_parameters(self) -> int:
        table = self.vocab * self.hidden
        return table + (self.max_positions * self.hidden if self.positions == "learned" else 0)

    @property
    def head_parameters(self) -> int:
        """Final norm and LM head; a tied head has only the norm of its own."""
        return self.norm_parameters + (0 if self.tied_embeddings else self.vocab * self.hidden)


NO_DECODER = Decoder(
    layers=0,
    hidden=0,
    heads=0,
    kv_heads=0,
    head_dim=0,
    ffn=0,
    vocab=0,
    max_positions=0,
    norm="",
    positions="",
)
"""Placeholder for models that are no decoders: every size 0."""
