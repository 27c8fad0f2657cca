"""Bytes of activations that a layer keeps between forward and backward, for one micro-batch on one rank.

Korthikanti et al. 2022 (arXiv 2205.05198), equations 1 to 6, generalised from GPT to grouped-query
attention, gated MLPs, any precision and flash attention. Tensor parallelism splits what is between the
products (equation 2); norms' and products' inputs stay whole, as there is no sequence parallelism.
"""

from __future__ import annotations

from .model import BLOCK, EMBEDDING, Decoder

INDEX_BYTES = 8
"""Bytes of one token id (int64)."""

LOG_SUM_BYTES = 4
"""Bytes flash attention keeps for one query of one head (fp32 log-sum-exp; Dao 2023, section 3.1)."""

LOGIT_BYTES = 4
"""Bytes of one logit in the loss (fp32)."""


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
) -> float:
    """Bytes one block keeps.

    With ``flash`` False, ``dropout`` and 2-byte values a GPT block keeps sbh(34 + 5as/h) bytes (equation 1)
    and sbh(10 + 24/t + 5as/(ht)) on t tensor-parallel ranks (equation 2). Selective recompute drops what is
    inside attention (equation 6), full keeps the block's input alone.
    """
    tokens = micro_batch * seq_len
    if recompute == "full":
        return float(tokens * decoder.hidden * bytes_per_value)
    values = 4 * decoder.hidden + _split_values(decoder) / tp
    kept = tokens * values * bytes_per_value
    if dropout:
        kept += 2 * tokens * decoder.hidden
    if recompute == "selective":
        return float(kept)
    return float(
        kept + _inside_attention_bytes(decoder, tokens, seq_len, bytes_per_value, flash, dropout) / tp
    )


def _split_values(decoder: Decoder) -> float:
    """Values of one token that tensor parallelism splits.

    Queries, keys, values, the output projection's input; the MLP's first outputs and second input.
    """
    attention = 2 * decoder.q_size + 2 * decoder.kv_size
    if decoder.qk_norm:
        attention += decoder.q_size + decoder.kv_size
    inner = 2 if decoder.activation == "swiglu" else 1
    return attention + (inner + 1) * decoder.ffn


def _inside_attention_bytes(
    decoder: Decoder, tokens: int, seq_len: int, bytes_per_value: int, flash: bool, dropout: bool
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
) -> float:
    """Bytes one layer keeps as it is modelled here: flash attention, no dropout; logits not included."""
    tokens = micro_batch * seq_len
    if layer_kind == EMBEDDING:
        return float(tokens * INDEX_BYTES)
    if layer_kind == BLOCK:
        return block_activation_bytes(
            decoder,
            micro_batch=micro_batch,
            seq_len=seq_len,
            tp=tp,
            bytes_per_value=bytes_per_value,
            recompute=recompute,
        )
    return float(2 * tokens * decoder.hidden * bytes_per_value + tokens * INDEX_BYTES)


def logits_bytes(
    decoder: Decoder, *, micro_batch: int, seq_len: int, tp: int, bytes_per_value: int, in_flight: int
) -> float:
    """Bytes of logits and loss at the peak of the last stage.

    Every micro-batch in flight keeps its fp32 log-probabilities. The one at work also has the logits as
    computed and an fp32 gradient.
    """
    logits = micro_batch * seq_len * decoder.vocab / tp
    return logits * (in_flight * LOGIT_BYTES + bytes_per_value + LOGIT_BYTES)


# INTERIM (lead): replace these by the real ones.
def _interim(make):
    def bytes_of(*args, cp=1, ep=1, sequence_parallel=False, expert_imbalance=1.0, **kw):
        return make(*args, **kw)

    return bytes_of


layer_activation_bytes = _interim(layer_activation_bytes)
logits_bytes = _interim(logits_bytes)
