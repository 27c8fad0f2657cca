"""Blocks with experts: their parameters, what they compute, whom tokens visit, and the balance loss."""

from __future__ import annotations

from dataclasses import replace

import pytest

from traincast.sim.model.decoder import Decoder
from traincast.sim.model.expert_imbalance import busiest_visits

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from traincast.executor.model.decoder import build_layers  # noqa: E402
from traincast.executor.model.experts import ExpertMlp  # noqa: E402
from traincast.executor.model.routing import BALANCE, Routing, imposed_experts  # noqa: E402

LEARNED = Routing(kind="learned")
MIXTRAL = Decoder(
    layers=2,
    hidden=16,
    heads=4,
    kv_heads=2,
    head_dim=4,
    ffn=24,
    vocab=37,
    max_positions=32,
    experts=8,
    experts_per_token=2,
    expert_ffn=12,
)
DECODERS = {
    "mixtral": MIXTRAL,
    "qwen-moe": replace(MIXTRAL, shared_ffn=20, shared_gate=True, attention_bias=True),
    "deepseek-v3": replace(
        MIXTRAL, shared_ffn=12, router_bias=True, dense_layers=1, kv_heads=4, q_rank=6, kv_rank=10, rope_dim=2
    ),
}


def made(decoder: Decoder, routing: Routing = LEARNED) -> ExpertMlp:
    """Experts with parameters large enough to tell them apart."""
    random = torch.Generator().manual_seed(5)
    mlp = ExpertMlp(decoder, routing)
    with torch.no_grad():
        for parameter in mlp.parameters():
            parameter.normal_(0.0, 0.3, generator=random)
    return mlp


def hidden_states(rows: int = 3, seq: int = 8) -> Tensor:
    x = torch.randn(rows, seq, 16, generator=torch.Generator().manual_seed(1))
    return x.requires_grad_()


def one_by_one(mlp: ExpertMlp, x: Tensor) -> Tensor:
    """What each token becomes, by plain loops over tokens and over the experts that score highest."""
    d, router, experts = mlp.router.decoder, mlp.router, mlp.experts
    out = []
    for token in x.flatten(0, 1):
        logits = router.weight @ token
        scores = logits.softmax(0) if router.bias is None else logits.sigmoid()
        wanted = scores if router.bias is None else scores + router.bias
        chosen = wanted.topk(d.experts_per_token).indices
        y = torch.zeros_like(token)
        for expert in chosen:
            gate, up = (experts.inner[expert] @ token).chunk(2)
            y = y + scores[expert] / scores[chosen].sum() * (experts.output[expert] @ (F.silu(gate) * up))
        if mlp.shared is not None:
            shared = mlp.shared(token)
            y = y + (shared if mlp.shared_gate is None else shared * mlp.shared_gate(token).sigmoid())
        out.append(y)
    return torch.stack(out).view_as(x)


@pytest.mark.parametrize("name", DECODERS)
def test_parameters_are_those_of_the_decoder(name):
    """By block, dense ones first; the value that balances the router's load has no gradient."""
    decoder = DECODERS[name]
    layers = build_layers(decoder, range(4), seed=0)
    counts = [sum(p.numel() for p in own) for own in layers.layer_parameters().values()]
    first = decoder.block_parameters if decoder.dense_layers else decoder.moe_block_parameters
    assert counts[1:3] == [first, decoder.moe_block_parameters]
    experts = sum(p.numel() for p in layers.expert_parameters())
    assert experts == decoder.expert_parameters * (2 - decoder.dense_layers)
    fixed = {name for name, p in layers.named_parameters() if not p.requires_grad}
    assert fixed == ({"layers.2.mlp.router.bias"} if decoder.router_bias else set())


