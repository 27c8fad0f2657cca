"""Activations against the equations of Korthikanti et al. 2022, and what divides them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from machines import gpt, llama

from traincast.sim.memory.activations import (
    block_activation_bytes,
    layer_activation_bytes,
    layer_output_gradient_bytes,
    layer_weight_gradient_bytes,
    layer_workspace_bytes,
)
from traincast.sim.memory.layer_bytes import kept_bytes
from traincast.sim.model.hf_config import read_model
from traincast.sim.model.layer import BLOCK, EMBEDDING, HEAD, MOE_BLOCK
from traincast.sim.plan.job import Job
from traincast.sim.plan.software_stacks import STACKS
from traincast.sim.plan.strategy import Strategy

S, B, H, A = 2048, 2, 1024, 16
GPT = gpt(4, H, A, 51200).decoder
UNFUSED = {"micro_batch": B, "seq_len": S, "bytes_per_value": 2, "flash": False, "dropout": True}
EXPERTS = {"experts": 8, "experts_per_token": 2, "expert_ffn": 128, "shared_ffn": 64}


@pytest.mark.parametrize("t", [1, 2, 8])
def test_equations_2_and_4(t: int):
    """sbh(10 + 24/t + 5as/(ht)), and with sequence parallelism sbh/t (34 + 5as/h)."""
    inside = 5 * A * S / H
    assert block_activation_bytes(GPT, tp=t, **UNFUSED) == pytest.approx(
        S * B * H * (10 + 24 / t + inside / t)
    )
    split = block_activation_bytes(GPT, tp=t, sequence_parallel=True, **UNFUSED)
    assert split == pytest.approx(S * B * H / t * (34 + inside))


def test_equation_6_drops_what_is_inside_attention():
    """Selective recompute with sequence parallelism: 34 sbh/t."""
    kept = block_activation_bytes(GPT, tp=4, sequence_parallel=True, recompute="selective", **UNFUSED)
    assert kept == pytest.approx(34 * S * B * H / 4)


def test_full_recompute_keeps_the_input():
    """2sbh, a part of it with sequence parallelism."""
    assert block_activation_bytes(GPT, tp=4, recompute="full", **UNFUSED) == 2 * S * B * H
    split = block_activation_bytes(GPT, tp=4, recompute="full", sequence_parallel=True, **UNFUSED)
    assert split == 2 * S * B * H / 4


@pytest.mark.parametrize("kind", [EMBEDDING, BLOCK, MOE_BLOCK, HEAD])
def test_context_parallelism_divides_all(kind: str):
    decoder = llama(**EXPERTS).decoder
    shape = {"micro_batch": 2, "seq_len": 64, "tp": 2, "bytes_per_value": 2, "recompute": "none"}
    one, four = (layer_activation_bytes(decoder, kind, cp=cp, **shape) for cp in (1, 4))
    assert one == 4 * four


def test_experts_keep_tokens_as_often_as_they_visit():
    """Beside a block without MLP: inputs and outputs of two experts a token, three inner values each, the
    shared experts' three, and the router's eight."""
    decoder = llama(**EXPERTS).decoder
    shape = {"micro_batch": 1, "seq_len": 64, "bytes_per_value": 2}
    dense = block_activation_bytes(decoder, **shape) - 64 * 3 * decoder.ffn * 2
    experts = block_activation_bytes(decoder, experts=True, **shape)
    assert experts - dense == 64 * 2 * (2 * 2 * 256 + 3 * (2 * 128 + 64) + 8)
    skewed = block_activation_bytes(decoder, experts=True, ep=4, expert_imbalance=1.5, **shape)
    assert skewed - experts == 64 * 2 * 0.5 * (2 * 256 + 3 * 2 * 128)


def test_expert_inputs_are_whole_on_tensor_parallel_ranks():
    """tp divides experts by their width, so each of its ranks has every token that came: of the block with
    experts, a quarter stays of all but those."""
    decoder = llama(**EXPERTS).decoder
    shape = {"micro_batch": 1, "seq_len": 64, "bytes_per_value": 2, "experts": True}
    one = block_activation_bytes(decoder, **shape)
    four = block_activation_bytes(decoder, tp=4, sequence_parallel=True, **shape)
    inputs = 64 * 2 * 2 * 256
    assert four - inputs == (one - inputs) / 4


def test_latents_by_hand():
    """A block of DeepSeek-V2-Lite keeps for a token: 4 x 2048, the latent of 512 before and after its norm
    and the keys' 64, heads' 16 x (192 + 192 + 128 + 128), the dense MLP's 3 x 10944, and flash attention's
    sums of 16 heads in fp32."""
    decoder = read_model("deepseek-v2-lite").decoder
    values = 4 * 2048 + 2 * 512 + 64 + 16 * (192 + 192 + 128 + 128) + 3 * 10944
    kept = block_activation_bytes(decoder, micro_batch=1, seq_len=10)
    assert kept == 10 * (2 * values + 4 * 16)


@pytest.mark.parametrize(
    ("stack", "a_norm"),
    [("megatron", 2), ("megatron-2021", 2), ("composer-2022", 4), ("torchtitan", 6)],
)
def test_norms_keep_what_the_software_reads_again(stack: str, a_norm: int):
    """Of one value: the bf16 input; its fp32 copy; that copy and the normalised values."""
    software = replace(STACKS[stack], fused_activation=True)
    kept = block_activation_bytes(GPT, micro_batch=B, seq_len=S, stack=software)
    fused = block_activation_bytes(GPT, micro_batch=B, seq_len=S)
    assert kept - fused == 2 * (a_norm - 2) * S * B * H


def test_silu_on_its_own_keeps_its_output():
    """One more of the inner width, on a gated MLP alone."""
    step_by_step = replace(STACKS["megatron"], fused_activation=False)
    for decoder, more in ((llama().decoder, llama().decoder.ffn), (GPT, 0)):
        one, other = (
            block_activation_bytes(decoder, micro_batch=1, seq_len=64, stack=stack)
            for stack in (STACKS["megatron"], step_by_step)
        )
        assert other - one == 64 * 2 * more


def test_inputs_that_are_not_gathered_again_are_kept_whole():
    """With sequence parallelism on 4 ranks both norms' outputs, of which Megatron-LM keeps a quarter."""
    keeps = replace(STACKS["megatron"], regathers_inputs=False)
    shape = {"micro_batch": B, "seq_len": S, "tp": 4, "sequence_parallel": True}
    one, other = (block_activation_bytes(GPT, stack=stack, **shape) for stack in (STACKS["megatron"], keeps))
    assert other - one == 2 * 2 * S * B * H * (1 - 1 / 4)


