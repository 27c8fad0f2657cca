"""Models as layers: parameters counted as the papers and model cards state them."""

from __future__ import annotations

import pytest
from machines import gpt, llama

from traincast.sim.model.hf_config import model_presets, read_model
from traincast.sim.model.layer import BLOCK, EMBEDDING, HEAD, MOE_BLOCK

PUBLISHED = {
    "mixtral-8x7b": (46_702_792_704, 12.9e9),
    "qwen1.5-moe-a2.7b": (14_315_784_192, 2.7e9),
    "qwen3-30b-a3b": (30_532_122_624, 3.3e9),
    "qwen3-235b-a22b": (235_093_634_560, 22e9),
    "deepseek-v2-lite": (15_706_484_224, 2.4e9),
    "deepseek-v2": (235_741_434_880, 21e9),
    "deepseek-v3": (671_026_419_200, 37e9),
}
"""Parameters in all, as the published safetensors files have them (DeepSeek-V3's without its module of
multi-token prediction); active for one token, as the announcements and reports round them."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_the_published_ones(name):
    """In all to the last one; active ones within the rounding, and DeepSeek-V2-Lite's card leaves out its
    embedding."""
    decoder, total = read_model(name).decoder, read_model(name).parameters
    whole, active = PUBLISHED[name]
    assert total == whole
    looked_up = decoder.embedding_parameters if name == "deepseek-v2-lite" else 0
    assert decoder.active_parameters - looked_up == pytest.approx(active, rel=0.025)


def test_mixtral_by_hand():
    """32 x (attention, router, 8 experts of three matrices, two norms), embedding, head and its norm."""
    attention = 2 * 4096 * 4096 + 2 * 4096 * 1024
    experts = 8 * 3 * 4096 * 14336
    block = attention + 4096 * 8 + experts + 2 * 4096
    assert read_model("mixtral-8x7b").parameters == 32 * block + 2 * 32000 * 4096 + 4096


def test_deepseek_v3_by_hand():
    """61 x latent attention and norms, three dense MLPs, 58 x router with its biases, 256 experts and a
    shared one."""
    latents = 7168 * 1536 + 1536 + 7168 * (512 + 64) + 512
    heads = 1536 * 128 * 192 + 512 * 128 * (128 + 128) + 128 * 128 * 7168
    moe = 7168 * 256 + 256 + 257 * 3 * 7168 * 2048
    blocks = 61 * (latents + heads + 2 * 7168) + 3 * 3 * 7168 * 18432 + 58 * moe
    assert read_model("deepseek-v3").parameters == blocks + 2 * 129280 * 7168 + 7168


@pytest.mark.parametrize("name", sorted(model_presets()))
def test_layers_add_up(name):
    """Embedding, blocks, head; experts are part of their blocks; dense models are active as a whole."""
    model = read_model(name)
    kinds = [layer.kind for layer in model.layers]
    assert kinds[0] == EMBEDDING
    assert kinds[-1] == HEAD
    assert len(kinds) == model.decoder.layers + 2
    assert all(0 <= layer.expert_parameters <= layer.parameters for layer in model.layers)
    assert (model.decoder.active_parameters == model.parameters) == (not model.decoder.experts)


def test_experts_by_hand():
    """Router 256 x 8, eight experts of three 256 x 32 matrices, shared ones beside, the first block dense."""
    model = llama(layers=3, experts=8, experts_per_token=2, expert_ffn=32, shared_ffn=64, dense_layers=1)
    assert [layer.kind for layer in model.layers] == [EMBEDDING, BLOCK, MOE_BLOCK, MOE_BLOCK, HEAD]
    block, moe = model.layers[1], model.layers[2]
    assert moe.expert_parameters == 8 * 3 * 256 * 32
    assert moe.parameters - moe.expert_parameters - block.parameters == (
        256 * 8 + 3 * 256 * 64 - model.decoder.mlp_parameters
    )
    idle = 2 * moe.expert_parameters * 6 // 8
    assert model.decoder.active_parameters == model.parameters - idle


def test_a_dense_model_has_no_experts():
    assert {layer.kind for layer in gpt(2, 64, 4, 100).layers} == {EMBEDDING, BLOCK, HEAD}


def test_what_tensor_parallelism_leaves_whole_by_hand():
    """Llama: two norms a block, one in the head. GPT: gains and shifts, two biases behind row-parallel
    products, the table of positions. DeepSeek-V2-Lite: the way down to the latent of keys and values and its
    norm; with experts the router."""
    small = llama(layers=2)
    hidden = small.decoder.hidden
    assert [layer.whole_parameters for layer in small.layers] == [0, 2 * hidden, 2 * hidden, hidden]
    one = gpt(1, 256, 8, 1024, positions=128)
    assert [layer.whole_parameters for layer in one.layers] == [128 * 256, 4 * 256 + 2 * 256, 2 * 256]
    deep = read_model("deepseek-v2-lite").decoder
    block = 2 * 2048 + 2048 * (512 + 64) + 512
    assert deep.whole_parameters(BLOCK) == block
    assert deep.whole_parameters(MOE_BLOCK) == block + 2048 * 64
