"""Dropout of the executor's layers: where it is, that recomputation draws the same, and who draws alike."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from machines import gpt, llama  # noqa: E402

from traincast.executor.model import dropout  # noqa: E402
from traincast.executor.model.decoder import Layers, build_layers, loss  # noqa: E402

SEED = 7


def built(recompute: str = "none", family=llama) -> Layers:
    decoder = replace(family(2, 64, 4, 96).decoder if family is gpt else family().decoder, layers=2)
    return build_layers(decoder, range(4), seed=0, recompute=recompute)


def trained(layers: Layers) -> tuple[float, list[torch.Tensor]]:
    tokens = torch.randint(0, 64, (2, 33), generator=torch.Generator().manual_seed(0))
    value = loss(layers(tokens[:, :-1]), tokens[:, 1:])
    value.backward()
    return value.item(), [p.grad for p in layers.parameters()]


@pytest.mark.parametrize("recompute", ["selective", "full"])
def test_recomputation_draws_the_same_numbers_again(recompute):
    def outcome(policy: str):
        layers = built(policy)
        dropout.seed_numbers(SEED)
        dropout.add_dropout(layers)
        return trained(layers)

    plain, again = outcome("none"), outcome(recompute)
    assert plain[0] == again[0]
    for one, other in zip(plain[1], again[1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_values_are_dropped_behind_the_embedding_and_a_blocks_halves_and_inside_attention():
    """A tenth of each output is 0, the rest is larger by as much."""
    layers = built(family=gpt)
    x = torch.randint(0, 64, (8, 64))
    plain = layers.layers[0](x)
    dropout.add_dropout(layers)
    out = layers.layers[0](x)
    kept = out != 0
    assert kept.float().mean().item() == pytest.approx(0.9, abs=0.02)
    torch.testing.assert_close(out[kept], plain[kept] / 0.9)
    block = layers.layers[1]
    for half in (block.attention, block.mlp):
        assert (half(plain) == 0).float().mean().item() == pytest.approx(0.1, abs=0.02)
    q = torch.randn(2, 4, 16, 8)
    assert not torch.equal(block.attention.core(q, q, q), block.attention.core(q, q, q))
    layers.eval()
    torch.testing.assert_close(layers.layers[0](x), plain)
