"""What plain torch under autocast keeps and holds: fp32 weights, half-precision copies of them for each
micro-batch in flight, an fp32 residual stream between layers.

The sizes are those of the tensors that autograd saves of `executor/model`, each storage once; of
two blocks of GPT-2 and of Llama, torch.cuda.memory_allocated differs from them by less than 1 %.
"""

from __future__ import annotations

from ..kernels.elementwise import MASK_BYTES
from ..kernels.fp8 import FP8, FP8_BYTES
from ..kernels.torch_kernels import KINDS, copies_output, without_flash
from ..model.decoder import Decoder
from ..model.layer import BLOCK, EMBEDDING, HEAD
from ..plan.job import Job
from ..plan.joined_backward import CHECKPOINTED
from ..plan.strategy import Strategy

FP32_BYTES = 4
INDEX_BYTES = 8
LOG_SUM_BYTES = 4
NORM_STATISTICS_BYTES = 8
"""Mean and scale of a row that a norm keeps, fp32."""


def covers(strategy: Strategy, kind: str) -> bool:
    """Whether a layer of ``kind`` is one of those here."""
    return strategy.software.autocast and kind in KINDS


def kept_bytes(job: Job, strategy: Strategy, kind: str, policy: str) -> float:
    """Bytes that a layer keeps between the passes of one micro-batch under the recompute ``policy``, with the
    weights that were cast for it."""
    decoder, b = job.model.decoder, job.bytes_per_value
    tokens = strategy.micro_batch * job.seq_len / strategy.cp
    outside = strategy.tp if strategy.sequence_parallel else 1
    mask = MASK_BYTES * decoder.hidden / outside if job.dropout else 0
    if kind == EMBEDDING:
        return tokens * (INDEX_BYTES + mask)
    if kind == BLOCK and policy == "full":
        return tokens * decoder.hidden * FP32_BYTES / outside
    if kind == BLOCK and policy == "selective_op":
        return tokens * _selective_op_bytes(decoder, strategy, b)
    casts = cast_bytes(job, strategy, kind)
    # What a norm reads is divided with the tokens, what the GEMMs behind it read is gathered.
    normed = (FP32_BYTES * decoder.hidden + NORM_STATISTICS_BYTES) / outside + b * decoder.hidden
    if kind == HEAD:
        return tokens * (normed + INDEX_BYTES) + casts
    read = FP8_BYTES if job.precision == FP8 else b
    inside = (
        2 * (normed + (read - b) * decoder.hidden)
        + _attention_bytes(job, strategy, policy)
        + _mlp_bytes(decoder, strategy, b, read)
        + 2 * mask
    )
    return tokens * inside + casts


def _selective_op_bytes(decoder: Decoder, strategy: Strategy, b: int) -> float:
    """Of a token: the block's input, queries, keys and values as one GEMM makes them, attention's output with
    its log-sums, and what leads into the MLP (`executor/model/recompute.py`)."""
    attention = decoder.q_size + decoder.kv_size + decoder.v_size + decoder.o_size
    inner = (decoder.mlp_matrices - 1) * decoder.ffn
    split = (attention + inner) * b + LOG_SUM_BYTES * decoder.heads
    return decoder.hidden * FP32_BYTES + split / strategy.tp


def _attention_bytes(job: Job, strategy: Strategy, policy: str) -> float:
    """Of a token. Queries, keys and values are parts of one product's result, which values keep whole; rotary
    positions make queries and keys anew; an output that is copied, or cast to fp8, stands twice."""
    decoder, b = job.model.decoder, job.bytes_per_value
    projected = decoder.q_size + decoder.kv_size + decoder.v_size
    values = projected + decoder.o_size
    turned = decoder.q_size + decoder.kv_size if decoder.positions == "rope" else 0
    cast = FP8_BYTES * decoder.o_size if job.precision == FP8 else 0
    if policy == "selective":
        read = cast - b * decoder.o_size if cast else 0
        return ((values + turned) * b + read) / strategy.tp
    if without_flash(decoder, b):
        # Scaled queries, scaled keys and values for every head, and the softmax's output; dropped out, the
        # mask and what is left besides.
        dropped = (b + MASK_BYTES) * job.seq_len * decoder.heads if job.dropout else 0
        own = (values + 3 * decoder.q_size + job.seq_len * decoder.heads) * b
        return (own + dropped) / strategy.tp
    if copies_output(decoder, b) and not strategy.software.compiles_blocks and not cast:
        values += decoder.o_size
    return ((values + turned) * b + cast + LOG_SUM_BYTES * decoder.heads) / strategy.tp


