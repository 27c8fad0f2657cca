"""Which recomputation is refused, and whose backward does not come in halves."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from traincast.executor.parallel.recompute import refusals  # noqa: E402
from traincast.executor.parallel.surroundings import Surroundings  # noqa: E402
from traincast.sim.costs.costs import Costs  # noqa: E402
from traincast.sim.costs.stage import StageCosts  # noqa: E402
from traincast.sim.hardware.cluster_file import read_cluster  # noqa: E402
from traincast.sim.model.hf_config import read_model  # noqa: E402
from traincast.sim.plan.action import Kind  # noqa: E402
from traincast.sim.plan.job import Job  # noqa: E402
from traincast.sim.plan.make_plan import make_plan  # noqa: E402
from traincast.sim.plan.strategy import Strategy  # noqa: E402

HERE = Surroundings(kind="cpu")


def of(job: Job, **fields) -> list[str]:
    return refusals(make_plan(job, Strategy(**fields)), HERE)


def test_refusals(tiny_job):
    """Only what was not settled: which GEMMs of experts are kept, and exchanges inside what is kept."""
    assert of(tiny_job, recompute="selective_op") == []
    assert of(tiny_job, recompute="full", pp=2, schedule="zb-h1") == []
    assert of(tiny_job, recompute="selective", pp=2, schedule="zb-h1") == []
    (parallel,) = of(tiny_job, recompute="selective_op", tp=2, sequence_parallel=True)
    assert "sequence or context parallelism" in parallel
    experts = replace(tiny_job, model=read_model("mixtral-8x7b"))
    (dense,) = of(experts, recompute="selective_op")
    assert "experts" in dense
    compiled = {"stack": "torch-autocast-compile", "recompute": "selective"}
    assert of(tiny_job, **compiled) == []
    (halves,) = of(tiny_job, **compiled, pp=2, schedule="zb-h1")
    assert "zb-h1" in halves


@pytest.mark.parametrize("recompute", ["none", "selective", "selective_op", "full"])
def test_the_first_half_of_a_checkpointed_backward_is_all_of_it(recompute):
    """As it runs; other software divides it."""
    job = Job(model=read_model("llama-3-8b"), global_batch=8, seq_len=4096)
    layers = job.model.layers[1:3]
    for stack in ("torch-autocast", "megatron"):
        stage = StageCosts(Costs(read_cluster("hgx-h100"), job, Strategy(recompute=recompute, stack=stack)))
        both, first, second = (
            (stage.compute_s(layers, kind), stage.flops(layers, kind))
            for kind in (Kind.BACKWARD, Kind.INPUT_GRADIENT, Kind.WEIGHT_GRADIENT)
        )
        assert sum(part[0] for part in (first, second)) == pytest.approx(both[0])
        assert sum(part[1] for part in (first, second)) == pytest.approx(both[1])
        joined = stack == "torch-autocast" and recompute in ("selective_op", "full")
        assert (second == (0.0, 0.0)) == joined
