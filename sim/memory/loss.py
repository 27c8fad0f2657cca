"""Bytes of logits and loss on the last stage, by how the software computes the loss."""

from __future__ import annotations

from dataclasses import dataclass

from ..model.decoder import Decoder
from ..plan.software_stacks import DEFAULT_STACK, STACKS, Stack

FP32_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class LossBytes:
    """Bytes of one micro-batch's logits and loss on one rank."""

    kept: float
    """From its forward to its backward."""
    work: float
    """On top of that while its loss or the loss's backward is computed."""


def loss_bytes(
    decoder: Decoder,
    *,
    micro_batch: int,
    seq_len: int,
    tp: int,
    bytes_per_value: int,
    cp: int = 1,
    stack: Stack = STACKS[DEFAULT_STACK],
) -> LossBytes:
    """What the loss of one micro-batch takes on the last stage.

    `vocab_parallel` (Megatron-LM's core/tensor_parallel/cross_entropy.py): fp32 probabilities are kept and
    become the gradient in place; at work there are the logits and their fp32 copy. `torch`
    (torch.nn.functional.cross_entropy of logits in fp32): log-probabilities are kept, and backward has an
    fp32 gradient of them and one of the logits; the logits too where somebody still holds them. `fused`:
    logits are kept and their gradient is made at work. Gathered logits are whole on every tensor-parallel
    rank, besides the parts that were received and their gradient before it is cut into parts.
    """
    tokens = micro_batch * seq_len / cp
    own = tokens * _vocab_of_rank(decoder, tp, stack)
    logits = tokens * decoder.vocab if stack.gathers_logits else own
    gathering = 2 * logits * bytes_per_value if stack.gathers_logits and tp > 1 else 0.0
    if stack.loss == "fused":
        return LossBytes(kept=logits * bytes_per_value, work=logits * bytes_per_value + gathering)
    if stack.loss == "torch":
        held = bytes_per_value if stack.keeps_logits else 0
        return LossBytes(kept=logits * (FP32_BYTES + held), work=logits * 2 * FP32_BYTES + gathering)
    return LossBytes(kept=logits * FP32_BYTES, work=logits * (bytes_per_value + FP32_BYTES) + gathering)


def _vocab_of_rank(decoder: Decoder, tp: int, stack: Stack) -> int:
    """Logits of one token on one rank, padded as the software does."""
    multiple = stack.vocab_multiple
    return -(-decoder.vocab // (tp * multiple)) * multiple
