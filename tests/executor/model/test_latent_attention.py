"""Multi-head latent attention: its parameters, and what it computes, head by head."""

from __future__ import annotations

from dataclasses import replace

import pytest

from traincast.sim.model.decoder import Decoder

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from traincast.executor.model.latent_attention import LatentAttention  # noqa: E402
from traincast.executor.model.rope import rotate  # noqa: E402

DEEPSEEK = Decoder(
    layers=1,
    hidden=16,
    heads=3,
    kv_heads=3,
    head_dim=10,
    ffn=24,
    vocab=37,
    max_positions=32,
    q_rank=6,
    kv_rank=7,
    rope_dim=4,
    v_head_dim=5,
)
DECODERS = [
    DEEPSEEK,
    replace(DEEPSEEK, q_rank=0),
    replace(DEEPSEEK, v_head_dim=0),
    replace(DEEPSEEK, q_rank=0, v_head_dim=12),
]
IDS = ["deepseek-v2", "without a latent of queries", "values as wide as heads", "wider values"]


def made(decoder: Decoder, recompute: str = "none") -> LatentAttention:
    random = torch.Generator().manual_seed(5)
    attention = LatentAttention(decoder, recompute)
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.normal_(0.0, 0.5, generator=random)
    return attention


def hidden_states() -> Tensor:
    return torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(1)).requires_grad_()


def one_by_one(attention: LatentAttention, x: Tensor) -> Tensor:
    """DeepSeek-V2's equations 37 to 47, for each head and token."""
    d = attention.decoder
    plain, wide = d.head_dim - d.rope_dim, d.v_head_dim or d.head_dim
    down = x @ attention.down.weight.T
    q_latent, kv_latent, shared = down.split([d.q_rank, d.kv_rank, d.rope_dim], -1)
    q = (x if attention.q_norm is None else attention.q_norm(q_latent)) @ attention.q.weight.T
    up = attention.kv_norm(kv_latent) @ attention.kv.weight.T
    turned_key = rotate(shared[:, None])[:, 0]
    heads = []
    for head in range(d.heads):
        query = q[..., head * d.head_dim : (head + 1) * d.head_dim]
        query = torch.cat((query[..., :plain], rotate(query[:, None, :, plain:])[:, 0]), -1)
        key, value = up[..., head * (plain + wide) : (head + 1) * (plain + wide)].split([plain, wide], -1)
        key = torch.cat((key, turned_key), -1)
        rows = []
        for place in range(x.shape[1]):
            scores = (query[:, place, None] * key[:, : place + 1]).sum(-1) / d.head_dim**0.5
            rows.append((scores.softmax(-1)[..., None] * value[:, : place + 1]).sum(1))
        heads.append(torch.stack(rows, 1))
    return torch.cat(heads, -1) @ attention.output.weight.T


@pytest.mark.parametrize("decoder", DECODERS, ids=IDS)
def test_parameters_are_those_of_the_decoder(decoder):
    attention = LatentAttention(decoder, "none")
    assert sum(p.numel() for p in attention.parameters()) == decoder.attention_parameters


@pytest.mark.parametrize("recompute", ["none", "selective"])
@pytest.mark.parametrize("decoder", DECODERS, ids=IDS)
def test_outputs_and_gradients_are_those_of_a_loop(decoder, recompute):
    attention, other = made(decoder, recompute), made(decoder)
    x, z = hidden_states(), hidden_states()
    y, plain = attention(x), one_by_one(other, z)
    torch.testing.assert_close(y, plain, rtol=1e-4, atol=1e-5)
    weigh = torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
    (y * weigh).sum().backward()
    (plain * weigh).sum().backward()
    torch.testing.assert_close(x.grad, z.grad, rtol=1e-3, atol=1e-4)
    for parameter, expected in zip(attention.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, expected.grad, rtol=1e-3, atol=1e-4)


def test_no_token_sees_what_comes_after_it():
    attention, x = made(DEEPSEEK), hidden_states()
    changed = x.detach().clone()
    changed[:, 6:] += 1.0
    torch.testing.assert_close(attention(x)[:, :6], attention(changed)[:, :6])
