"""Linear layers in fp8: what they multiply, their gradients, and when weights are cast."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from machines import llama  # noqa: E402

from traincast.executor.model.decoder import build_layers, loss  # noqa: E402
from traincast.executor.model.float8 import E4M3, E5M2, Float8Linear, to_float8, use_float8  # noqa: E402


def linear(bias: bool = True) -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(64, 48, bias=bias)


def back(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """``x`` through fp8 and back."""
    copy, scale = to_float8(x, dtype)
    return copy.float() * scale


@pytest.mark.parametrize("dtype", [E4M3, E5M2])
def test_a_scale_takes_the_largest_value_to_the_largest_of_fp8(dtype):
    x = torch.tensor([[0.5, -3.0], [1.0, 0.0]])
    copy, scale = to_float8(x, dtype)
    assert copy.float().abs().max() == torch.finfo(dtype).max
    assert back(x, dtype).flatten().tolist() == pytest.approx([0.5, -3.0, 1.0, 0.0], rel=0.125)
    assert scale.item() == pytest.approx(3.0 / torch.finfo(dtype).max)


def test_results_and_gradients_are_products_of_what_was_cast():
    """Inputs and weights in e4m3, gradients in e5m2; the weight's gradient is fp32."""
    plain = linear()
    layer = Float8Linear(plain)
    x = torch.randn(3, 16, 64).bfloat16().requires_grad_()
    y = layer(x)
    g = torch.randn(3, 16, 48).bfloat16()
    y.backward(g)
    rows, columns = back(x.flatten(0, 1).detach(), E4M3), back(plain.weight.detach(), E4M3)
    passed = back(g.flatten(0, 1), E5M2)
    assert y.dtype == torch.bfloat16
    expected = rows @ columns.t() + plain.bias.bfloat16().float()
    torch.testing.assert_close(y.flatten(0, 1).float(), expected, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(x.grad.flatten(0, 1).float(), passed @ columns, rtol=1e-2, atol=1e-2)
    assert plain.weight.grad.dtype == torch.float32
    torch.testing.assert_close(plain.weight.grad, passed.t() @ rows, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(plain.bias.grad, g.flatten(0, 1).float().sum(0), rtol=2e-2, atol=2e-2)


def test_weights_are_cast_once_a_step():
    """Micro-batches share the copies; the optimizer's change makes new ones."""
    layer = Float8Linear(linear(bias=False))
    x = torch.randn(16, 64).bfloat16()
    layer(x).float().sum().backward()
    first = layer._copies()
    layer(x)
    assert layer._copies().weight is first.weight
    torch.optim.SGD(layer.parameters(), lr=1.0).step()
    changed = layer._copies()
    assert changed.weight is not first.weight
    torch.testing.assert_close(changed.weight.float() * changed.scale, back(layer.weight.detach(), E4M3))


def test_only_a_blocks_linear_layers_are_exchanged_and_parameters_stay():
    decoder = replace(llama().decoder, layers=2)
    layers = build_layers(decoder, range(4), seed=0)
    before = dict(layers.named_parameters())
    use_float8(layers)
    assert dict(layers.named_parameters()) == before
    exchanged = [name for name, m in layers.named_modules() if isinstance(m, Float8Linear)]
    assert len(exchanged) == 8
    assert all(name.split(".")[1] in ("1", "2") for name in exchanged)


def test_training_in_fp8_follows_training_in_bf16():
    """Twenty steps on one batch: losses differ by a few per cent of what was learned."""

    def losses(in_fp8: bool) -> list[float]:
        decoder = replace(llama().decoder, layers=2)
        layers = build_layers(decoder, range(4), seed=0)
        if in_fp8:
            use_float8(layers)
        optimizer = torch.optim.AdamW(layers.parameters(), lr=1e-3)
        tokens = torch.randint(0, 64, (2, 33), generator=torch.Generator().manual_seed(0))
        found = []
        for _ in range(20):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                value = loss(layers(tokens[:, :-1]), tokens[:, 1:])
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            found.append(value.item())
        return found

    plain, eight = losses(False), losses(True)
    assert eight[-1] < plain[0] - 0.5 * (plain[0] - plain[-1])
    assert abs(eight[-1] - plain[-1]) < 0.1 * (plain[0] - plain[-1])
