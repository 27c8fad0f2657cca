"""The kernels of a decoder's layers: GEMMs, attention and memory-bound ones, forward and backward.

Shapes are those of one rank. Tensor parallelism splits as Megatron-LM does (Shoeybi et al. 2019): attention
by heads, MLPs by their inner width, embedding and head by vocabulary; norms and residuals are whole unless
sequence parallelism splits them (Korthikanti et al. 2022). Context parallelism gives each rank its part of
every sequence, expert parallelism its part of the experts. What is fused is the stack's (`elementwise.py`).
Assumptions: query, key and value are one GEMM, so are gate and up; biases are added within GEMMs; the
experts of a rank are one grouped GEMM; dropout after a block's halves is fused into the addition that
follows, but for its gradient.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..model.decoder import Decoder
from ..model.layer import BLOCK, EMBEDDING, HEAD, MOE_BLOCK
from . import elementwise, torch_kernels
from .attention_layer import attention_backward, attention_forward
from .experts import experts_backward, experts_forward
from .kernel import Kernel
from .layer_shape import Shape
from .linear import linear_backward
from .mlp import mlp_backward, mlp_forward


def forward_kernels(decoder: Decoder, layer_kind: str, **shape: Any) -> tuple[Kernel, ...]:
    """Kernels of one layer's forward on one rank for one micro-batch, in order.

    ``layer_kind`` is `embedding`, `block`, `moe_block` or `head`; ``shape`` are the fields of `Shape` after
    the decoder.
    """
    own = Shape(decoder=decoder, **shape)
    if own.stack.autocast:
        return torch_kernels.forward(own, layer_kind)
    return _FORWARD[layer_kind](own)


def backward_kernels(decoder: Decoder, layer_kind: str, **shape: Any) -> tuple[Kernel, ...]:
    """Kernels of one layer's backward, without anything computed again; arguments as `forward_kernels`."""
    own = Shape(decoder=decoder, **shape)
    if own.stack.autocast:
        return torch_kernels.backward(own, layer_kind)
    return _BACKWARD[layer_kind](own)


def input_gradient_kernels(decoder: Decoder, layer_kind: str, **shape: Any) -> tuple[Kernel, ...]:
    """The part of `backward_kernels` that the layer before waits for."""
    return tuple(k for k in backward_kernels(decoder, layer_kind, **shape) if not k.weights)


def weight_gradient_kernels(decoder: Decoder, layer_kind: str, **shape: Any) -> tuple[Kernel, ...]:
    """The rest of `backward_kernels`: gradients of weights alone."""
    return tuple(k for k in backward_kernels(decoder, layer_kind, **shape) if k.weights)


def _embedding_forward(s: Shape) -> tuple[Kernel, ...]:
    look_up = s.memory(2 * s.tokens * s.hidden)
    positions = (s.memory(3 * s.outside * s.hidden),) if s.decoder.positions == "learned" else ()
    return look_up, *positions, *elementwise.hidden_dropout(s)


def _embedding_backward(s: Shape) -> tuple[Kernel, ...]:
    """A dense gradient of the table is zeroed, scattered into and added onto the accumulated one."""
    table = s.vocab * s.hidden
    scatter = s.memory(table + 3 * s.tokens * s.hidden)
    return tuple(
        replace(kernel, weights=True)
        for kernel in (*elementwise.hidden_dropout(s), scatter, s.memory(3 * table))
    )


def _block_forward(s: Shape) -> tuple[Kernel, ...]:
    return *attention_forward(s), *mlp_forward(s, s.decoder.ffn)


def _moe_block_forward(s: Shape) -> tuple[Kernel, ...]:
    return *attention_forward(s), *experts_forward(s)


def _block_backward(s: Shape) -> tuple[Kernel, ...]:
    """The forward in reverse; gradients of the two branches meet in an addition."""
    return *mlp_backward(s, s.decoder.ffn), *attention_backward(s)


def _moe_block_backward(s: Shape) -> tuple[Kernel, ...]:
    return *experts_backward(s), *attention_backward(s)


def _head_forward(s: Shape) -> tuple[Kernel, ...]:
    """Final norm, logits, and the loss."""
    return elementwise.hidden_norm(s), s.gemm(s.tokens, s.vocab, s.hidden), elementwise.loss(s)


def _head_backward(s: Shape) -> tuple[Kernel, ...]:
    return (
        elementwise.loss(s, backward=True),
        *linear_backward(s, s.vocab, s.hidden),
        elementwise.hidden_norm(s, backward=True),
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
