"""What is computed again: how often, with the same numbers, in whole backwards and in halves."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from torch.distributed.pipelining._backward import (  # noqa: E402
    stage_backward_input,
    stage_backward_weight,
)
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from traincast.executor.model.decoder import build_layers, loss  # noqa: E402
from traincast.executor.model.recompute import ATTENTION, GEMMS  # noqa: E402
from traincast.sim.kernels.layer_kernels import layer_kernels  # noqa: E402
from traincast.sim.kernels.recompute import repeated_parts  # noqa: E402
from traincast.sim.model.layer import BLOCK  # noqa: E402
from traincast.sim.plan.strategy import Strategy  # noqa: E402

POLICIES = ("none", "selective", "selective_op", "full")


class Counting(TorchDispatchMode):
    """GEMMs and fused attentions that are computed, but for those of derivatives."""

    def __init__(self):
        super().__init__()
        self.gemms = self.cores = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.gemms += func in GEMMS
        self.cores += func in ATTENTION
        return func(*args, **(kwargs or {}))


def blocks_of(job, policy, blocks=0):
    """The two blocks of the tiny model."""
    return build_layers(job.model.decoder, (1, 2), seed=0, recompute=policy, recompute_blocks=blocks)


def hidden(job):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, job.seq_len, job.model.decoder.hidden, generator=generator)


def whole(job, policy, blocks=0, *, autocast=False):
    """Gradients of input and parameters, and what backward counted."""
    layers, x = blocks_of(job, policy, blocks), hidden(job).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        out = layers(x).float().square().mean()
    with Counting() as counted:
        out.backward()
    return [x.grad, *(p.grad for p in layers.parameters())], counted


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_gradients(tiny_job, policy, autocast):
    """To the last bit, under autocast too."""
    expected, _ = whole(tiny_job, "none", autocast=autocast)
    found, _ = whole(tiny_job, policy, autocast=autocast)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("blocks", [0, 1])
@pytest.mark.parametrize("policy", POLICIES)
def test_as_often_as_the_simulator_counts(tiny_job, policy, blocks):
    """GEMMs and attention of the blocks that the policy holds for: what is repeated is what is simulated."""
    strategy = Strategy(stack="torch-autocast")
    kernels = layer_kernels(tiny_job, strategy, BLOCK, "forward")
    parts = repeated_parts(
        tiny_job.model.decoder, BLOCK, policy, kernels, stops_early=True, fused=strategy.software.autocast
    )
    gemms = [
        part
        for part, kernel in zip(parts, kernels, strict=True)
        if kernel.kind == "gemm" and not kernel.attention
    ]
    core = max(part for part, kernel in zip(parts, kernels, strict=True) if kernel.attention)
    _, plain = whole(tiny_job, "none")
    _, counted = whole(tiny_job, policy, blocks)
    repeating = blocks or 2
    assert counted.gemms - plain.gemms == repeating * sum(gemms)
    assert counted.cores - plain.cores == repeating * core


def halves(job, policy):
    """Gradients of input and parameters from the two halves of a backward, and what each counted."""
    layers, x = blocks_of(job, policy), hidden(job).requires_grad_()
    out = layers(x).square().mean()
    with Counting() as first:
        (gradient,), groups = stage_backward_input([out], None, [x], layers.parameters())
    with Counting() as second:
        stage_backward_weight(layers.parameters(), groups)
    return [gradient, *(p.grad for p in layers.parameters())], first, second


def test_selective_backward_comes_in_halves(tiny_job):
    """Attention is repeated in the first half, once, and nothing in the second."""
    expected, _ = whole(tiny_job, "none")
    found, first, second = halves(tiny_job, "selective")
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    assert (first.cores, second.cores) == (2, 0)


def test_checkpointed_halves_would_repeat_blocks_again_and_again(tiny_job):
    """Why `full` is differentiated in one go: to torch's checkpoint each group of weights is a new call."""
    _, first, second = halves(tiny_job, "full")
    assert first.cores == 2
    assert second.cores > 2


def test_a_whole_model(tiny_job):
    """With embedding and head, and the loss."""
    tokens = torch.arange(tiny_job.seq_len)[None] % tiny_job.model.decoder.vocab
    losses = {}
    for policy in POLICIES:
        layers = build_layers(tiny_job.model.decoder, range(4), seed=0, recompute=policy)
        losses[policy] = loss(layers(tokens), tokens).item()
    assert len(set(losses.values())) == 1


def test_grouped_queries(tiny_job):
    """Fewer keys than queries are repeated like others."""
    decoder = replace(tiny_job.model.decoder, kv_heads=1)
    job = replace(tiny_job, model=replace(tiny_job.model, decoder=decoder))
    expected, _ = whole(job, "none")
    for policy in POLICIES[1:]:
        found, _ = whole(job, policy)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
