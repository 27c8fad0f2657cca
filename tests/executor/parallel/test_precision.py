"""fp8 and dropout of a rank: what is refused, what its layers become, and who draws alike."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from machines import llama  # noqa: E402

from traincast.executor.model.decoder import Layers, build_layers  # noqa: E402
from traincast.executor.model.float8 import Float8Linear  # noqa: E402
from traincast.executor.parallel import precision  # noqa: E402
from traincast.executor.parallel.surroundings import Surroundings  # noqa: E402
from traincast.sim.model.model import Model  # noqa: E402
from traincast.sim.plan.job import Job  # noqa: E402
from traincast.sim.plan.make_plan import make_plan  # noqa: E402
from traincast.sim.plan.plan import Plan  # noqa: E402
from traincast.sim.plan.strategy import Strategy  # noqa: E402

CPU = Surroundings(kind="cpu")
HOPPER = Surroundings(kind="gpu", devices=("NVIDIA H200",), capability=(9, 0))


def plan(*, precision: str = "fp32", drops: bool = False, model: Model | None = None, **strategy) -> Plan:
    job = Job(model=model or llama(), global_batch=8, seq_len=128, precision=precision, dropout=drops)
    return make_plan(job, Strategy(**strategy))


def applied(whole: Plan, rank: int = 0) -> Layers:
    layers = build_layers(replace(llama().decoder, layers=1), range(3), seed=0)
    here = SimpleNamespace(plan=whole, rank=rank, workload=SimpleNamespace(seed=7))
    precision.apply(layers, here)  # type: ignore[arg-type]
    return layers


def test_what_cannot_run_in_fp8_says_why():
    def refused(surroundings: Surroundings, **more) -> list[str]:
        return precision.refusals(plan(precision="fp8", **more), surroundings)

    assert refused(HOPPER) == []
    assert "8.9 or later" in refused(CPU)[0]
    assert "here is 8.0" in refused(Surroundings(kind="gpu", capability=(8, 0)))[0]
    assert "tp 1" in refused(HOPPER, tp=2)[0]
    assert "selective_op" in refused(HOPPER, recompute="selective_op")[0]
    odd = Model(name="odd", decoder=replace(llama().decoder, ffn=1000))
    assert "not 1000" in refused(HOPPER, model=odd)[0]


def test_dropout_is_refused_where_attention_is_divided():
    assert precision.refusals(plan(drops=True, tp=2), CPU) == precision.refusals(plan(cp=2), CPU) == []
    assert "cp 1" in precision.refusals(plan(drops=True, cp=2), CPU)[0]


def test_layers_become_what_the_job_says():
    """Four linear layers of a block in fp8; dropout makes two passes differ; neither without being asked."""
    in_fp8 = [m for m in applied(plan(precision="fp8")).modules() if isinstance(m, Float8Linear)]
    assert len(in_fp8) == 4
    tokens = torch.zeros(1, 8, dtype=torch.long)
    plain, dropping = applied(plan()), applied(plan(drops=True))
    assert not any(isinstance(m, Float8Linear) for m in plain.modules())
    assert torch.equal(plain(tokens), plain(tokens))
    assert not torch.equal(dropping(tokens), dropping(tokens))


def test_ranks_of_one_place_draw_alike_and_replicas_do_not():
    whole = plan(drops=True, dp=2, tp=2, pp=2)
    by_place: dict[tuple[int, int], list[torch.Tensor]] = {}
    for rank in range(8):
        applied(whole, rank)
        pp, dp, *_ = whole.coordinates(rank)
        by_place.setdefault((pp, dp), []).append(torch.rand(4))
    assert all(torch.equal(one, other) for one, other in by_place.values())
    assert len({tuple(own[0].tolist()) for own in by_place.values()}) == 4
