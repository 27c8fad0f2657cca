"""Sharded replicas have one process' losses, gradients and parameters, and talk as the plan says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

torch = pytest.importorskip("torch")

import torch.distributed as dist  # noqa: E402
from agreement import assert_agrees, run  # noqa: E402
from ranks import run_ranks  # noqa: E402
from torch import Tensor  # noqa: E402

from traincast.executor.measure.heartbeat import Heartbeat  # noqa: E402
from traincast.executor.measure.recorder import CpuClock, Recorder  # noqa: E402
from traincast.executor.model.decoder import loss  # noqa: E402
from traincast.executor.model.optimizer import make_optimizer  # noqa: E402
from traincast.executor.model.reference import single_process  # noqa: E402
from traincast.executor.model.workload import Workload  # noqa: E402
from traincast.executor.parallel import sharded  # noqa: E402
from traincast.executor.parallel.process_groups import make_groups  # noqa: E402
from traincast.executor.parallel.rank_context import RankContext  # noqa: E402
from traincast.executor.parallel.sharded import Sharding  # noqa: E402
from traincast.executor.parallel.surroundings import Surroundings  # noqa: E402
from traincast.executor.train.stage import Stage, precision  # noqa: E402
from traincast.sim.model.decoder import Decoder  # noqa: E402
from traincast.sim.model.model import Model  # noqa: E402
from traincast.sim.plan.action import Action, Kind  # noqa: E402
from traincast.sim.plan.blocks import reduced_backwards  # noqa: E402
from traincast.sim.plan.job import Job  # noqa: E402
from traincast.sim.plan.make_plan import make_plan  # noqa: E402
from traincast.sim.plan.plan import Plan  # noqa: E402
from traincast.sim.plan.strategy import Strategy  # noqa: E402
from traincast.sim.program.steps import StepKind, steps_of  # noqa: E402

LOSS, GRADIENT = 1e-6, 1e-5
"""Relative to one process; of gradients and parameters to the largest value of their tensor."""
STEPS = 3

DECODER = Decoder(
    hidden=32, layers=3, heads=4, kv_heads=2, head_dim=8, ffn=64, vocab=64, max_positions=16, norm="rmsnorm",
    activation="swiglu", positions="rope", attention_bias=True,
)  # fmt: skip
JOB = Job(
    model=Model(name="tiny", decoder=DECODER),
    global_batch=8,
    seq_len=16,
    optimizer="sgd",
    precision="fp32",
    learning_rate=0.05,
)
TIED = replace(JOB, model=Model(name="tied", decoder=replace(DECODER, tied_embeddings=True)))
ADAM = replace(JOB, optimizer="adamw", learning_rate=0.01)
STACK: dict[str, Any] = {"stack": "torch-autocast"}

TWO = {
    "zero1": Strategy(dp=2, micro_batch=2, sharding="zero1", **STACK),
    "zero1 in small buckets": Strategy(dp=2, micro_batch=2, sharding="zero1", bucket_bytes=4096, **STACK),
    "zero2": Strategy(dp=2, micro_batch=1, sharding="zero2", bucket_bytes=4096, **STACK),
    "fsdp": Strategy(dp=2, micro_batch=2, sharding="fsdp", **STACK),
    "fsdp without prefetch": Strategy(dp=2, micro_batch=4, sharding="fsdp", prefetch=0, **STACK),
    "fsdp far ahead": Strategy(dp=2, micro_batch=2, sharding="fsdp", prefetch=3, **STACK),
    "fsdp, kept whole": Strategy(dp=2, sharding="fsdp", reshard_after_forward=False, **STACK),
    "fsdp, reduced after backward": Strategy(dp=2, sharding="fsdp", overlap_gradients=False, **STACK),
}
FOUR = {
    "zero2 on 4": Strategy(dp=4, micro_batch=1, sharding="zero2", **STACK),
    "fsdp on 4": Strategy(dp=4, micro_batch=1, sharding="fsdp", **STACK),
    "hsdp 2 × 2": Strategy(dp=4, micro_batch=1, sharding="hsdp", shard_degree=2, **STACK),
    "hsdp 4 × 1": Strategy(dp=4, micro_batch=2, sharding="hsdp", shard_degree=1, **STACK),
    "hsdp 1 × 4": Strategy(dp=4, micro_batch=2, sharding="hsdp", shard_degree=4, **STACK),
}
PLANS = {**TWO, **FOUR}


class Outcome(NamedTuple):
    """What training left, by name of the parameter."""

    losses: list[float]
    gradients: dict[str, Tensor]
    """Of the last step."""
    parameters: dict[str, Tensor]
    talk: tuple[tuple[str, float], ...] = ()
    """Of the last step: (action, bytes) of every collective, in order of issue."""


def one_process(job: Job) -> Outcome:
    """The same steps on the whole batch."""
    workload = Workload(job=job)
    layers, samples = workload.layers(range(len(job.model.layers))), workload.samples()
    optimizer, losses = make_optimizer(job, layers.parameters()), []
    for step in range(STEPS):
        optimizer.zero_grad(set_to_none=True)
        inputs, targets = samples.batch(step)
        value = loss(layers(inputs), targets)
        value.backward()
        losses.append(value.item())
        optimizer.step()
    named = dict(layers.named_parameters())
    return Outcome(
        losses,
        {name: p.grad.clone() for name, p in named.items() if p.grad is not None},
        {name: p.detach().clone() for name, p in named.items()},
    )


class Walker:
    """One rank of a plan of one stage: a trainer without messages."""

    def __init__(self, rank: int, plan: Plan):
        self.plan, self.rank = plan, rank
        self.recorder = Recorder(rank, CpuClock(), Heartbeat(Path("/dev/null")))
        here = RankContext(
            plan=plan, rank=rank, device=torch.device("cpu"), groups=make_groups(plan, rank),
            recorder=self.recorder, workload=Workload(job=plan.job),
        )  # fmt: skip
        self.layers = here.workload.layers(range(len(plan.job.model.layers)))
        self.samples = here.workload.samples()
        sharding = sharded.apply({0: self.layers}, here)
        assert sharding is not None
        self.sharding: Sharding = sharding
        self.optimizer = make_optimizer(plan.job, sharding.parameters())
        split = any(p.kind is Kind.WEIGHT_GRADIENT for a in plan.actions[0] for p in a.passes)
        self.stage = Stage(
            self.layers,
            lambda: list(self.layers.parameters()),
            takes_inputs=True,
            split_after=(lambda x: (self.layers.first(x), self.layers.rest)) if split else None,
        )
        actions = plan.actions[0]
        self.completing = {part for place in reduced_backwards(actions) for part in actions[place].passes}

    def step(self, number: int) -> tuple[float, dict[str, Tensor]]:
        """The rank's part of the loss, and the summed gradients."""
        plan = self.plan
        self.recorder.step = number
        batches = self.samples.micro_batches(number, self.rank, plan.strategy.dp, plan.strategy.micro_batch)
        total, gradients = 0.0, {}
        for action in plan.actions[0]:
            if action.kind in self.sharding.handlers:
                self.sharding.handlers[action.kind](action)
            elif action.kind is Kind.STEP:
                gradients = self._update()
            else:
                total += self._pass(action, batches)
        self.recorder.settle()
        return total, gradients

    def _pass(self, part: Action, batches: list[tuple[Tensor, Tensor]]) -> float:
        index, value = part.micro_batch, 0.0
        self.sharding.begin_pass(part, completes=part in self.completing)
        if part.kind is Kind.FORWARD:
            inputs, targets = batches[index]
            with precision(self.plan.job, torch.device("cpu")):
                out = loss(self.stage.forward(index, inputs), targets) / len(batches) / self.plan.strategy.dp
            self.stage.ends_in(index, out)
            value = out.item()
        elif part.kind is Kind.BACKWARD:
            self.stage.backward(index, None)
        elif part.kind is Kind.INPUT_GRADIENT:
            self.stage.backward_input(index, None)
        else:
            self.stage.backward_weight(index)
        self.sharding.end_pass(part)
        return value

    def _update(self) -> dict[str, Tensor]:
        self.sharding.finish()
        gradients = self._named(self.sharding.gradients())
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return gradients

    def _named(self, found: dict[Any, Tensor]) -> dict[str, Tensor]:
        return {name: found[p].clone() for name, p in self.layers.named_parameters() if p in found}


