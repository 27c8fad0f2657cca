"""What a layer computes: matrix products, attention and memory-bound kernels, forward and backward.

Shapes are those of one tensor-parallel rank, split as in Megatron-LM (Shoeybi et al. 2019): attention by
heads, the MLP by its inner width, embedding and head by vocabulary; norms and residuals are not split.
Assumptions: query, key and value are one product, so are gate and up; biases are added within products;
attention is a flash kernel (Dao 2023) that skips the masked half; a weight gradient is added onto the
accumulated one within its product; the loss is computed in fp32. No dropout.
"""

from __future__ import annotations

from dataclasses import dataclass

from .model import BLOCK, EMBEDDING, HEAD, Decoder, Model

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


def forward_kernels(
    decoder: Decoder, layer_kind: str, *, micro_batch: int, seq_len: int, tp: int, bytes_per_value: int
) -> tuple[Kernel, ...]:
    """Kernels of one layer's forward on one tensor-parallel rank, in order.

    ``layer_kind`` is `embedding`, `block` or `head`; ``bytes_per_value`` that of weights and activations.
    """
    shape = _Shape(decoder, micro_batch, seq_len, tp, bytes_per_value)
    return {EMBEDDING: _embedding_forward, BLOCK: _block_forward, HEAD: _head_forward}[layer_kind](shape)


def backward_kernels(
    decoder: Decoder, layer_kind: str, *, micro_batch: int, seq_len: int, tp: int, bytes_per_value: int
) -> tuple[Kernel, ...]:
    """Kernels of one layer's backward, without anything computed again; arguments as `forward_kernels`."""
    shape = _Shape(decoder, micro_batch, seq_len, tp, bytes_per_value)
    return {EMBEDDING: _embedding_backward, BLOCK: _block_backward, HEAD: _head_backward}[layer_kind](shape)


