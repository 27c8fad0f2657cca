"""What a layer computes: matrix products, attention and memory-bound kernels, forward and backward.

Shapes are those of one rank. Tensor parallelism splits as Megatron-LM does (Shoeybi et al. 2019): attention
by heads, MLPs by their inner width, embedding and head by vocabulary; norms and residuals are whole unless
sequence parallelism splits them (Korthikanti et al. 2022). Context parallelism gives each rank its part of
every sequence, expert parallelism its part of the experts. What is fused is the stack's (`elementwise.py`).
Assumptions: query, key and value are one product, so are gate and up; biases are added within products; the
experts of a rank are one grouped product; dropout after a block's halves is fused into the addition that
follows, but for its gradient.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..model.model import BLOCK, EMBEDDING, HEAD, MOE_BLOCK, Decoder
from . import elementwise
from .attention import attention_kernels
from .layer_shape import Kernel, Shape

ROUTING_LAUNCHES = 20
"""Small kernels that choose experts, count and sort their tokens, either way: a block with experts takes
about 50 launches more than a dense one (NVIDIA/Megatron-LM tests/functional_tests/test_cases, moe and gpt,
golden values of H100: 8 ms a block and micro-batch against 4.2)."""


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


def _embedding_forward(s: Shape) -> tuple[Kernel, ...]:
    look_up = s.memory(2 * s.tokens * s.hidden)
    positions = (s.memory(3 * s.outside * s.hidden),) if s.decoder.positions == "learned" else ()
    return look_up, *positions, *_dropped(s)


def _embedding_backward(s: Shape) -> tuple[Kernel, ...]:
    """A dense gradient of the table is zeroed, scattered into and added onto the accumulated one."""
    table = s.vocab * s.hidden
    scatter = s.memory(table + 3 * s.tokens * s.hidden)
    return tuple(replace(kernel, weights=True) for kernel in (*_dropped(s), scatter, s.memory(3 * table)))


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
    return elementwise.norm(s, s.outside * s.hidden, backward=backward)


def _add(s: Shape) -> Kernel:
    """A residual, or the meeting of two branches' gradients."""
    return s.memory(3 * s.outside * s.hidden)


def _residual(s: Shape) -> Kernel:
    return elementwise.residual(s, s.outside * s.hidden)


def _dropped(s: Shape) -> tuple[Kernel, ...]:
    return elementwise.dropout(s, s.outside * s.hidden)


def projections(s: Shape) -> tuple[tuple[int, int, int], ...]:
    """(outputs, inputs, tokens) of the products that make queries, keys and values: one for all; or, latent
    (DeepSeek-V2), down to the latents and up from them.

    The way down is whole on every tensor-parallel rank, over the tokens that are its own under sequence
    parallelism (Megatron Core's multi-latent attention, `linear_q_down_proj`).
    """
    decoder, tokens = s.decoder, s.tokens
    if not decoder.kv_rank:
        return ((s.q + s.k + s.v, s.hidden, tokens),)
    keys = (decoder.kv_size - decoder.kv_heads * decoder.rope_dim) // s.tp
    down = decoder.kv_rank + decoder.rope_dim
    up = (keys + s.v, decoder.kv_rank, tokens)
    if not decoder.q_rank:
        return (s.q, s.hidden, tokens), (down, s.hidden, s.outside), up
    return (decoder.q_rank + down, s.hidden, s.outside), (s.q, decoder.q_rank, tokens), up


def _attention_forward(s: Shape) -> tuple[Kernel, ...]:
    return (
        _norm(s),
        *(s.gemm(rows, n, k) for n, k, rows in projections(s)),
        *_latent_norms(s),
        *_per_head(s),
        *attention_kernels(s),
        s.gemm(s.tokens, s.hidden, s.o),
        _residual(s),
    )


def _attention_backward(s: Shape) -> tuple[Kernel, ...]:
    return (
        *_dropped(s),
        *_linear_backward(s, s.hidden, s.o, bias=s.decoder.output_bias),
        *attention_kernels(s, backward=True),
        *_per_head(s, backward=True),
        *_latent_norms(s, backward=True),
        *(
            kernel
            for n, k, rows in projections(s)[::-1]
            for kernel in _linear_backward(s, n, k, rows, bias=s.decoder.attention_bias)
        ),
        _norm(s, backward=True),
        _add(s),
    )


def _per_head(s: Shape, *, backward: bool = False) -> tuple[Kernel, ...]:
    """Rotary positions and norms of queries and keys, where the architecture has them."""
    values = s.tokens * (s.q + s.k)
    turned = (elementwise.rope(s, values),) if s.decoder.positions == "rope" else ()
    normed = (elementwise.norm(s, values, backward=backward),) if s.decoder.qk_norm else ()
    return (*turned, *normed) if backward else (*normed, *turned)


def _latent_norms(s: Shape, *, backward: bool = False) -> tuple[Kernel, ...]:
    """Norms of the latents of queries and of keys and values."""
    ranks = [rank for rank in (s.decoder.q_rank, s.decoder.kv_rank) if s.decoder.kv_rank and rank]
    return tuple(elementwise.norm(s, s.outside * rank, backward=backward) for rank in ranks)


