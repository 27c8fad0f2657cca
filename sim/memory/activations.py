"""Bytes of activations that a layer keeps between forward and backward, for one micro-batch on one rank.

Korthikanti et al. 2022 (arXiv 2205.05198), equations 1 to 6, generalised from GPT to grouped-query and
latent attention, gated MLPs, experts, any precision and flash attention. Tensor parallelism splits what is
between the GEMMs (equation 2); norms' and GEMMs' inputs stay whole, unless sequence parallelism
splits them too (equation 4). Context parallelism divides the tokens. A software stack that fuses less keeps
more (`stacks.Stack`): fp32 copies of what a norm reads, the output of silu.
"""

from __future__ import annotations

from ..model.decoder import Decoder
from ..model.expert_imbalance import busiest_visits
from ..model.layer import BLOCKS, EMBEDDING, MOE_BLOCK
from ..plan.software_stacks import DEFAULT_STACK, STACKS, Stack

INDEX_BYTES = 8
"""Bytes of one token id (int64)."""

LOG_SUM_BYTES = 4
"""Bytes flash attention keeps for one query of one head (fp32 log-sum-exp; Dao 2023, section 3.1)."""

FP32_BYTES = 4

MEGATRON = STACKS[DEFAULT_STACK]


def block_activation_bytes(
    decoder: Decoder,
    *,
    micro_batch: int,
    seq_len: int,
    tp: int = 1,
    bytes_per_value: int = 2,
    recompute: str = "none",
    flash: bool = True,
    dropout: bool = False,
    cp: int = 1,
    sequence_parallel: bool = False,
    experts: bool = False,
    ep: int = 1,
    expert_imbalance: float = 1.0,
    stack: Stack = MEGATRON,
    input_bytes: int = 0,
) -> float:
    """Bytes one block keeps, with a dense MLP or with ``experts``.

    With ``flash`` False, ``dropout`` and 2-byte values a GPT block keeps sbh(34 + 5as/h) bytes (equation 1)
    and sbh(10 + 24/t + 5as/(ht)) on t tensor-parallel ranks (equation 2), sbh/t (34 + 5as/h) with
    ``sequence_parallel`` (equation 4). Selective recompute drops what is inside attention (equation 6), full
    keeps the block's input alone. Tokens as they reach the experts are whole on each tensor-parallel rank,
    and what comes back from them is shared out as norms are. ``input_bytes`` are those of one value that a
    GEMM reads, where it is cast before (fp8); 0 is ``bytes_per_value``.
    """
    tokens = micro_batch * seq_len / cp
    outside = tp if sequence_parallel else 1
    if recompute == "full":
        return float(tokens * decoder.hidden * bytes_per_value / outside)
    gathered = outside if stack.regathers_inputs else 1
    read = input_bytes or bytes_per_value
    split = bytes_per_value * _attention_values(decoder)
    # Flash attention wants its output as it was, besides what the GEMM after it reads.
    split += read * decoder.o_size if read < bytes_per_value else 0
    whole, everywhere = bytes_per_value * _latent_values(decoder), 0.0
    each = _mlp_bytes(decoder, stack, bytes_per_value, read)
    if experts:
        visits = busiest_visits(decoder, ep, expert_imbalance)
        split += each * (visits * decoder.expert_ffn + decoder.shared_ffn)
        everywhere = read * visits * decoder.hidden
        whole += bytes_per_value * (decoder.experts_per_token * decoder.hidden + decoder.experts)
    else:
        split += each * decoder.ffn
    norms = norm_input_bytes(stack, bytes_per_value) / outside + read / gathered
    kept = tokens * (2 * decoder.hidden * norms + whole / outside + everywhere + split / tp)
    if dropout:
        kept += 2 * tokens * decoder.hidden / outside
    if recompute == "selective":
        return float(kept)
    inside = _inside_attention_bytes(decoder, tokens, seq_len, bytes_per_value, flash, dropout)
    return float(kept + inside / tp)


