"""What a layer computes: matrix products, attention and memory-bound kernels, forward and backward.

Shapes are those of one rank. Tensor parallelism splits as Megatron-LM does (Shoeybi et al. 2019): attention
by heads, MLPs by their inner width, embedding and head by vocabulary; norms and residuals are whole unless
sequence parallelism splits them (Korthikanti et al. 2022). Context parallelism gives each rank its part of
every sequence, expert parallelism its part of the experts. Assumptions: query, key and value are one product,
so are gate and up; biases are added within products; attention is a flash kernel (Dao 2023) that skips the
masked half; a weight gradient is added onto the accumulated one within its product; the experts of a rank are
one grouped product; the loss is computed in fp32. No dropout.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from .model import BLOCK, EMBEDDING, HEAD, MOE_BLOCK, Decoder

CAUSAL_SHARE = 0.5
"""Part of the score matrix that a causal flash kernel computes (FlashAttention-2, Dao 2023, section 4.1)."""

FLASH_BACKWARD_FLOPS = 2.5
"""Backward over forward FLOPs of flash attention: five products instead of two (Dao 2023, section 4.1)."""

LOSS_BYTES = 4
"""Bytes of one logit in the loss, which is computed in fp32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """One launch on the accelerator; FLOPs are those really done."""

    kind: str
    """`gemm`, `attention` or `memory` (bound by memory bandwidth)."""
    flops: float
    bytes: float
    """Read and written in device memory, each operand once."""
    m: int = 0
    """Rows of a product; 0 where the kernel is none. The product is [m, k] x [k, n]."""
    n: int = 0
    k: int = 0
    batch: int = 1
    """Independent products in one launch."""
    weights: bool = False
    """The gradient of a weight, which no other layer waits for."""


def forward_kernels(decoder: Decoder, layer_kind: str, **shape: Any) -> tuple[Kernel, ...]:
    """Kernels of one layer's forward on one rank for one micro-batch, in order.

    ``layer_kind`` is `embedding`, `block`, `moe_block` or `head`; ``shape`` are the fields of `Shape` after
    the decoder.
    """
    return _FORWARD[layer_kind](Shape(decoder=decoder, **shape))


def backward_kernels(decoder: Decoder, layer_kind: str, **shape: Any) -> tuple[Kernel, ...]:
    """Kernels of one layer's backward, without anything computed again; arguments as `forward_kernels`."""
    return _BACKWARD[layer_kind](Shape(decoder=decoder, **shape))


def input_gradient_kernels(decoder: Decoder, layer_kind: str, **shape: Any) -> tuple[Kernel, ...]:
    """The part of `backward_kernels` that the layer before waits for."""
    return tuple(k for k in backward_kernels(decoder, layer_kind, **shape) if not k.weights)