def _mlp_bytes(decoder: Decoder, strategy: Strategy, b: int, read: int) -> float:
    """Of a token: the activation's inputs, and its output as the GEMM after it reads it; of a gated one also
    silu's, unless blocks are compiled, which compute it again. Silu's output is kept with its factor, and the
    product of both by the GEMM alone."""
    compiled, gated = strategy.software.compiles_blocks, decoder.mlp_matrices == 3
    # Compiled, what a GEMM in fp8 gave is computed again (`kernels/torch_kernels.py`).
    inputs = 0 if compiled and read < b else decoder.mlp_matrices - 1 + (gated and not compiled)
    return (inputs * b + read) * decoder.ffn / strategy.tp


def cast_bytes(job: Job, strategy: Strategy, kind: str) -> float:
    """Bytes of a layer's weights in half precision; none in an fp32 job. Those in fp8 are kept from one
    micro-batch to the next (`float8_weight_bytes`)."""
    b, decoder = job.bytes_per_value, job.model.decoder
    if job.precision == FP8 and kind == BLOCK:
        b = FP8_BYTES if strategy.software.compiles_blocks else 0
    if b == FP32_BYTES or kind == EMBEDDING:
        return 0.0
    if kind == HEAD:
        return float(b * decoder.vocab * decoder.hidden / strategy.tp)
    return b * (decoder.attention_parameters + decoder.mlp_parameters) / strategy.tp


def float8_weight_bytes(job: Job, strategy: Strategy, kinds: tuple[str, ...]) -> float:
    """Bytes of the blocks' weights in fp8, as they are and transposed, which eager blocks keep for a step."""
    if job.precision != FP8 or strategy.software.compiles_blocks:
        return 0.0
    decoder = job.model.decoder
    each = decoder.attention_parameters + decoder.mlp_parameters
    return 2.0 * FP8_BYTES * kinds.count(BLOCK) * each / strategy.tp


def uncounted_casts(job: Job, strategy: Strategy, kinds: tuple[str, ...]) -> float:
    """Bytes of casts that forward caches until it is over, though nothing keeps them: of blocks that are
    checkpointed, which cast them again."""
    if strategy.recompute not in CHECKPOINTED:
        return 0.0
    return sum(cast_bytes(job, strategy, kind) for kind in kinds if kind == BLOCK)


def block_work_bytes(job: Job, strategy: Strategy) -> float:
    """Bytes that stand while a block's backward is at work, beside what all blocks keep: gradients of its
    inner values and of the stream, its largest weight's gradient as computed and as cast back."""
    decoder, b = job.model.decoder, job.bytes_per_value
    tokens = strategy.micro_batch * job.seq_len / strategy.cp
    outside = strategy.tp if strategy.sequence_parallel else 1
    inner = (2 * decoder.mlp_matrices - 1) * decoder.ffn / strategy.tp
    weight = (decoder.mlp_matrices - 1) * decoder.ffn * decoder.hidden / strategy.tp
    again = kept_bytes(job, strategy, BLOCK, "none") - kept_bytes(job, strategy, BLOCK, strategy.recompute)
    return (
        again + tokens * (b * inner + 2 * FP32_BYTES * decoder.hidden / outside) + (FP32_BYTES + b) * weight
    )


def table_gradient_bytes(job: Job, strategy: Strategy) -> float:
    """Bytes of the dense gradient of the embedding's table, which backward makes last. The head's stands
    until then too where they are one parameter."""
    decoder = job.model.decoder
    return FP32_BYTES * decoder.vocab * decoder.hidden / strategy.tp
