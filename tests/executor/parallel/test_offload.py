"""Activations and optimizer states that come and go leave every number as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from traincast.executor.measure.heartbeat import Heartbeat  # noqa: E402
from traincast.executor.measure.recorder import CpuClock, CudaClock, Recorder  # noqa: E402
from traincast.executor.model.decoder import build_layers, loss  # noqa: E402
from traincast.executor.model.optimizer import make_optimizer  # noqa: E402
from traincast.executor.parallel import offload  # noqa: E402
from traincast.executor.parallel.offload import ActivationOffload, HostStates  # noqa: E402
from traincast.executor.parallel.surroundings import Surroundings  # noqa: E402
from traincast.sim.plan.action import Action, Kind  # noqa: E402
from traincast.sim.plan.make_plan import make_plan  # noqa: E402
from traincast.sim.plan.strategy import Strategy  # noqa: E402

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
"""On the CPU, which plans are refused for, the copies are plain ones."""


def micro_batches(job, device, count=2):
    generator = torch.Generator().manual_seed(1)
    vocab = job.model.decoder.vocab
    tokens = torch.randint(0, vocab, (count, 2, job.seq_len + 1), generator=generator).to(device)
    return [(part[:, :-1], part[:, 1:]) for part in tokens]


def gradients_of(layers, values):
    for value in values:
        value.backward()
    found = [p.grad.clone() for p in layers.parameters()]
    for parameter in layers.parameters():
        parameter.grad = None
    return found


@pytest.mark.parametrize("device", DEVICES)
def test_activations(tiny_job, device):
    """Two micro-batches are away at once; what is gone is gone, and comes back as it was."""
    layers = build_layers(
        tiny_job.model.decoder, range(len(tiny_job.model.layers)), seed=0, device=torch.device(device)
    )
    batches = micro_batches(tiny_job, device)
    expected = gradients_of(layers, [loss(layers(x), y) for x, y in batches])
    clock = CudaClock() if device == "cuda" else CpuClock()
    recorder = Recorder(0, clock, Heartbeat(Path("/dev/null")))
    activations = ActivationOffload({0: layers}, next(layers.parameters()).device, recorder)
    handlers, values, found = activations.handlers, [], []
    for index, (x, y) in enumerate(batches):
        activations.begin_pass(Action(0, Kind.FORWARD, index))
        values.append(loss(layers(x), y))
        activations.end_pass(Action(0, Kind.FORWARD, index))
        assert activations.bytes_on_device() > 0
        handlers[Kind.OFFLOAD](Action(0, Kind.OFFLOAD, index))
        assert activations.bytes_on_device() == 0
    for index, value in enumerate(values):
        handlers[Kind.FETCH](Action(0, Kind.FETCH, index))
        assert activations.bytes_on_device() > 0
        activations.begin_pass(Action(0, Kind.BACKWARD, index))
        value.backward()
        activations.end_pass(Action(0, Kind.BACKWARD, index))
        assert activations.bytes_on_device() == 0
    found = [p.grad for p in layers.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    recorder.settle()
    assert [mark.action for mark in recorder.marks] == ["0OFFLOAD0", "0OFFLOAD1", "0FETCH0", "0FETCH1"]
    assert len({mark.bytes for mark in recorder.marks}) == 1
    assert recorder.marks[0].bytes > 0


def test_what_was_not_fetched_comes_when_it_is_needed(tiny_job):
    """A backward that comes before its FETCH waits for it."""
    layers = build_layers(tiny_job.model.decoder, range(len(tiny_job.model.layers)), seed=0)
    ((x, y),) = micro_batches(tiny_job, "cpu", 1)
    expected = gradients_of(layers, [loss(layers(x), y)])
    recorder = Recorder(0, CpuClock(), Heartbeat(Path("/dev/null")))
    activations = ActivationOffload({0: layers}, torch.device("cpu"), recorder)
    activations.begin_pass(Action(0, Kind.FORWARD, 0))
    value = loss(layers(x), y)
    activations.end_pass(Action(0, Kind.FORWARD, 0))
    activations.handlers[Kind.OFFLOAD](Action(0, Kind.OFFLOAD, 0))
    assert all(torch.equal(a, b) for a, b in zip(gradients_of(layers, [value]), expected, strict=True))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adamw"])
def test_states(tiny_job, device, optimizer):
    """A few parameters at a time are stepped as all at once would be."""
    job = replace(tiny_job, optimizer=optimizer)
    ours, theirs = (
        build_layers(job.model.decoder, range(len(job.model.layers)), seed=0, device=torch.device(device))
        for _ in range(2)
    )
    stepped, expected = make_optimizer(job, ours.parameters()), make_optimizer(job, theirs.parameters())
    HostStates(stepped, chunk_bytes=4096)
    for _ in range(3):
        for layers, one in ((ours, stepped), (theirs, expected)):
            one.zero_grad(set_to_none=True)
            torch.stack([loss(layers(x), y) for x, y in micro_batches(job, device)]).sum().backward()
            one.step()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    large = [x for state in stepped.state.values() for x in state.values() if torch.is_tensor(x) and x.dim()]
    assert all(x.device.type == "cpu" for x in large)
    assert bool(large) == (optimizer != "sgd")
    assert [len(g["params"]) for g in stepped.param_groups] == [len(list(ours.parameters()))]


def test_refusals(tiny_job):
    """A CPU has no other memory; on a GPU nothing is refused."""
    plan = make_plan(tiny_job, Strategy(offload="both"))
    (found,) = offload.refusals(plan, Surroundings(kind="cpu"))
    assert "nothing to offload to" in found
    assert offload.refusals(plan, Surroundings(kind="gpu")) == []