def norm_input_bytes(stack: Stack, bytes_per_value: int) -> int:
    """Bytes that a norm keeps for one value that it reads, besides what it writes.

    Its input; cast to fp32 before it, the copy (autocast); step by step, that copy and the normalised values,
    which the gain is multiplied with (torch.nn.functional.rms_norm, Llama's RMSNorm).
    """
    return {
        "autocast": FP32_BYTES,
        "eager": FP32_BYTES + bytes_per_value,
        "eager_half": 2 * bytes_per_value,
    }.get(stack.norm, bytes_per_value)


def _mlp_bytes(decoder: Decoder, stack: Stack, bytes_per_value: int, read: int) -> int:
    """Bytes kept for one of an MLP's inner width: what goes into the activation, and what comes out of it,
    which the last GEMM reads; of a gated one step by step also the output of silu."""
    gated = decoder.mlp_matrices == 3
    inputs = decoder.mlp_matrices - 1 + (gated and not stack.fused_activation)
    return inputs * bytes_per_value + read


def _attention_values(decoder: Decoder) -> int:
    """Values of one token that tp splits: queries, keys, values, the output GEMM's input."""
    values = decoder.q_size + decoder.kv_size + decoder.v_size + decoder.o_size
    return values + (decoder.q_size + decoder.kv_size if decoder.qk_norm else 0)


def _latent_values(decoder: Decoder) -> int:
    """Values of one token's latents and their norms, and of the keys' shared part."""
    return 2 * (decoder.q_rank + decoder.kv_rank) + decoder.rope_dim if decoder.kv_rank else 0


def _inside_attention_bytes(
    decoder: Decoder, tokens: float, seq_len: int, bytes_per_value: int, flash: bool, dropout: bool
) -> float:
    """Unfused attention keeps the softmax's output, its dropout mask and the dropped output."""
    if flash:
        return tokens * decoder.heads * LOG_SUM_BYTES
    per_score = 2 * bytes_per_value + 1 if dropout else bytes_per_value
    return tokens * seq_len * decoder.heads * per_score


def layer_activation_bytes(
    decoder: Decoder,
    layer_kind: str,
    *,
    micro_batch: int,
    seq_len: int,
    tp: int,
    bytes_per_value: int,
    recompute: str,
    cp: int = 1,
    ep: int = 1,
    sequence_parallel: bool = False,
    expert_imbalance: float = 1.0,
    flash: bool = True,
    dropout: bool = False,
    stack: Stack = MEGATRON,
    input_bytes: int = 0,
) -> float:
    """Bytes one layer keeps; logits not included (`loss.py`).

    ``ep`` changes nothing while routing is balanced: a rank's experts work on as many tokens as it sends.
    """
    tokens = micro_batch * seq_len / cp
    outside = tp if sequence_parallel else 1
    if layer_kind == EMBEDDING:
        return float(tokens * INDEX_BYTES + (tokens * decoder.hidden / outside if dropout else 0.0))
    if layer_kind in BLOCKS:
        return block_activation_bytes(
            decoder,
            micro_batch=micro_batch,
            seq_len=seq_len,
            tp=tp,
            bytes_per_value=bytes_per_value,
            recompute=recompute,
            flash=flash,
            dropout=dropout,
            cp=cp,
            sequence_parallel=sequence_parallel,
            experts=layer_kind == MOE_BLOCK,
            ep=ep,
            expert_imbalance=expert_imbalance,
            stack=stack,
            input_bytes=input_bytes,
        )
    gathered = outside if stack.regathers_inputs else 1
    values = norm_input_bytes(stack, bytes_per_value) / outside + bytes_per_value / gathered
    return float(tokens * (decoder.hidden * values + INDEX_BYTES))


