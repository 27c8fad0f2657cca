"""What cannot be run here is said before anything starts, in a sentence that names the field."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from traincast.executor.run.environment import check_environment, refused  # noqa: E402
from traincast.sim.errors import EnvironmentMismatchError  # noqa: E402
from traincast.sim.plan.job import Job  # noqa: E402
from traincast.sim.plan.make_plan import make_plan  # noqa: E402
from traincast.sim.plan.strategy import Strategy  # noqa: E402

EXPERTS = {"experts": 4, "experts_per_token": 2, "expert_ffn": 16}
SERVER = {"gradient_exchange": "parameter_server", "servers": 1}


def sentences(job: Job, decoder: dict | None = None, **fields) -> list[str]:
    """Fields of the strategy and, by their names, of the job."""
    changes = {name: fields.pop(name) for name in ("precision", "dropout") if name in fields}
    model = replace(job.model, decoder=replace(job.model.decoder, **(decoder or {})))
    return refused(make_plan(replace(job, model=model, **changes), Strategy(**fields)))


@pytest.mark.parametrize(
    ("decoder", "fields", "begins"),
    [
        ({}, {"cp": 2, "synchrony": "local:2"}, "synchrony local:2 with cp 2"),
        (EXPERTS, {"dp": 2, "ep": 2, "synchrony": "local:2"}, "synchrony local:2 with ep 2"),
        (EXPERTS, {"precision": "fp16"}, "fp16 with experts"),
        ({}, {"pp": 2, "schedule": "pipedream", "precision": "fp16"}, "fp16 with schedule pipedream"),
        ({}, {"dp": 2, "dropout": True, **SERVER}, "dropout with parameter servers"),
        ({}, {"attention": "eager", "stack": "torchtitan"}, "attention eager, stack torchtitan"),
    ],
)
def test_the_field_is_named(tiny_job, decoder, fields, begins):
    (sentence,) = sentences(tiny_job, decoder, **fields)
    assert sentence.startswith(begins)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize(
    ("fields", "begins"),
    [
        ({"precision": "tf32"}, "precision tf32"),
        ({"dp": 2, "collective_algorithm": "tree"}, "collective_algorithm tree"),
        ({"offload": "both"}, "offload both"),
    ],
)
def test_what_needs_a_gpu_is_named(tiny_job, fields, begins):
    (sentence,) = sentences(tiny_job, **fields)
    assert sentence.startswith(begins)


def test_all_reasons_are_told_at_once(tiny_job):
    plan = make_plan(tiny_job, Strategy(attention="eager", cp=2, synchrony="local:2"))
    with pytest.raises(EnvironmentMismatchError) as caught:
        check_environment(plan)
    assert str(caught.value) == "; ".join(refused(plan))
    assert len(refused(plan)) == 2


def test_ends_of_a_tied_pipeline_on_one_rank_run(tiny_job):
    """Its first stage is the last that adds to the gradient of the one matrix, under every schedule there
    is."""
    tied = {"tied_embeddings": True}
    assert sentences(tiny_job, tied, dp=2, pp=2, vp=2, schedule="zbv") == []
    assert sentences(tiny_job, tied, dp=2, pp=2, vp=2, schedule="dualpipev") == []
