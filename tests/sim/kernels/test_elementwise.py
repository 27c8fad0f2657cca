"""Operations between products, as each stack has them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from machines import gpt, llama

from traincast.sim.kernels import elementwise
from traincast.sim.kernels.layer_shape import Shape
from traincast.sim.plan.software_stacks import STACKS

VALUES = 1000.0


def shape(stack: str, *, value: int = 2, gelu: bool = False, **own) -> Shape:
    decoder = (gpt(layers=2, hidden=256, heads=4, vocab=512) if gelu else llama()).decoder
    sizes = {"micro_batch": 2, "seq_len": 64, "tp": 1, "bytes_per_value": value}
    return Shape(decoder=decoder, stack=STACKS[stack], **(sizes | own))


@pytest.mark.parametrize(
    ("stack", "forward", "backward"),
    [("megatron", 4, 6), ("megatron-2022", 4, 10), ("torchtitan", 36, 76), ("scaling-torch-norm", 26, 50)],
)
def test_bytes_of_rmsnorm(stack: str, forward: int, backward: int):
    """For each bf16 value: read and written; twice backward; one by one, in fp32 or mostly not."""
    s = shape(stack)
    moved = [elementwise.norm(s, VALUES, backward=b).bytes / VALUES for b in (False, True)]
    assert moved == [forward, backward]


def test_autocast_norms_are_cast_to_fp32_and_back():
    """Unless the job is in fp32; torch has a kernel for LayerNorm, so eager stacks have it too."""
    s = shape("composer-2022", gelu=True)
    assert [elementwise.norm(s, VALUES, backward=b).bytes / VALUES for b in (False, True)] == [20, 32]
    assert elementwise.norm(shape("composer-2022", value=4, gelu=True), VALUES).bytes == 8 * VALUES
    assert elementwise.norm(shape("torchtitan", gelu=True), VALUES).bytes == 4 * VALUES


def test_norms_are_slower_than_copies():
    assert elementwise.norm(shape("megatron-2022"), VALUES, backward=True).speed < 0.5


def test_swiglu_is_one_kernel_or_two():
    """Five values read or written instead of three; gelu has no second factor."""
    assert elementwise.activation(shape("megatron"), VALUES).bytes == 3 * 2 * VALUES
    apart = elementwise.activation(shape("torchtitan"), VALUES)
    assert (apart.bytes, apart.launches) == (5 * 2 * VALUES, 2)
    gelus = {elementwise.activation(shape(s, gelu=True), VALUES).bytes for s in ("megatron", "torchtitan")}
    assert gelus == {2 * 2 * VALUES}


def test_rotary_positions_are_cast_unless_fused():
    assert elementwise.rope(shape("megatron"), VALUES).bytes == 4 * VALUES
    assert elementwise.rope(shape("torchtitan"), VALUES).bytes == (12 + 8) * VALUES


def test_gradients_are_accumulated_in_their_product_or_after_it():
    assert elementwise.accumulation(shape("megatron"), VALUES) == ()
    assert elementwise.accumulation(shape("composer"), VALUES) == ()
    (own,) = elementwise.accumulation(shape("megatron-2021"), VALUES)
    assert own.bytes == 6 * VALUES
    assert own.weights


def test_a_residual_takes_dropout_along():
    """Two factors read and a sum written, and a byte of the mask."""
    moved = [elementwise.residual(shape("megatron", dropout=d), VALUES).bytes for d in (False, True)]
    assert moved == [6 * VALUES, 7 * VALUES]


def test_masked_softmax_by_itself_is_in_fp32():
    s = shape("scaling", flash=False)
    assert elementwise.softmax(s, VALUES).bytes == 4 * VALUES
    eager = replace(s, fused_softmax=False)
    assert elementwise.softmax(eager, VALUES).bytes == (12 + 16 + 1) * VALUES


def test_gathered_logits_are_whole_on_every_rank():
    """So the loss takes as long on eight ranks as on one."""
    whole, parts = (
        [elementwise.loss(shape(stack, tp=tp)).bytes for tp in (1, 8)] for stack in ("scaling", "torchtitan")
    )
    assert whole[1] == pytest.approx(whole[0])
    assert parts[1] == pytest.approx(parts[0] / 8)


def test_unpadding_copies_inputs_and_output():
    """Queries, keys and values gathered, the output scattered into zeros."""
    s = shape("composer")
    moved = sum(k.bytes for k in elementwise.attention_copies(s))
    assert moved == 2 * s.tokens * (2 * (s.q + s.k + s.v) + 3 * s.o)
    assert elementwise.attention_copies(shape("megatron")) == ()