def layer_workspace_bytes(
    decoder: Decoder,
    layer_kind: str,
    *,
    micro_batch: int,
    seq_len: int,
    tp: int,
    bytes_per_value: int,
    cp: int = 1,
    ep: int = 1,
    expert_imbalance: float = 1.0,
    flash: bool = True,
    **_: object,
) -> float:
    """Bytes of the gradients that stand at once while one block's backward is at work.

    In the MLP those of its inner values and of its input and output; in unfused attention those of the
    scores before and after the softmax. The embedding's and the head's are counted elsewhere: the table's
    gradient among the gradients, the logits' with the loss.
    """
    if layer_kind not in BLOCKS:
        return 0.0
    tokens = micro_batch * seq_len / cp
    inner = decoder.mlp_matrices * _inner_width(decoder, _visits(decoder, layer_kind, ep, expert_imbalance))
    mlp = tokens * (inner / tp + 2 * decoder.hidden)
    attention = 0.0 if flash else 2 * tokens * seq_len * decoder.heads / tp
    return float(bytes_per_value * max(mlp, attention))


def layer_weight_gradient_bytes(
    decoder: Decoder,
    layer_kind: str,
    *,
    micro_batch: int,
    seq_len: int,
    tp: int,
    bytes_per_value: int,
    cp: int = 1,
    ep: int = 1,
    sequence_parallel: bool = False,
    expert_imbalance: float = 1.0,
    **_: object,
) -> float:
    """Bytes that a layer's gradients of weights need once those of its inputs are there: what goes into each
    GEMM and the gradient of what comes out of it.

    A GPT block's are 32 sbh bytes in half precision (Qi et al. 2023, Zero Bubble, table 1).
    """
    tokens = micro_batch * seq_len / cp
    outside = tp if sequence_parallel else 1
    if layer_kind not in BLOCKS:
        outputs = 0 if layer_kind == EMBEDDING else decoder.vocab / tp
        return float(tokens * bytes_per_value * (decoder.hidden / outside + outputs))
    visits = _visits(decoder, layer_kind, ep, expert_imbalance)
    split = _attention_values(decoder) + decoder.mlp_matrices * _inner_width(decoder, visits)
    whole = _latent_values(decoder) + (decoder.experts if visits else 0)
    values = (whole + 4 * decoder.hidden) / outside + 2 * visits * decoder.hidden + split / tp
    return float(tokens * bytes_per_value * values)


def layer_output_gradient_bytes(
    decoder: Decoder,
    layer_kind: str,
    *,
    micro_batch: int,
    seq_len: int,
    tp: int,
    bytes_per_value: int,
    cp: int = 1,
    ep: int = 1,
    sequence_parallel: bool = False,
    expert_imbalance: float = 1.0,
    **_: object,
) -> float:
    """Bytes of the gradients of what comes out of each GEMM of a layer and out of each norm, from which those
    of its weights are made."""
    tokens = micro_batch * seq_len / cp
    outside = tp if sequence_parallel else 1
    if layer_kind not in BLOCKS:
        values = decoder.hidden / outside
        return float(
            tokens * bytes_per_value * (values if layer_kind == EMBEDDING else values + decoder.vocab / tp)
        )
    visits = _visits(decoder, layer_kind, ep, expert_imbalance)
    split = _attention_values(decoder) - decoder.o_size
    split += (decoder.mlp_matrices - 1) * _inner_width(decoder, visits)
    whole = 4 * decoder.hidden + _latent_values(decoder) + (decoder.experts if visits else 0)
    return float(tokens * bytes_per_value * (whole / outside + visits * decoder.hidden + split / tp))


def _visits(decoder: Decoder, layer_kind: str, ep: int, expert_imbalance: float) -> float:
    """Experts of the busiest rank that one token of a rank visits; 0 in a dense block."""
    return busiest_visits(decoder, ep, expert_imbalance) if layer_kind == MOE_BLOCK else 0.0


def _inner_width(decoder: Decoder, visits: float) -> float:
    """Of a token's MLPs together: those of so many experts and of the shared ones, or the dense one's."""
    return visits * decoder.expert_ffn + decoder.shared_ffn if visits else decoder.ffn