def test_gradients_at_work_by_hand():
    """Of a GPT's MLP: inner values twice, input and output; of unfused attention the scores twice."""
    shape = {"micro_batch": B, "seq_len": S, "tp": 2, "bytes_per_value": 2}
    assert layer_workspace_bytes(GPT, BLOCK, **shape) == 2 * S * B * (2 * 4 * H / 2 + 2 * H)
    unfused = layer_workspace_bytes(GPT, BLOCK, flash=False, **shape)
    assert unfused == 2 * 2 * B * S * S * A / 2
    assert layer_workspace_bytes(GPT, HEAD, **shape) == 0


@pytest.mark.parametrize("t", [1, 8])
def test_gradients_of_weights_need_32_sbh(t: int):
    """Qi et al. 2023, Zero Bubble, table 1; the head's need its input and the logits' gradient."""
    shape = {"micro_batch": B, "seq_len": S, "tp": t, "sequence_parallel": True, "bytes_per_value": 2}
    assert layer_weight_gradient_bytes(GPT, BLOCK, **shape) == 32 * S * B * H / t
    assert layer_weight_gradient_bytes(GPT, HEAD, **shape) == 2 * S * B * (H + 51200) / t


def test_gradients_of_outputs_by_hand():
    """Of both norms, of queries, keys and values, of attention's output, of the MLP's two GEMMs."""
    shape = {"micro_batch": B, "seq_len": S, "tp": 2, "sequence_parallel": True, "bytes_per_value": 2}
    block = layer_output_gradient_bytes(GPT, BLOCK, **shape)
    assert block == 2 * S * B * (2 * H + 3 * H + H + 4 * H + H) / 2
    assert layer_output_gradient_bytes(GPT, HEAD, **shape) == 2 * S * B * (H + 51200) / 2


def test_fp8_keeps_inputs_of_products_as_they_were_cast():
    """Of a GPT block half of two norms' outputs and of the activation's; attention's output once more."""
    shape = {"micro_batch": B, "seq_len": S}
    plain, cast = (block_activation_bytes(GPT, input_bytes=read, **shape) for read in (0, 1))
    assert plain - cast == S * B * (2 * H + 4 * H - H)


def test_fp8_inputs_follow_the_software():
    """Transformer Engine keeps them in fp8, torchao before the cast."""
    own = Job(model=gpt(4, H, A, 51200), global_batch=2, seq_len=S, precision="fp8")
    bf16 = replace(own, precision="bf16")
    for stack, less in (("megatron", True), ("torchtitan-compile", False)):
        kept = [kept_bytes(one, Strategy(stack=stack), BLOCK) for one in (own, bf16)]
        assert (kept[0] < kept[1]) is less
