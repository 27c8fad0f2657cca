"""Logits and loss on the last stage, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from machines import llama

from traincast.sim.memory.loss import loss_bytes
from traincast.sim.plan.software_stacks import STACKS, Stack

DECODER = llama(vocab=1024).decoder
TOKENS = 2 * 64
SHAPE = {"micro_batch": 2, "seq_len": 64, "bytes_per_value": 2}
VOCAB_PARALLEL, TORCH, SCALING = (STACKS[name] for name in ("megatron", "composer-2022", "scaling"))


@pytest.mark.parametrize(
    ("stack", "kept", "work"),
    [
        (VOCAB_PARALLEL, 4, 2 + 4),
        (TORCH, 4 + 2, 4 + 4),
        (replace(TORCH, keeps_logits=False), 4, 4 + 4),
        (STACKS["composer"], 2, 2),
    ],
)
def test_bytes_of_one_logit(stack: Stack, kept: int, work: int):
    """As kept between the passes, and beside that at work."""
    found = loss_bytes(DECODER, tp=1, stack=stack, **SHAPE)
    assert (found.kept, found.work) == (kept * TOKENS * 1024, work * TOKENS * 1024)


def test_tensor_parallel_ranks_share_the_vocabulary():
    one, four = (loss_bytes(DECODER, tp=tp, stack=VOCAB_PARALLEL, **SHAPE) for tp in (1, 4))
    assert one.kept == 4 * four.kept


def test_gathered_logits_are_whole_everywhere():
    """And received and cut in their own precision."""
    one, four = (loss_bytes(DECODER, tp=tp, stack=SCALING, **SHAPE) for tp in (1, 4))
    assert four.kept == one.kept
    assert four.work - one.work == 2 * 2 * TOKENS * 1024


def test_a_ranks_part_of_the_vocabulary_is_padded():
    """50,257 entries on 8 ranks are 6,283 each, padded to 6,400 of 128."""
    decoder = llama(vocab=50257).decoder
    assert loss_bytes(decoder, tp=8, stack=VOCAB_PARALLEL, **SHAPE).kept == 4 * TOKENS * 6400
