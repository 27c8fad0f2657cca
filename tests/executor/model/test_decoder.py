"""The torch layers have the parameters a Model says, the same for every partition."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from traincast.sim.errors import InputError
from traincast.sim.model.decoder import Decoder
from traincast.sim.model.model import Model
from traincast.sim.plan.job import Job

torch = pytest.importorskip("torch")

from traincast.executor.model.decoder import build_layers, loss  # noqa: E402
from traincast.executor.model.rope import rotate  # noqa: E402
from traincast.executor.train.stage import use_products_of  # noqa: E402


def decoder(**changes) -> Decoder:
    """Two small blocks."""
    fields = {
        "layers": 2,
        "hidden": 16,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 4,
        "ffn": 24,
        "vocab": 37,
        "max_positions": 32,
        **changes,
    }
    return Decoder(**fields)


ARCHITECTURES = [
    decoder(
        activation=activation,
        norm=norm,
        positions=positions,
        attention_bias=bias,
        output_bias=bias,
        mlp_bias=bias,
        qk_norm=qk_norm,
        tied_embeddings=tied,
    )
    for activation, norm, positions, bias, qk_norm, tied in product(
        ("swiglu", "gelu"),
        ("rmsnorm", "layernorm"),
        ("rope", "learned"),
        (False, True),
        (False, True),
        (False, True),
    )
]


def tokens(rows: int = 3, seq: int = 8) -> torch.Tensor:
    return torch.randint(0, 37, (rows, seq), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("arch", ARCHITECTURES, ids=lambda d: f"{d.activation}-{d.norm}-{d.positions}")
def test_parameters_are_those_of_the_layers(arch: Decoder):
    """Every layer of every architecture has as many parameters as its `Layer` says."""
    model = Model(name="m", decoder=arch)
    module = build_layers(arch, range(4), seed=0)
    counted = {i: sum(p.numel() for p in own) for i, own in module.layer_parameters().items()}
    assert counted == {layer.index: layer.parameters for layer in model.layers}
    assert sum(p.numel() for p in module.parameters()) == model.parameters


@pytest.mark.parametrize("arch", ARCHITECTURES[::7], ids=lambda d: f"{d.activation}-{d.norm}-{d.positions}")
@pytest.mark.parametrize("cut", [1, 2, 3])
def test_partition_changes_nothing(arch: Decoder, cut: int):
    """Two stages have the parameters and the output of the whole, bit for bit, tied or not."""
    whole = build_layers(arch, range(4), seed=5)
    first, second = build_layers(arch, range(cut), seed=5), build_layers(arch, range(cut, 4), seed=5)
    parts = {**first.layer_parameters(), **second.layer_parameters()}
    for index, parameters in whole.layer_parameters().items():
        for mine, theirs in zip(parameters, parts[index], strict=False):
            if mine.shape == theirs.shape:
                assert torch.equal(mine, theirs)
    assert torch.equal(whole(tokens()), second(first(tokens())))


def test_seed_and_layer_choose_the_parameters():
    """Another seed or another layer of the same shape has other weights."""
    a, b = build_layers(decoder(), [1, 2], seed=0), build_layers(decoder(), [1, 2], seed=1)
    weights = [layer.attention.qkv.weight for module in (a, b) for layer in module.layers]
    assert len({float(weight.detach().sum()) for weight in weights}) == 4


def test_tied_head_shares_one_matrix():
    """On one stage the head's matrix is the embedding's; alone it is an equal copy."""
    arch = decoder(tied_embeddings=True)
    whole = build_layers(arch, range(4), seed=2)
    assert whole.layers[3].output.weight is whole.layers[0].tokens.weight
    alone = build_layers(arch, [3], seed=2)
    assert torch.equal(alone.layers[0].output.weight, whole.layers[0].tokens.weight)


@pytest.mark.parametrize("arch", ARCHITECTURES[::9], ids=lambda d: f"{d.activation}-{d.norm}-{d.positions}")
def test_attention_is_causal(arch: Decoder):
    """A later token does not change the logits before it, and does change its own."""
    module = build_layers(arch, range(4), seed=0)
    one = tokens()
    other = one.clone()
    other[:, 5] = (other[:, 5] + 1) % 37
    difference = (module(one) - module(other)).abs().amax(dim=(0, 2))
    assert float(difference[:5].detach().max()) == 0.0
    assert float(difference[5:].detach().min()) > 0.0


@pytest.mark.parametrize(("recompute", "blocks"), [("selective", 0), ("full", 0), ("full", 1)])
def test_recompute_gives_the_same_loss_and_gradients(recompute: str, blocks: int):
    """Computing activations again changes nothing."""
    batch = tokens(3, 9)
    losses, gradients = [], []
    for how in ("none", recompute):
        module = build_layers(decoder(), range(4), seed=0, recompute=how, recompute_blocks=blocks)
        value = loss(module(batch[:, :-1]), batch[:, 1:])
        value.backward()
        losses.append(value)
        gradients.append([p.grad for p in module.parameters()])
    torch.testing.assert_close(*losses)
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(
    ("recompute", "blocks", "passes"),
    [("none", 0, [1, 1]), ("selective", 0, [1, 1]), ("full", 0, [2, 2]), ("full", 1, [2, 1])],
)
def test_what_is_computed_again_is_what_the_policy_says(recompute: str, blocks: int, passes: list[int]):
    """MLPs run twice under `full` alone, of the first blocks where their number is given."""
    module = build_layers(decoder(), range(4), seed=0, recompute=recompute, recompute_blocks=blocks)
    seen = [0, 0]
    for place in range(2):
        mlp = module.layers[1 + place].mlp.inner
        mlp.register_forward_hook(lambda *_, place=place: seen.__setitem__(place, seen[place] + 1))
    batch = tokens(3, 9)
    loss(module(batch[:, :-1]), batch[:, 1:]).backward()
    assert seen == passes


@pytest.mark.parametrize(("recompute", "attentions"), [("none", 1), ("selective", 2), ("full", 2)])
def test_attention_is_what_selective_computes_again(monkeypatch, recompute: str, attentions: int):
    """Once forward in each of two blocks, and once more in backward."""
    seen = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def counted(*arguments, **options):
        seen.append(1)
        return attend(*arguments, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    module = build_layers(decoder(), range(4), seed=0, recompute=recompute)
    batch = tokens(3, 9)
    loss(module(batch[:, :-1]), batch[:, 1:]).backward()
    assert len(seen) == 2 * attentions


def test_products_are_in_the_precision_of_the_job():
    """tf32 is asked for by an option of the process, which another job takes back."""
    before = torch.get_float32_matmul_precision()
    job = Job(model=Model(name="m", decoder=decoder()), global_batch=1, seq_len=8, precision="tf32")
    try:
        use_products_of(job)
        assert torch.get_float32_matmul_precision() == "high"
        use_products_of(replace(job, precision="fp32"))
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        torch.set_float32_matmul_precision(before)


def test_rotation_depends_on_distance_only():
    """The product of a rotated query and key is the same for the same distance (RoFormer, eq. 11)."""
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)
    rows = [rotate(x.expand(1, 1, 12, 8).double()) for x in (q, k)]
    scores = (rows[0] @ rows[1].transpose(-1, -2))[0, 0]
    for distance in range(-5, 6):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))


def test_loss_of_even_logits_is_the_logarithm_of_the_vocabulary():
    """Mean cross entropy of logits that are all alike is ln(vocab)."""
    value = loss(torch.zeros(2, 8, 37), tokens(2))
    torch.testing.assert_close(value, torch.tensor(37.0).log())


def test_layer_beyond_the_model_is_refused():
    """A layer index that the model lacks is an InputError, not an empty module."""
    with pytest.raises(InputError, match="layer 4 does not exist; expected 0 to 3"):
        build_layers(decoder(), [4], seed=0)


def test_compiled_blocks_are_blocks_alone(monkeypatch):
    """Every block is compiled in place; embedding and head stay as they are."""
    seen = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: seen.append(self))
    module = build_layers(decoder(), range(4), seed=0)
    module.compile_blocks()
    assert seen == list(module.layers)[1:3]