@pytest.mark.parametrize("name", DECODERS)
def test_outputs_and_gradients_are_those_of_a_loop(name, monkeypatch):
    """Tokens sorted by expert, and one after the other; without the balance loss, which no output shows."""
    monkeypatch.setattr("traincast.executor.model.routing.BALANCE", 0.0)
    mlp, other = made(DECODERS[name]), made(DECODERS[name])
    x, z = hidden_states(), hidden_states()
    y, plain = mlp(x), one_by_one(other, z)
    torch.testing.assert_close(y, plain)
    weigh = torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
    (y * weigh).sum().backward()
    (plain * weigh).sum().backward()
    torch.testing.assert_close(x.grad, z.grad)
    for (of, parameter), expected in zip(mlp.named_parameters(), other.parameters(), strict=True):
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, expected.grad, msg=lambda m, of=of: f"{of}: {m}")


@pytest.mark.parametrize("name", ["mixtral", "deepseek-v3"])
def test_the_balance_loss_pulls_at_the_router(name, monkeypatch):
    """Its gradient is that of alpha × sum of f P, by sequence (DeepSeek-V3, equations 17 to 20), times the
    scale of the main loss; the output is as it was."""
    decoder = DECODERS[name]
    mlp, x = made(decoder), hidden_states()
    mlp.router.loss_scale = 0.25
    (mlp(x) * 0.0).sum().backward()
    weight = mlp.router.weight.detach().clone().requires_grad_()
    logits = x.detach() @ weight.T
    scores = logits.softmax(-1) if mlp.router.bias is None else logits.sigmoid()
    wanted = scores if mlp.router.bias is None else scores + mlp.router.bias
    chosen = wanted.topk(2, dim=-1).indices
    total = torch.zeros(())
    for sample, own in zip(scores, chosen, strict=True):
        for expert in range(8):
            share = 8 / (2 * 8) * (own == expert).sum()
            total = total + share * (sample / sample.sum(1, keepdim=True))[:, expert].mean()
    (0.25 * BALANCE * total / 3).backward()
    torch.testing.assert_close(mlp.router.weight.grad, weight.grad, rtol=1e-4, atol=1e-10)


@pytest.mark.parametrize("ep", [1, 2, 4])
@pytest.mark.parametrize("imbalance", [1.0, 1.5, 3.0, 100.0])
@pytest.mark.parametrize("each", [1, 2, 3])
def test_imposed_loads_are_exactly_the_jobs(ep, imbalance, each):
    """The last rank's is the busiest by what the job says, the others are even, and so are the experts of a
    rank; also of a part of the tokens, but for one visit. A token visits an expert once."""
    decoder = replace(MIXTRAL, experts_per_token=each)
    routing = Routing(imbalance=imbalance, ep=ep)
    chosen = imposed_experts(decoder, routing, torch.arange(120))
    assert all(len(set(row)) == each for row in chosen.tolist())
    for part, tokens in ((chosen, 120), (chosen[37:61], 24)):
        loads = torch.bincount(part.flatten(), minlength=8).view(ep, -1)
        busiest = tokens * busiest_visits(decoder, ep, imbalance) / ep
        assert abs(float(loads[-1].sum()) - busiest) <= (0 if part is chosen else 1)
        others = loads[:-1].sum(1)
        assert not len(others) or int(others.max() - others.min()) <= 1
        assert all(int(own.max() - own.min()) <= 1 for own in loads)


def test_imposed_routing_weighs_by_the_router():
    """The choice follows from the place alone; what experts' outputs weigh is learned."""
    mlp = made(MIXTRAL, Routing(imbalance=1.5, ep=2))
    x = hidden_states()
    chosen, weights = mlp.router(x)
    assert torch.equal(chosen[0], chosen[2])
    assert torch.equal(chosen[0], imposed_experts(MIXTRAL, mlp.router.routing, torch.arange(8)))
    logits = (x @ mlp.router.weight.T).gather(2, chosen)
    torch.testing.assert_close(weights, logits.softmax(-1))
    assert mlp.router.loads.tolist() == torch.bincount(chosen.flatten(), minlength=8).tolist()


def test_an_expert_without_tokens_has_a_gradient_of_zeros():
    mlp = made(replace(MIXTRAL, experts_per_token=1), Routing(imbalance=100.0, ep=8))
    mlp(hidden_states()).sum().backward()
    sizes = mlp.experts.inner.grad.abs().sum(dim=(1, 2))
    assert sizes[-1] > 0
    assert sizes[:-1].tolist() == [0.0] * 7
