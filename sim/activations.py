"""Bytes of activations that a layer keeps between forward and backward, for one micro-batch on one rank.

Korthikanti et al. 2022 (arXiv 2205.05198), equations 1 to 6, generalised from GPT to grouped-query and
latent attention, gated MLPs, experts, any precision and flash attention. Tensor parallelism splits what is
between the products (equation 2); norms' and products' inputs stay whole, unless sequence parallelism
splits them too (equation 4). Context parallelism divides the tokens.
"""

from __future__ import annotations

from .model import BLOCKS, EMBEDDING, MOE_BLOCK, Decoder
from .shape import busiest_visits

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
    cp: int = 1,
    sequence_parallel: bool = False,
    experts: bool = False,
    ep: int = 1,
    expert_imbalance: float = 1.0,
) -> float:
    """Bytes one block keeps, with a dense MLP or with ``experts``.

    With ``flash`` False, ``dropout`` and 2-byte values a GPT block keeps sbh(34 + 5as/h) bytes (equation 1)
    and sbh(10 + 24/t + 5as/(ht)) on t tensor-parallel ranks (equation 2), sbh/t (34 + 5as/h) with
    ``sequence_parallel`` (equation 4). Selective recompute drops what is inside attention (equation 6), full
    keeps the block's input alone. Tokens as they reach the experts are whole on each tensor-parallel rank,
    and what comes back from them is shared out as norms are.
    """
    tokens = micro_batch * seq_len / cp
    outside = tp if sequence_parallel else 1
    if recompute == "full":
        return float(tokens * decoder.hidden * bytes_per_value / outside)
    split, whole, everywhere = _attention_values(decoder), 4 * decoder.hidden + _latent_values(decoder), 0.0
    if experts:
        visits = busiest_visits(decoder, ep, expert_imbalance)
        split += decoder.mlp_matrices * (visits * decoder.expert_ffn + decoder.shared_ffn)
        everywhere = visits * decoder.hidden
        whole += decoder.experts_per_token * decoder.hidden + decoder.experts
    else:
        split += decoder.mlp_matrices * decoder.ffn
    kept = tokens * (whole / outside + everywhere + split / tp) * bytes_per_value
    if dropout:
        kept += 2 * tokens * decoder.hidden / outside
    if recompute == "selective":
        return float(kept)
    inside = _inside_attention_bytes(decoder, tokens, seq_len, bytes_per_value, flash, dropout)
    return float(kept + inside / tp)


def _attention_values(decoder: Decoder) -> int:
    """Values of one token that tp splits: queries, keys, values, the output product's input."""
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
) -> float:
    """Bytes one layer keeps; logits not included.

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
        )
    return float(2 * tokens * decoder.hidden * bytes_per_value / outside + tokens * INDEX_BYTES)


def logits_bytes(
    decoder: Decoder,
    *,
    micro_batch: int,
    seq_len: int,
    tp: int,
    bytes_per_value: int,
    in_flight: int,
    cp: int = 1,
) -> float:
    """Bytes of logits and loss at the peak of the last stage.

    Every micro-batch in flight keeps its fp32 log-probabilities. The one at work also has the logits as
    computed and an fp32 gradient.
    """
    logits = micro_batch * seq_len / cp * decoder.vocab / tp
    return logits * (in_flight * LOGIT_BYTES + bytes_per_value + LOGIT_BYTES)
