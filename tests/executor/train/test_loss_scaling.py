"""The scaled loss of fp16 jobs: what it changes of gradients and steps, and that ranks decide alike."""

from __future__ import annotations

import pytest
from ranks import run_ranks

torch = pytest.importorskip("torch")

from machines import llama  # noqa: E402

from traincast.executor.model.decoder import build_layers  # noqa: E402
from traincast.executor.parallel.surroundings import Surroundings  # noqa: E402
from traincast.executor.train import loss_scaling  # noqa: E402
from traincast.executor.train.loss_scaling import FIRST_SCALE, LossScaling  # noqa: E402
from traincast.sim.plan.job import Job  # noqa: E402
from traincast.sim.plan.make_plan import make_plan  # noqa: E402
from traincast.sim.plan.plan import Plan  # noqa: E402
from traincast.sim.plan.strategy import Strategy  # noqa: E402


def plan(precision: str = "fp16", **strategy) -> Plan:
    job = Job(model=llama(), global_batch=4, seq_len=64, precision=precision)
    return make_plan(job, Strategy(**strategy))


def refused(whole: Plan) -> list[str]:
    return loss_scaling.refusals(whole, Surroundings(kind="cpu"))


def trained(scaled: bool, steps: int = 3) -> tuple[list[float], list[torch.Tensor]]:
    """Losses and parameters of a small model in fp32, where scaling by a power of two changes nothing."""
    layers = build_layers(llama().decoder, range(len(llama().layers)), seed=0)
    optimizer = torch.optim.AdamW(layers.parameters(), lr=1e-3, fused=True)
    if scaled:
        assert loss_scaling.apply(plan(), [layers], optimizer) is not None
    tokens = torch.randint(0, 64, (1, 17), generator=torch.Generator().manual_seed(0))
    losses = []
    for _ in range(steps):
        value = layers.loss(layers(tokens[:, :-1]), tokens[:, 1:])
        value.backward()
        if scaled:
            largest = max(float(p.grad.abs().max()) for p in layers.parameters())
            assert largest > 100  # scaled while backward is at work
        optimizer.step()
        optimizer.zero_grad()
        losses.append(value.item())
    return losses, [p.detach() for p in layers.parameters()]


def test_steps_are_those_of_a_loss_that_is_not_scaled():
    plain, scaled = trained(False), trained(True)
    assert scaled[0] == pytest.approx(plain[0], rel=1e-6)
    for one, other in zip(plain[1], scaled[1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_an_infinity_leaves_a_step_out_and_halves_the_scale():
    weight = torch.nn.Parameter(torch.ones(4))
    optimizer = torch.optim.SGD([weight], lr=1.0, fused=True)
    scaling = LossScaling(optimizer, alone=True)
    weight.grad = torch.tensor([1.0, float("inf"), 1.0, 1.0])
    optimizer.step()
    assert weight.tolist() == [1.0] * 4
    assert scaling.scale.item() == FIRST_SCALE / 2
    weight.grad = torch.full((4,), FIRST_SCALE / 2)
    optimizer.step()
    assert weight.tolist() == [0.0] * 4
    assert scaling.scale.item() == FIRST_SCALE / 2


def _step(rank: int, broken: int) -> tuple[list[float], float]:
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=1.0 / FIRST_SCALE, fused=True)
    scaling = LossScaling(optimizer, alone=False)
    weight.grad = torch.full((2,), float("nan") if rank == broken else FIRST_SCALE)
    optimizer.step()
    return weight.tolist(), scaling.scale.item()


@pytest.mark.slow
def test_what_one_rank_finds_counts_for_all():
    assert run_ranks(2, _step, 1) == [([1.0, 1.0], FIRST_SCALE / 2)] * 2
    left = 1.0 - 1.0 / FIRST_SCALE
    assert run_ranks(2, _step, 5) == [([left, left], FIRST_SCALE)] * 2


def test_other_precisions_are_left_alone_and_what_cannot_be_scaled_is_refused():
    layers = build_layers(llama().decoder, range(2), seed=0)
    optimizer = torch.optim.SGD(layers.parameters(), lr=0.1)
    before = layers.loss
    assert loss_scaling.apply(plan("bf16"), [layers], optimizer) is None
    assert layers.loss is before
    assert refused(plan()) == refused(plan("bf16", dp=2, sharding="fsdp")) == []
    assert "ddp" in refused(plan(dp=2, sharding="fsdp"))[0]
    assert "host memory" in refused(plan(offload="optimizer"))[0]
    served = plan(dp=2, gradient_exchange="parameter_server", servers=1)
    assert "servers" in refused(served)[0]