def train(rank: int, plan: Plan) -> Outcome:
    """What one rank has after the steps of ``plan``."""
    walker = Walker(rank, plan)
    losses, gradients = [], {}
    for number in range(STEPS):
        part, gradients = walker.step(number)
        total = torch.tensor(part, dtype=torch.float64)
        dist.all_reduce(total)
        losses.append(total.item())
    marks = sorted((m for m in walker.recorder.marks if m.step == STEPS - 1), key=lambda m: m.issued)
    assert all(mark.end is not None and mark.end >= mark.issued for mark in marks)
    return Outcome(
        losses,
        gradients,
        walker._named(walker.sharding.values()),
        tuple((mark.action, mark.bytes) for mark in marks),
    )


def expected_talk(plan: Plan) -> tuple[tuple[str, float], ...]:
    """What the simulator plays, in its order of issue; groups of one say nothing."""
    sizes = {"shards": plan.strategy.shards, "shard_replicas": plan.strategy.replicas // plan.strategy.shards}
    found = [step for step in steps_of(plan, 0) if step.kind is StepKind.COLLECTIVE]
    return tuple(
        (str(replace(step.action, ahead=-1)), step.collective.total_bytes)
        for step in found
        if step.collective is not None and sizes[step.collective.group] > 1
    )


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], limit: float) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        scale = max(float(tensor.abs().max()), 1e-12)
        assert float((found[name] - tensor).abs().max()) / scale < limit, name


