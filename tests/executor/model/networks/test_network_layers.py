"""Named networks as torch modules: the parameters their descriptions say, the same whatever the partition."""

from __future__ import annotations

from dataclasses import replace

import pytest

from traincast.sim.errors import InputError
from traincast.sim.model.hf_config import read_model
from traincast.sim.model.networks.presets import NETWORKS
from traincast.sim.plan.job import Job

torch = pytest.importorskip("torch")

from traincast.executor.model.networks.network_layers import build_network, program_of_model  # noqa: E402
from traincast.executor.model.reference import single_process  # noqa: E402
from traincast.executor.model.workload import Workload  # noqa: E402

SMALL = {
    "resnet-digits": 1,
    "vgg-tiny": 1,
    "alexnet-tiny": 1,
    "mlp-digits": 1,
    "dlrm-tiny": 1,
    "bert-tiny": 32,
    "transformer-tiny": 12,
    "gnmt-tiny": 10,
    "inception-small": 1,
}
"""Networks that are quick on a processor, and the tokens of a sample."""
LIGHT = [name for name in SMALL if name != "inception-small"]
META = torch.device("meta")


def workload(name: str, **changes) -> Workload:
    fields = {"global_batch": 4, "seq_len": SMALL[name], "optimizer": "sgd", "precision": "fp32"}
    return Workload(job=Job(name, **{**fields, **changes}), seed=3)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_has_the_parameters_that_its_costs_count(name):
    """Built on the meta device, where ResNet-152 is as small as any."""
    model = read_model(name)
    made = build_network(model, range(len(model.layers)), seed=0, device=META)
    found = {index: sum(p.numel() for p in own) for index, own in made.layer_parameters().items()}
    assert found == {layer.index: layer.parameters for layer in model.layers}


@pytest.mark.parametrize("name", LIGHT)
def test_what_crosses_every_cut_has_the_size_of_its_message(name):
    """Each tensor that is carried behind a layer is one that the description passes on."""
    work = workload(name)
    layers = work.layers(range(len(work.job.model.layers)))
    state = layers.enter(work.samples().batch(0)[0])
    assert work.program is not None
    for layer, part in zip(layers.layers[:-1], work.program.network.parts, strict=False):
        state = layer(state)
        crossing = state[1 : 1 + len(work.program.crossing[layer.index])]
        values = sum(x.numel() for x in crossing) / (work.job.global_batch * work.job.seq_len)
        assert values == part.passed


@pytest.mark.parametrize("name", LIGHT)
def test_training_learns(name):
    """The loss of one batch, seen again and again, falls."""
    work = workload(name, learning_rate=1e-3, optimizer="adamw")
    layers = work.layers(range(len(work.job.model.layers)))
    inputs, targets = work.samples().batch(0)
    optimizer = torch.optim.Adam(layers.parameters(), lr=1e-3)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        value = work.loss(layers(inputs), targets)
        value.backward()
        assert all(p.grad is not None for p in layers.parameters())
        optimizer.step()
        losses.append(value.item())
    assert losses[-1] < losses[0]


CUTS = {"resnet-digits": (2, 4, 9), "vgg-tiny": (3,), "alexnet-tiny": (4, 6), "mlp-digits": (1, 2),
        "dlrm-tiny": (1, 4), "inception-small": (30,)}  # fmt: skip


@pytest.mark.parametrize("name", CUTS)
def test_stages_one_after_the_other_are_the_whole(name):
    """Loss and every gradient, with one tensor of the planned shape between stages."""
    work = workload(name, global_batch=2)
    count = len(work.job.model.layers)
    whole = work.layers(range(count))
    inputs, targets = work.samples().batch(0)
    work.loss(whole(inputs), targets).backward()
    ends = [*CUTS[name], count]
    stages = [work.layers(range(a, b)) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    x = inputs
    for stage in stages:
        stage.inputs = inputs
        x = stage(x)
        if not stage.is_last:
            assert x.shape == work.boundary_shape(stage.indices[-1], len(inputs))
            assert x.dtype == torch.float32
    work.loss(x, targets).backward()
    wanted = whole.layer_parameters()
    for stage in stages:
        for index, own in stage.layer_parameters().items():
            for mine, theirs in zip(own, wanted[index], strict=True):
                torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-5, atol=1e-7)


def test_halves_of_a_first_stage_are_the_whole():
    """`first` and `rest` meet in one tensor, whose gradient a split backward needs."""
    work = workload("resnet-digits")
    layers = work.layers(range(6))
    inputs, _ = work.samples().batch(0)
    layers.inputs = inputs
    assert torch.equal(layers.rest(layers.first(inputs)), layers(inputs))


@pytest.mark.parametrize("name", ["vgg-tiny", "bert-tiny"])
def test_dropped_values_depend_on_the_samples_alone(name):
    """Whoever computes a micro-batch drops the same, and of other samples other values."""
    work = workload(name)
    layers = work.layers(range(len(work.job.model.layers)))
    inputs, targets = work.samples().batch(0)
    first, again = (work.loss(layers(inputs), targets).item() for _ in range(2))
    assert first == again
    dropped = [m for m in layers.modules() if type(m).__name__ == "_Dropout"]
    assert dropped
    x = torch.ones(4, 50)
    one, other = dropped[0](inputs, x), dropped[0](work.samples().batch(1)[0], x)
    assert not torch.equal(one, other)
    assert one.mean() == pytest.approx(1.0, abs=0.3)


def test_recomputation_changes_nothing():
    work = workload("resnet-digits")
    inputs, targets = work.samples().batch(0)
    gradients = []
    for policy in ("none", "full"):
        layers = work.layers(range(14), recompute=policy)
        work.loss(layers(inputs), targets).backward()
        gradients.append([p.grad for p in layers.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)


def test_a_single_process_accumulates_as_replicas_do():
    """In groups of the same samples: batch norm knows a micro-batch only, so other groups give others."""
    job = workload("resnet-digits", global_batch=8).job
    one, again = (single_process(job, 2, micro_batch=2) for _ in range(2))
    assert one.losses == again.losses
    assert single_process(job, 2).losses != one.losses
    assert {int(name.split(".")[0]) for name in one.parameters} <= set(range(14))
    assert set(one.gradients) == set(one.parameters)


def test_a_description_that_no_preset_has_is_refused():
    model = replace(read_model("mlp-digits"), name="mine")
    with pytest.raises(InputError, match=r"mine is a description of costs.*--model package\.module:function"):
        program_of_model(model)


def test_a_layer_without_its_table_is_refused():
    model = read_model("bert-tiny")
    with pytest.raises(InputError, match="shares the table of a look-up that another stage holds"):
        build_network(model, range(len(model.layers) - 1, len(model.layers)), seed=0)
