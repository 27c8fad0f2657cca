"""Models as layers: parameters counted as the papers and model cards state them."""

from __future__ import annotations

import pytest
from machines import gpt, llama

from traincast.sim.hf_config import model_presets, read_model
from traincast.sim.model import BLOCK, EMBEDDING, HEAD, MOE_BLOCK

PUBLISHED = {
    "mixtral-8x7b": (46.7e9, 12.9e9),
    "qwen3-30b-a3b": (30.5e9, 3.3e9),
    "deepseek-v2-lite": (15.7e9, 2.4e9),
    "deepseek-v3": (671e9, 37e9),
}
"""Parameters in all and active for one token: Mistral AI's announcement of Mixtral 8x7B; the model cards of
Qwen3-30B-A3B and DeepSeek-V2-Lite; the DeepSeek-V3 technical report, abstract (without its MTP module)."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_the_published_ones(name):
    """To the digits that are published; cards round active ones down or up."""
    decoder, total = read_model(name).decoder, read_model(name).parameters
    whole, active = PUBLISHED[name]
    assert total == pytest.approx(whole, rel=0.003)
    assert decoder.active_parameters == pytest.approx(active, rel=0.12)


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