def _mlp_forward(s: Shape, ffn: int) -> tuple[Kernel, ...]:
    return _norm(s), *_inner_forward(s, ffn // s.tp), _residual(s)


def _inner_forward(s: Shape, ffn: int) -> tuple[Kernel, ...]:
    return (
        *(s.gemm(s.tokens, width, s.hidden) for width in _inner_widths(s, ffn)),
        elementwise.activation(s, s.tokens * ffn),
        s.gemm(s.tokens, s.hidden, ffn),
    )


def _mlp_backward(s: Shape, ffn: int) -> tuple[Kernel, ...]:
    return *_dropped(s), *_inner_backward(s, ffn // s.tp), _norm(s, backward=True), _add(s)


def _inner_backward(s: Shape, ffn: int) -> tuple[Kernel, ...]:
    return (
        *_linear_backward(s, s.hidden, ffn, bias=s.decoder.mlp_bias),
        elementwise.activation(s, s.tokens * ffn, backward=True),
        *(
            kernel
            for width in _inner_widths(s, ffn)
            for kernel in _linear_backward(s, width, s.hidden, bias=s.decoder.mlp_bias)
        ),
    )


def _inner_widths(s: Shape, ffn: int) -> tuple[int, ...]:
    """Outputs of the products that lead into an MLP."""
    return (s.mlp_inputs * ffn,) if s.stack.fused_gate_up else (ffn,) * s.mlp_inputs


def _experts_forward(s: Shape) -> tuple[Kernel, ...]:
    """Route, sort tokens by expert, the experts, and their outputs back in order, weighed and summed."""
    decoder, ffn = s.decoder, s.decoder.expert_ffn // s.tp
    return (
        _norm(s),
        s.gemm(s.outside, decoder.experts, s.hidden),
        replace(s.memory(2 * s.outside * decoder.experts), launches=ROUTING_LAUNCHES),
        *_sorting(s),
        s.grouped(s.mlp_inputs * ffn, s.hidden),
        elementwise.activation(s, s.routed * ffn),
        s.grouped(s.hidden, ffn),
        *_sorting(s)[::-1],
        *_shared_forward(s),
        _add(s),
    )


def _experts_backward(s: Shape) -> tuple[Kernel, ...]:
    decoder, ffn = s.decoder, s.decoder.expert_ffn // s.tp
    return (
        *_shared_backward(s),
        *_sorting(s),
        s.grouped(ffn, s.hidden),
        s.grouped(s.hidden, ffn, weights=True),
        elementwise.activation(s, s.routed * ffn, backward=True),
        s.grouped(s.hidden, s.mlp_inputs * ffn),
        s.grouped(s.mlp_inputs * ffn, s.hidden, weights=True),
        *_sorting(s)[::-1],
        replace(s.memory(3 * s.outside * decoder.experts), launches=ROUTING_LAUNCHES),
        *_linear_backward(s, decoder.experts, s.hidden, s.outside),
        _norm(s, backward=True),
        _add(s),
    )


def _sorting(s: Shape) -> tuple[Kernel, ...]:
    """A copy of every token for each of its experts, by the rank it goes to; what arrives is sorted by the
    experts of this rank (Megatron Core's `MoEAlltoAllTokenDispatcher`). Back again is the same in reverse."""
    copies = s.memory((s.outside + s.sent) * s.hidden)
    arrives_in_order = s.ep == 1 or s.local_experts == 1
    return (copies,) if arrives_in_order else (copies, s.memory(2 * s.routed * s.hidden))


def _shared_forward(s: Shape) -> tuple[Kernel, ...]:
    """The experts that every token visits, added to the others; some scaled by a gate of one value."""
    if not s.decoder.shared_ffn:
        return ()
    gate = (s.gemm(s.outside, 1, s.hidden), s.memory(2 * s.outside * s.hidden))
    return *_inner_forward(s, s.decoder.shared_ffn // s.tp), *(gate if s.decoder.shared_gate else ()), _add(s)


def _shared_backward(s: Shape) -> tuple[Kernel, ...]:
    if not s.decoder.shared_ffn:
        return ()
    gate = (s.memory(4 * s.outside * s.hidden), *_linear_backward(s, 1, s.hidden, s.outside))
    return (
        *(gate if s.decoder.shared_gate else ()),
        *_inner_backward(s, s.decoder.shared_ffn // s.tp),
        _add(s),
    )


def _head_forward(s: Shape) -> tuple[Kernel, ...]:
    """Final norm, logits, and the loss."""
    return _norm(s), s.gemm(s.tokens, s.vocab, s.hidden), elementwise.loss(s)


def _head_backward(s: Shape) -> tuple[Kernel, ...]:
    return (
        elementwise.loss(s, backward=True),
        *_linear_backward(s, s.vocab, s.hidden),
        _norm(s, backward=True),
    )


def _linear_backward(
    s: Shape, n: int, k: int, rows: int | None = None, *, bias: bool = False
) -> tuple[Kernel, ...]:
    """Gradients of the input, the weight and the bias of a linear layer from ``k`` to ``n`` values.

    ``rows`` are its tokens, all of this rank where it is None.
    """
    rows = s.tokens if rows is None else rows
    return (
        s.gemm(rows, k, n),
        s.gemm(n, k, rows, weights=True),
        *elementwise.accumulation(s, n * k),
        *(elementwise.bias_gradient(s, rows * n) if bias else ()),
    )


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
