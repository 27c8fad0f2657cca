"""Runs whose updates are not those of one process on the global batch, against what their rules say.

A pipeline that is never drained computes with weights that later updates do not touch (PipeDream: Narayanan
et al. 2019, section 3.3); replicas that average now and then drift apart between (local SGD: Stich 2019).
"""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from agreement import LOSS, STATE, run  # noqa: E402

from traincast.executor.model.reference import relative_difference  # noqa: E402
from traincast.executor.model.workload import Workload  # noqa: E402
from traincast.sim.plan.action import Kind  # noqa: E402
from traincast.sim.plan.make_plan import make_plan  # noqa: E402
from traincast.sim.plan.plan import Plan  # noqa: E402
from traincast.sim.plan.step_counts import steps_played  # noqa: E402
from traincast.sim.plan.strategy import Strategy  # noqa: E402

pytestmark = pytest.mark.slow

UNFLUSHED = {
    "pipedream": Strategy(pp=2, micro_batch=2, schedule="pipedream"),
    "pipedream, 4 stages": Strategy(pp=4, micro_batch=2, schedule="pipedream"),
    "pipedream-2bw": Strategy(pp=2, micro_batch=2, schedule="pipedream-2bw"),
    "pipedream × dp": Strategy(pp=2, dp=2, micro_batch=2, schedule="pipedream"),
}


@pytest.fixture
def sgd_job(tiny_job):
    """Plain SGD: an update is a gradient."""
    return replace(tiny_job, optimizer="sgd", learning_rate=0.1)


@pytest.mark.parametrize("name", UNFLUSHED)
def test_each_backward_uses_the_weights_of_its_forward(sgd_job, tmp_path, name):
    plan = make_plan(sgd_job, UNFLUSHED[name])
    trace, states = run(plan, tmp_path, steps=1, warmup=0)
    losses, parameters = _replayed(plan)
    for a, b in zip(trace.metadata["losses"], losses, strict=True):
        assert abs(a / b - 1) < LOSS
    for state in states:
        for name_, tensor in state["parameters"].items():
            assert relative_difference(tensor, parameters[name_]) < STATE, name_
    assert len(trace.step_times_s) == 1


def _replayed(plan: Plan) -> tuple[list[float], dict]:
    """Losses by step and final parameters, from each rank's list: a micro-batch meets on every stage the
    version that was the latest when the list has its forward."""
    job, strategy, per_step = plan.job, plan.strategy, plan.micro_batches
    workload = Workload(job=job)
    model = workload.layers(range(len(job.model.layers)))
    named = model.named()
    stage_of = {
        name: stage.index
        for name in named
        for stage in plan.stages
        if int(name.split(".")[0]) in stage.layer_indices
    }
    steps = steps_played(strategy, job)
    batches = [
        [part for step in range(steps) for part in workload.samples().micro_batches(step, dp, strategy.dp, 2)]
        for dp in range(strategy.dp)
    ]
    versions = [[{n: p.detach().clone() for n, p in named.items()}] for _ in plan.stages]
    gradients: list[dict[int, dict]] = [{} for _ in plan.stages]
    losses = []
    scale = 1.0 / (per_step * strategy.dp)
    for index in range(steps * per_step):
        for stage, actions in enumerate(plan.actions):
            _catch_up(list(actions), index, versions[stage], gradients[stage], job.learning_rate)
            with torch.no_grad():
                for name, parameter in named.items():
                    if stage_of[name] == stage:
                        parameter.copy_(versions[stage][-1][name])
        model.zero_grad()
        total = 0.0
        for own in batches:
            inputs, targets = own[index]
            value = workload.loss(model(inputs), targets) * scale
            value.backward()
            total += value.item()
        losses.append(total)
        for stage in range(len(plan.stages)):
            gradients[stage][index] = {n: p.grad.clone() for n, p in named.items() if stage_of[n] == stage}
    final = {}
    for stage, actions in enumerate(plan.actions):
        _catch_up(list(actions), None, versions[stage], gradients[stage], job.learning_rate)
        final |= {n: versions[stage][-1][n] for n in named if stage_of[n] == stage}
    return [sum(losses[s * per_step : (s + 1) * per_step]) for s in range(steps)], final


def _catch_up(actions: list, until: int | None, versions: list, gradients: dict, rate: float) -> None:
    """Make the versions that a rank has made before its forward of micro-batch ``until``."""
    made, waiting = 0, []
    for action in actions:
        if action.kind is Kind.FORWARD and action.micro_batch == until:
            return
        if action.kind is Kind.BACKWARD:
            waiting.append(action.micro_batch)
        if action.kind is Kind.STEP:
            made += 1
            if made == len(versions):
                latest = dict(versions[-1])
                for index in waiting:
                    for name, gradient in gradients[index].items():
                        latest[name] = latest[name] - rate * gradient
                versions.append(latest)
            waiting = []


def test_local_steps_drift_and_are_averaged(sgd_job, tmp_path):
    plan = make_plan(sgd_job, Strategy(dp=2, micro_batch=2, synchrony="local:2"))
    _, states = run(plan, tmp_path, steps=4, warmup=0)
    workload = Workload(job=sgd_job)
    replicas = [workload.layers(range(len(sgd_job.model.layers))) for _ in range(2)]
    for step in range(4):
        for dp, model in enumerate(replicas):
            parts = workload.samples().micro_batches(step, dp, 2, 2)
            model.zero_grad()
            for inputs, targets in parts:
                (workload.loss(model(inputs), targets) / len(parts)).backward()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter -= sgd_job.learning_rate * parameter.grad
        if step % 2:
            with torch.no_grad():
                for a, b in zip(*(model.parameters() for model in replicas), strict=True):
                    a.copy_((a + b) / 2)
                    b.copy_(a)
    expected = replicas[0].named()
    for state in states:
        for name, tensor in state["parameters"].items():
            assert relative_difference(tensor, expected[name].detach()) < STATE