class _Shape:
    """Sizes on one tensor-parallel rank, and constructors of kernels over them."""

    def __init__(self, decoder: Decoder, micro_batch: int, seq_len: int, tp: int, bytes_per_value: int):
        self.decoder = decoder
        self.value = bytes_per_value
        self.micro_batch, self.seq_len = micro_batch, seq_len
        self.tokens = micro_batch * seq_len
        self.hidden = decoder.hidden
        self.q = decoder.q_size // tp
        self.kv = decoder.kv_size // tp
        self.ffn = decoder.ffn // tp
        self.mlp_inputs = 2 if decoder.activation == "swiglu" else 1
        self.vocab = -(-decoder.vocab // tp)

    def gemm(self, m: int, n: int, k: int, *, accumulate: bool = False) -> Kernel:
        """A product [m, k] x [k, n]; ``accumulate`` reads the output too."""
        values = m * k + k * n + m * n * (2 if accumulate else 1)
        return Kernel(kind="gemm", flops=2.0 * m * n * k, bytes=float(self.value * values), m=m, n=n, k=k)

    def linear_backward(self, n: int, k: int) -> tuple[Kernel, Kernel]:
        """Gradients of the input and of the weight of a linear layer from ``k`` to ``n`` values."""
        return self.gemm(self.tokens, k, n), self.gemm(n, k, self.tokens, accumulate=True)

    def memory(self, values: float) -> Kernel:
        """A kernel that reads and writes ``values`` values of the layer's precision."""
        return Kernel(kind="memory", flops=0.0, bytes=float(values * self.value))

    def attention(self, *, backward: bool = False) -> Kernel:
        """Flash attention; backward reads q, k, v, output and its gradient, and writes three gradients."""
        flops = CAUSAL_SHARE * 4.0 * self.micro_batch * self.seq_len**2 * self.q
        values = self.tokens * (4 * self.q + 4 * self.kv if backward else 2 * self.q + 2 * self.kv)
        return Kernel(
            kind="attention",
            flops=flops * (FLASH_BACKWARD_FLOPS if backward else 1.0),
            bytes=float(values * self.value),
            m=self.seq_len,
            n=self.seq_len,
            k=self.decoder.head_dim,
            batch=self.micro_batch * self.q // self.decoder.head_dim,
        )


def _embedding_forward(s: _Shape) -> tuple[Kernel, ...]:
    look_up = s.memory(2 * s.tokens * s.hidden)
    if s.decoder.positions == "learned":
        return look_up, s.memory(3 * s.tokens * s.hidden)
    return (look_up,)


def _embedding_backward(s: _Shape) -> tuple[Kernel, ...]:
    """A dense gradient of the table is zeroed, scattered into and added onto the accumulated one."""
    table = s.vocab * s.hidden
    scatter = s.memory(table + 3 * s.tokens * s.hidden)
    return scatter, s.memory(3 * table)


def _block_forward(s: _Shape) -> tuple[Kernel, ...]:
    tokens, hidden = s.tokens, s.hidden
    norm, add = s.memory(2 * tokens * hidden), s.memory(3 * tokens * hidden)
    return (
        norm,
        s.gemm(tokens, s.q + 2 * s.kv, hidden),
        *_per_head(s),
        s.attention(),
        s.gemm(tokens, hidden, s.q),
        add,
        norm,
        s.gemm(tokens, s.mlp_inputs * s.ffn, hidden),
        s.memory((s.mlp_inputs + 1) * tokens * s.ffn),
        s.gemm(tokens, hidden, s.ffn),
        add,
    )


def _block_backward(s: _Shape) -> tuple[Kernel, ...]:
    """The forward in reverse; gradients of the two branches meet in an addition."""
    tokens, hidden = s.tokens, s.hidden
    norm, add = s.memory(3 * tokens * hidden), s.memory(3 * tokens * hidden)
    return (
        *s.linear_backward(hidden, s.ffn),
        s.memory((2 * s.mlp_inputs + 1) * tokens * s.ffn),
        *s.linear_backward(s.mlp_inputs * s.ffn, hidden),
        norm,
        add,
        *s.linear_backward(hidden, s.q),
        s.attention(backward=True),
        *_per_head(s),
        *s.linear_backward(s.q + 2 * s.kv, hidden),
        norm,
        add,
    )


def _per_head(s: _Shape) -> tuple[Kernel, ...]:
    """Rotary positions and norms of queries and keys, where the architecture has them."""
    passes = (s.decoder.positions == "rope") + s.decoder.qk_norm
    return (s.memory(2 * s.tokens * (s.q + s.kv)),) * passes


def _head_forward(s: _Shape) -> tuple[Kernel, ...]:
    """Final norm, logits, and the loss: a cast to fp32, then log-softmax."""
    logits = s.tokens * s.vocab
    cast = (_logit_kernel(logits * (s.value + LOSS_BYTES)),) if s.value != LOSS_BYTES else ()
    return (
        s.memory(2 * s.tokens * s.hidden),
        s.gemm(s.tokens, s.vocab, s.hidden),
        *cast,
        _logit_kernel(2 * logits * LOSS_BYTES),
    )


def _head_backward(s: _Shape) -> tuple[Kernel, ...]:
    """The loss writes a dense gradient, log-softmax reads it and its output and writes another."""
    logits = s.tokens * s.vocab
    cast = (_logit_kernel(logits * (s.value + LOSS_BYTES)),) if s.value != LOSS_BYTES else ()
    return (
        _logit_kernel(logits * LOSS_BYTES),
        _logit_kernel(3 * logits * LOSS_BYTES),
        *cast,
        *s.linear_backward(s.vocab, s.hidden),
        s.memory(3 * s.tokens * s.hidden),
    )


def _logit_kernel(size_bytes: float) -> Kernel:
    return Kernel(kind="memory", flops=0.0, bytes=float(size_bytes))


def layer_flops(decoder: Decoder, layer_kind: str, *, tokens: int, seq_len: int) -> float:
    """FLOPs of one layer's forward over ``tokens`` tokens, as papers count them.

    Products only, and the whole score matrix although half of it is masked (Narayanan et al. 2021,
    appendix; PaLM, appendix B). Backward is twice as much.
    """
    if layer_kind == EMBEDDING:
        return 0.0
    if layer_kind == HEAD:
        return 2.0 * tokens * decoder.hidden * decoder.vocab
    return tokens * (2.0 * _block_matrix_values(decoder)) + attention_flops(
        decoder, tokens=tokens, seq_len=seq_len
    )


def attention_flops(decoder: Decoder, *, tokens: int, seq_len: int) -> float:
    """FLOPs of one block's two attention products forward, the masked half included."""
    return 4.0 * tokens * seq_len * decoder.q_size


def _block_matrix_values(decoder: Decoder) -> int:
    inner = 2 if decoder.activation == "swiglu" else 1
    attention = decoder.hidden * (2 * decoder.q_size + 2 * decoder.kv_size)
    return attention + (inner + 1) * decoder.hidden * decoder.ffn


def model_flops_per_token(model: Model, seq_len: int) -> float:
    """FLOPs that training one token needs, forward and backward: the numerator of MFU.

    Three forwards' worth: 6 for every value of a matrix, and 12 x layers x q_size x seq_len for attention
    (PaLM, Chowdhery et al. 2022, appendix B; the LM head counts, look-ups do not).
    """
    return 3.0 * sum(
        layer_flops(model.decoder, layer.kind, tokens=1, seq_len=seq_len) for layer in model.layers
    )


def hardware_flops_per_token(model: Model, seq_len: int, recompute: str) -> float:
    """FLOPs that are done for one token with what ``recompute`` computes again: the numerator of HFU.

    `selective` repeats attention's two products, `full` a whole block. (Korthikanti et al. 2022 count three
    times as much for `selective`: their factor is 1 + s/3h where these products give 1 + 2s/9h.)
    """
    decoder = model.decoder
    again = {
        "none": 0.0,
        "selective": attention_flops(decoder, tokens=1, seq_len=seq_len),
        "full": layer_flops(decoder, BLOCK, tokens=1, seq_len=seq_len),
    }[recompute]
    return model_flops_per_token(model, seq_len) + decoder.layers * again


# INTERIM (lead): replace these by the real ones.
def dispatch_bytes(decoder, *, micro_batch, seq_len, cp, tp, bytes_per_value):
    return 0.0


def _interim(make, cut=None):
    def kernels_of(*args, cp=1, ep=1, sequence_parallel=False, expert_imbalance=1.0, **kw):
        own = make(*args, **kw)
        return own if cut is None else own[cut]

    return kernels_of


input_gradient_kernels = _interim(backward_kernels, slice(0, None, 2))
weight_gradient_kernels = _interim(backward_kernels, slice(1, None, 2))
forward_kernels = _interim(forward_kernels)
backward_kernels = _interim(backward_kernels)