def assert_one_process(job: Job, strategy: Strategy, reference: Outcome, **options: Any) -> list[Outcome]:
    plan = make_plan(job, strategy, **options)
    outcomes = run_ranks(plan.world_size, train, plan)
    for outcome in outcomes:
        assert outcome.losses == pytest.approx(reference.losses, rel=LOSS)
        assert_close(outcome.gradients, reference.gradients, GRADIENT)
        assert_close(outcome.parameters, reference.parameters, GRADIENT)
    return outcomes


@pytest.fixture(scope="module")
def references():
    torch.set_num_threads(1)
    return {id(job): one_process(job) for job in (JOB, TIED, ADAM)}


@pytest.mark.parametrize("name", PLANS)
def test_one_process(references, name):
    """Losses, gradients and parameters of several micro-batches and steps; and what is said, in order."""
    outcomes = assert_one_process(JOB, PLANS[name], references[id(JOB)])
    plan = make_plan(JOB, PLANS[name])
    if PLANS[name].sharding == "hsdp" and PLANS[name].shard_degree == 2:
        # What crosses the groups starts when what is inside them has ended, which others need not wait for.
        assert sorted(outcomes[0].talk) == sorted(expected_talk(plan))
    else:
        assert outcomes[0].talk == expected_talk(plan)


@pytest.mark.parametrize("name", ["zero1", "zero2", "fsdp", "fsdp, kept whole"])
def test_tied_embeddings(references, name):
    """One matrix in two layers is gathered for both, and its gradient has both parts."""
    assert_one_process(TIED, TWO[name], references[id(TIED)])


@pytest.mark.parametrize("name", ["zero2", "fsdp", "hsdp 2 × 2"])
def test_adam(references, name):
    """Parts are stepped as wholes would be."""
    plan = make_plan(ADAM, PLANS[name])
    outcome = run_ranks(plan.world_size, train, plan)[0]
    assert_close(outcome.parameters, references[id(ADAM)].parameters, 2e-3)  # Adam magnifies tiny gradients