def weight_gradient_kernels(decoder: Decoder, layer_kind: str, **shape: Any) -> tuple[Kernel, ...]:
    """The rest of `backward_kernels`: gradients of weights alone."""
    return tuple(k for k in backward_kernels(decoder, layer_kind, **shape) if k.weights)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes on one rank, and constructors of kernels over them."""

    decoder: Decoder
    micro_batch: int
    seq_len: int
    tp: int
    bytes_per_value: int
    cp: int = 1
    ep: int = 1
    sequence_parallel: bool = False
    expert_imbalance: float = 1.0
    """Tokens of the busiest expert-parallel rank over the mean."""

    @property
    def tokens(self) -> int:
        """Tokens of this rank's part of the sequences."""
        return self.micro_batch * self.seq_len // self.cp

    @property
    def outside(self) -> float:
        """Tokens whose norms and residuals this rank computes."""
        return self.tokens / self.tp if self.sequence_parallel else self.tokens

    @property
    def hidden(self) -> int:
        return self.decoder.hidden

    @property
    def q(self) -> int:
        return self.decoder.q_size // self.tp

    @property
    def k(self) -> int:
        return self.decoder.kv_size // self.tp

    @property
    def v(self) -> int:
        return self.decoder.v_size // self.tp

    @property
    def o(self) -> int:
        return self.decoder.o_size // self.tp

    @property
    def vocab(self) -> int:
        return -(-self.decoder.vocab // self.tp)

    @property
    def mlp_inputs(self) -> int:
        """Matrices that lead into an MLP."""
        return self.decoder.mlp_matrices - 1

    @property
    def routed(self) -> float:
        """Tokens that this rank's experts work on, each counted once for every expert it visits."""
        return self.tokens * self.decoder.experts_per_token * self.expert_imbalance

    @property
    def local_experts(self) -> int:
        return max(1, self.decoder.experts // self.ep)

    def gemm(self, m: int, n: int, k: int, *, weights: bool = False) -> Kernel:
        """A product [m, k] x [k, n]; a weight gradient reads what it is added onto too."""
        values = m * k + k * n + m * n * (2 if weights else 1)
        return Kernel(
            kind="gemm",
            flops=2.0 * m * n * k,
            bytes=float(self.bytes_per_value * values),
            m=m,
            n=n,
            k=k,
            weights=weights,
        )

    def linear_backward(self, n: int, k: int) -> tuple[Kernel, Kernel]:
        """Gradients of the input and of the weight of a linear layer from ``k`` to ``n`` values."""
        return self.gemm(self.tokens, k, n), self.gemm(n, k, self.tokens, weights=True)

    def grouped(self, n: int, k: int, *, weights: bool = False) -> Kernel:
        """The products of all local experts, from ``k`` to ``n`` values for every token routed here."""
        rows, experts = self.routed, self.local_experts
        values = rows * (k + n) + experts * k * n * (2 if weights else 1)
        each = max(1, round(rows / experts))
        m, inner = (n, each) if weights else (each, k)
        return Kernel(
            kind="gemm",
            flops=2.0 * rows * n * k,
            bytes=float(self.bytes_per_value * values),
            m=m,
            n=k if weights else n,
            k=inner,
            batch=experts,
            weights=weights,
        )

    def memory(self, values: float) -> Kernel:
        """A kernel that reads and writes ``values`` values of the layer's precision."""
        return Kernel(kind="memory", flops=0.0, bytes=float(values * self.bytes_per_value))

    def attention(self, *, backward: bool = False) -> Kernel:
        """Flash attention of this rank's queries on the whole sequence; causal work is shared out evenly.

        Backward reads q, k, v, output and its gradient, and writes three gradients.
        """
        flops = CAUSAL_SHARE * 2.0 * self.micro_batch * self.seq_len**2 / self.cp * (self.q + self.o)
        own, others = self.tokens * (self.q + self.o), self.tokens * (self.k + self.v)
        return Kernel(
            kind="attention",
            flops=flops * (FLASH_BACKWARD_FLOPS if backward else 1.0),
            bytes=float((own + others) * (2 if backward else 1) * self.bytes_per_value),
            m=self.seq_len // self.cp,
            n=self.seq_len,
            k=self.decoder.head_dim,
            batch=self.micro_batch * self.q // self.decoder.head_dim,
        )


def _embedding_forward(s: Shape) -> tuple[Kernel, ...]:
    look_up = s.memory(2 * s.tokens * s.hidden)
    if s.decoder.positions == "learned":
        return look_up, s.memory(3 * s.outside * s.hidden)
    return (look_up,)


def _embedding_backward(s: Shape) -> tuple[Kernel, ...]:
    """A dense gradient of the table is zeroed, scattered into and added onto the accumulated one."""
    table = s.vocab * s.hidden
    scatter = s.memory(table + 3 * s.tokens * s.hidden)
    return tuple(replace(kernel, weights=True) for kernel in (scatter, s.memory(3 * table)))


def _block_forward(s: Shape) -> tuple[Kernel, ...]:
    return *_attention_forward(s), *_mlp_forward(s, s.decoder.ffn)


def _moe_block_forward(s: Shape) -> tuple[Kernel, ...]:
    return *_attention_forward(s), *_experts_forward(s)


def _block_backward(s: Shape) -> tuple[Kernel, ...]:
    """The forward in reverse; gradients of the two branches meet in an addition."""
    return *_mlp_backward(s, s.decoder.ffn), *_attention_backward(s)


def _moe_block_backward(s: Shape) -> tuple[Kernel, ...]:
    return *_experts_backward(s), *_attention_backward(s)


def _norm(s: Shape, *, backward: bool = False) -> Kernel:
    return s.memory((3 if backward else 2) * s.outside * s.hidden)


def _add(s: Shape) -> Kernel:
    """A residual, or the meeting of two branches' gradients."""
    return s.memory(3 * s.outside * s.hidden)


def projections(s: Shape) -> tuple[tuple[int, int], ...]:
    """(outputs, inputs) of the products that make queries, keys and values: one for all; or, latent
    (DeepSeek-V2), down to the latents, which every tensor-parallel rank has whole, and up from them."""
    decoder = s.decoder
    if not decoder.kv_rank:
        return ((s.q + s.k + s.v, s.hidden),)
    keys = (decoder.kv_size - decoder.kv_heads * decoder.rope_dim) // s.tp
    down = decoder.kv_rank + decoder.rope_dim
    up = (keys + s.v, decoder.kv_rank)
    if not decoder.q_rank:
        return (s.q, s.hidden), (down, s.hidden), up
    return (decoder.q_rank + down, s.hidden), (s.q, decoder.q_rank), up


def _attention_forward(s: Shape) -> tuple[Kernel, ...]:
    return (
        _norm(s),
        *(s.gemm(s.tokens, n, k) for n, k in projections(s)),
        *_per_head(s),
        s.attention(),
        s.gemm(s.tokens, s.hidden, s.o),
        _add(s),
    )


def _attention_backward(s: Shape) -> tuple[Kernel, ...]:
    return (
        *s.linear_backward(s.hidden, s.o),
        s.attention(backward=True),
        *_per_head(s),
        *(kernel for n, k in projections(s)[::-1] for kernel in s.linear_backward(n, k)),
        _norm(s, backward=True),
        _add(s),
    )


def _per_head(s: Shape) -> tuple[Kernel, ...]:
    """Rotary positions and norms of queries and keys, where the architecture has them."""
    passes = (s.decoder.positions == "rope") + s.decoder.qk_norm
    return (s.memory(2 * s.tokens * (s.q + s.k)),) * passes


def _mlp_forward(s: Shape, ffn: int) -> tuple[Kernel, ...]:
    return _norm(s), *_inner_forward(s, ffn // s.tp), _add(s)


def _inner_forward(s: Shape, ffn: int) -> tuple[Kernel, ...]:
    return (
        s.gemm(s.tokens, s.mlp_inputs * ffn, s.hidden),
        s.memory((s.mlp_inputs + 1) * s.tokens * ffn),
        s.gemm(s.tokens, s.hidden, ffn),
    )


def _mlp_backward(s: Shape, ffn: int) -> tuple[Kernel, ...]:
    return *_inner_backward(s, ffn // s.tp), _norm(s, backward=True), _add(s)


def _inner_backward(s: Shape, ffn: int) -> tuple[Kernel, ...]:
    return (
        *s.linear_backward(s.hidden, ffn),
        s.memory((2 * s.mlp_inputs + 1) * s.tokens * ffn),
        *s.linear_backward(s.mlp_inputs * ffn, s.hidden),
    )


def _experts_forward(s: Shape) -> tuple[Kernel, ...]:
    """Route, sort tokens by expert, the experts, and their outputs back in order, weighed and summed."""
    decoder, ffn = s.decoder, s.decoder.expert_ffn // s.tp
    routing = s.gemm(s.tokens, decoder.experts, s.hidden), s.memory(2 * s.tokens * decoder.experts)
    shared = _inner_forward(s, decoder.shared_ffn // s.tp) if decoder.shared_ffn else ()
    return (
        _norm(s),
        *routing,
        s.memory(2 * s.routed * s.hidden),
        s.grouped(s.mlp_inputs * ffn, s.hidden),
        s.memory((s.mlp_inputs + 1) * s.routed * ffn),
        s.grouped(s.hidden, ffn),
        s.memory((s.routed + s.tokens) * s.hidden),
        *shared,
        _add(s),
    )


def _experts_backward(s: Shape) -> tuple[Kernel, ...]:
    decoder, ffn = s.decoder, s.decoder.expert_ffn // s.tp
    shared = _inner_backward(s, decoder.shared_ffn // s.tp) if decoder.shared_ffn else ()
    return (
        *shared,
        s.memory((s.routed + s.tokens) * s.hidden),
        s.grouped(ffn, s.hidden),
        s.grouped(s.hidden, ffn, weights=True),
        s.memory((2 * s.mlp_inputs + 1) * s.routed * ffn),
        s.grouped(s.hidden, s.mlp_inputs * ffn),
        s.grouped(s.mlp_inputs * ffn, s.hidden, weights=True),
        s.memory(2 * s.routed * s.hidden),
        s.memory(3 * s.tokens * decoder.experts),
        *s.linear_backward(decoder.experts, s.hidden),
        _norm(s, backward=True),
        _add(s),
    )


def _head_forward(s: Shape) -> tuple[Kernel, ...]:
    """Final norm, logits, and the loss: a cast to fp32, then log-softmax."""
    logits = s.tokens * s.vocab
    cast = (
        (_logit_kernel(logits * (s.bytes_per_value + LOSS_BYTES)),) if s.bytes_per_value != LOSS_BYTES else ()
    )
    return (
        _norm(s),
        s.gemm(s.tokens, s.vocab, s.hidden),
        *cast,
        _logit_kernel(2 * logits * LOSS_BYTES),
    )


def _head_backward(s: Shape) -> tuple[Kernel, ...]:
    """The loss writes a dense gradient, log-softmax reads it and its output and writes another."""
    logits = s.tokens * s.vocab
    cast = (
        (_logit_kernel(logits * (s.bytes_per_value + LOSS_BYTES)),) if s.bytes_per_value != LOSS_BYTES else ()
    )
    return (
        _logit_kernel(logits * LOSS_BYTES),
        _logit_kernel(3 * logits * LOSS_BYTES),
        *cast,
        *s.linear_backward(s.vocab, s.hidden),
        _norm(s, backward=True),
    )


def _logit_kernel(size_bytes: float) -> Kernel:
    return Kernel(kind="memory", flops=0.0, bytes=float(size_bytes))


_FORWARD = {
    EMBEDDING: _embedding_forward,
    BLOCK: _block_forward,
    MOE_BLOCK: _moe_block_forward,
    HEAD: _head_forward,
}
_BACKWARD = {
    EMBEDDING: _embedding_backward,
    BLOCK: _block_backward,
    MOE_BLOCK: _moe_block_backward,
    HEAD: _head_backward,
}


def dispatch_bytes(
    decoder: Decoder, *, micro_batch: int, seq_len: int, cp: int, tp: int, bytes_per_value: int
) -> float:
    """Bytes that one rank sends in one all-to-all to or from the experts, all tokens for itself included.

    Every token goes to each of its experts; the tensor-parallel ranks share the tokens out (as Megatron-LM
    does, which wants sequence parallelism beside experts).
    """
    tokens = micro_batch * seq_len / cp / tp
    return tokens * decoder.experts_per_token * decoder.hidden * bytes_per_value