HALVES = "0F0 0F1 0I0 0F2 0I1 0W0 0F3 0I2 0W1 0I3 0W2 0W3"


@pytest.mark.parametrize("name", ["zero1", "fsdp", "fsdp, kept whole"])
def test_backward_in_halves(references, name):
    """Gathered for the halves that compute gradients of inputs, reduced behind the last of weights."""
    orders = (tuple(Action.parse(token) for token in HALVES.split()),)
    strategy = replace(PLANS[name], micro_batch=1, schedule="csv")
    assert_one_process(JOB, strategy, references[id(JOB)], orders=orders)


def test_half_precision(references):
    """Parameters are gathered in bf16, gradients summed in fp32: numbers of one process, roughly."""
    job = replace(JOB, precision="bf16")
    for strategy in (TWO["zero1"], TWO["fsdp"]):
        plan = make_plan(job, strategy)
        outcome = run_ranks(2, train, plan)[0]
        assert outcome.losses == pytest.approx(references[id(JOB)].losses, rel=5e-3)
        assert outcome.talk == expected_talk(plan)


TRAINED = {
    "fsdp × 1f1b": Strategy(dp=2, pp=2, sharding="fsdp", **STACK),
    "fsdp, kept whole × 1f1b": Strategy(dp=2, pp=2, sharding="fsdp", reshard_after_forward=False, **STACK),
    "zero1 × interleaved": Strategy(dp=2, pp=2, vp=2, schedule="interleaved", sharding="zero1", **STACK),
    "zero2 × zb-h1": Strategy(dp=2, pp=2, schedule="zb-h1", sharding="zero2", **STACK),
    "fsdp × zbv": Strategy(dp=2, pp=2, vp=2, schedule="zbv", sharding="fsdp", **STACK),
    "fsdp × dualpipev": Strategy(dp=2, pp=2, vp=2, schedule="dualpipev", sharding="fsdp", **STACK),
    "fsdp × zb-h1, in full": Strategy(
        dp=2, pp=2, schedule="zb-h1", sharding="fsdp", recompute="full", **STACK
    ),
    "zb-h1, some kept": Strategy(pp=2, schedule="zb-h1", recompute="selective_op", **STACK),
    "zb-h1, attention again": Strategy(pp=2, schedule="zb-h1", recompute="selective", **STACK),
}
DIVIDED = {
    "fsdp × tp": Strategy(dp=2, tp=2, micro_batch=2, sharding="fsdp", **STACK),
    "zero2 × tp, tokens too": Strategy(dp=2, tp=2, sharding="zero2", sequence_parallel=True, **STACK),
    "fsdp × cp": Strategy(dp=2, cp=2, micro_batch=2, sharding="fsdp", **STACK),
}
DEEP = replace(JOB, model=Model(name="deep", decoder=replace(DECODER, layers=4)))
DEEP_TIED = replace(JOB, model=Model(name="deep", decoder=replace(DECODER, layers=4, tied_embeddings=True)))


EXPERTS = replace(
    JOB,
    model=Model(
        name="experts", decoder=replace(DECODER, layers=2, experts=4, experts_per_token=2, expert_ffn=32)
    ),
)
WITH_EXPERTS = {
    "fsdp × ep2": Strategy(dp=2, ep=2, micro_batch=2, sharding="fsdp", **STACK),
    "zero1 × ep2 of 4": Strategy(dp=4, ep=2, micro_batch=2, sharding="zero1", **STACK),
    "hsdp × ep2 of 4": Strategy(dp=4, ep=2, micro_batch=2, sharding="hsdp", shard_degree=2, **STACK),
}


def run_and_compare(job: Job, strategy: Strategy, directory: Path) -> None:
    """By the workers of a run, without their processes."""
    plan = make_plan(job, strategy)
    trace, states = run(plan, directory, steps=STEPS - 1, warmup=1)
    reference = single_process(job, STEPS, micro_batch=strategy.micro_batch, ep=strategy.ep)
    assert_agrees(reference, trace, states)


@pytest.mark.parametrize("job", [DEEP, DEEP_TIED], ids=["untied", "tied"])
@pytest.mark.parametrize("name", TRAINED)
def test_in_pipelines(job, name, tmp_path):
    """Several stages, halves of backwards, recomputation; tied matrices at both ends."""
    if sharded.refusals(make_plan(job, TRAINED[name]), Surroundings(kind="cpu")):
        pytest.skip("both ends on one rank: refused")
    run_and_compare(job, TRAINED[name], tmp_path)


@pytest.mark.parametrize("job", [DEEP, DEEP_TIED], ids=["untied", "tied"])
@pytest.mark.parametrize("name", DIVIDED)
def test_divided_layers(job, name, tmp_path):
    """Parts of parts; summands of what tensor-parallel ranks have whole are summed part by part."""
    run_and_compare(job, DIVIDED[name], tmp_path)


@pytest.mark.parametrize("name", WITH_EXPERTS)
def test_experts(name, tmp_path):
    """Their parts are those of the ranks that hold the same experts."""
    run_and_compare(EXPERTS, WITH_EXPERTS[name], tmp_path)


def fully_sharded(rank: int, job: Job, micro_batches: int) -> Outcome:
    """The same by torch's own `fully_shard`, sums instead of means."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    workload = Workload(job=job)
    layers: Any = workload.layers(range(len(job.model.layers)))
    for layer in layers.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(layers, mesh=mesh)
    for module in (*layers.layers, layers):
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)
    optimizer = torch.optim.SGD(layers.parameters(), lr=job.learning_rate)
    size = job.global_batch // dist.get_world_size() // micro_batches
    losses, gradients = [], {}
    for step in range(STEPS):
        batches = workload.samples().micro_batches(step, rank, dist.get_world_size(), size)
        total = torch.zeros((), dtype=torch.float64)
        for inputs, targets in batches:
            value = loss(layers(inputs), targets) / len(batches) / dist.get_world_size()
            value.backward()
            total += value.detach()
        dist.all_reduce(total)
        losses.append(total.item())
        gradients = {name: p.grad.full_tensor() for name, p in layers.named_parameters()}
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return Outcome(losses, gradients, {n: p.full_tensor().detach() for n, p in layers.named_parameters()})


def test_fully_shard_is_the_same():
    """torch's own FSDP, on the same micro-batches, has the same numbers."""
    theirs = run_ranks(2, fully_sharded, JOB, 2)[0]
    ours = run_ranks(2, train, make_plan(JOB, TWO["fsdp"]))[0]
    assert ours.losses == pytest.approx(theirs.losses, rel=1e-7)
    assert_close(ours.gradients, theirs.gradients, 1e-6)
    assert_close(ours.parameters, theirs.parameters, 1e-6)


def test_refusals():
    """A tied matrix whose layers are stages of one rank; rows that tensor parallelism divides unevenly."""
    here = Surroundings(kind="cpu")
    shape: dict[str, Any] = {"pp": 2, "vp": 2, "schedule": "zbv", "stage_layers": (1, 1, 1, 0)}
    plan = make_plan(TIED, Strategy(dp=2, sharding="zero1", **shape, **STACK))
    (found,) = sharded.refusals(plan, here)
    assert "tied embeddings" in found
    odd = replace(JOB, model=Model(name="odd", decoder=replace(DECODER, vocab=63)))
    (found,) = sharded.refusals(make_plan(odd, Strategy(dp=2, tp=2, sharding="fsdp", **STACK)), here)
    assert "vocabulary of 63" in found
    assert sharded.refusals(make_plan(TIED, TWO["fsdp"]), here) == []
