"""A user's own module is split along its children where its forward is nothing but these."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from traincast.sim.errors import InputError, UsageError
from traincast.sim.plan.job import Job

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from traincast.executor.model.user_module import output_shapes, split, trained  # noqa: E402
from traincast.executor.model.workload import Workload  # noqa: E402
from traincast.lab.module import user_model  # noqa: E402

IMAGE = torch.randn(2, 1, 8, 8)


class Composed(nn.Module):
    """Its children in order."""

    def __init__(self, *, flat_inside: bool = True):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU())
        self.drop = nn.Dropout(0.5)
        self.flat = nn.Flatten()
        self.head = nn.Linear(108, 10)
        self.flat_inside = flat_inside

    def forward(self, x):
        x = self.drop(self.body(x))
        return self.head(self.flat(x) if self.flat_inside else self.flat(2 * x))


def test_children_with_parameters_begin_layers():
    """Others go with the one before; a Sequential is opened; dropout draws alike when both ways are tried."""
    layers = split(Composed().train(), IMAGE)
    assert [[type(m).__name__ for m in layer.modules() if not list(m.children())] for layer in layers] == [
        ["Conv2d"],
        ["BatchNorm2d", "ReLU", "Dropout", "Flatten"],
        ["Linear"],
    ]
    assert [trained(layer) for layer in layers] == [30, 6, 1090]
    assert output_shapes(layers, IMAGE) == [(3, 6, 6), (108,), (10,)]


def test_a_forward_that_does_more_is_one_layer():
    module = Composed(flat_inside=False).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    assert split(module, IMAGE) == [module]
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_layers_that_share_parameters_are_one():
    shared = nn.Linear(4, 4)
    assert len(split(nn.Sequential(nn.Sequential(shared), nn.Sequential(shared)), torch.randn(2, 4))) == 1


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A user's folder, in which the program is run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("of_user_")]:
        del sys.modules[name]


NET = """
import torch
from torch import nn
def net():
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
def fixed(step):
    return torch.full((4, 6), float(step)), torch.zeros(4, dtype=torch.int64)
def any_number(step, samples):
    return torch.full((samples, 6), float(step)), torch.zeros(samples, dtype=torch.int64)
def again():
    for step in range(3):
        yield fixed(step)
listed = [fixed(0), fixed(1)]
def wrong(step):
    return torch.zeros(4, 6)
nothing = []
"""


def job(folder, name: str, data: str, **changes) -> Job:
    (folder / f"{name}.py").write_text(NET)
    model = user_model(f"{name}:net", shape=(6,))
    return Job(model, global_batch=4, precision="fp32", optimizer="sgd", data=f"{name}:{data}", **changes)


def test_the_layers_are_those_that_were_planned(folder):
    own = job(folder, "of_user_a", "fixed")
    assert own.model.module == "of_user_a:net"
    assert [layer.parameters for layer in own.model.layers] == [35, 18]
    assert own.model.network is not None
    assert [part.passed for part in own.model.network.parts] == [5, 0]
    work = Workload(job=own)
    whole, first, last = (work.layers(which) for which in ([0, 1], [0], [1]))
    inputs, targets = work.samples().batch(1)
    message = first(inputs)
    assert message.shape == work.boundary_shape(0, 4)
    assert torch.equal(last(message), whole(inputs))
    assert work.loss(whole(inputs), targets).item() == pytest.approx(
        nn.functional.cross_entropy(whole(inputs), targets).item()
    )


def test_another_module_than_the_one_that_was_planned_is_refused(folder):
    own = job(folder, "of_user_b", "fixed")
    changed = replace(own.model, network=replace(own.model.network, parts=own.model.network.parts[:1] * 2))
    with pytest.raises(InputError, match=r"expected 2 with \[35, 35\], as planned.*plan it again"):
        Workload(job=replace(own, model=changed)).layers([0])


@pytest.mark.parametrize(
    ("data", "values"),
    [
        ("fixed", [0, 1, 5, 3]),
        ("any_number", [0, 1, 5, 3]),
        ("again", [0, 1, 2, 0]),
        ("listed", [0, 1, 1, 1]),
    ],
)
def test_samples_are_a_function_or_an_iterable(folder, data, values):
    """An iterable starts again at its end, and for a step before the last that was asked for."""
    samples = Workload(job=job(folder, f"of_user_{data}", data)).samples()
    assert [samples.batch(step)[0][0, 0].item() for step in (0, 1, 5, 3)] == values
    assert samples.batch(0)[0][0, 0].item() == 0
    assert [len(x) for x, _ in samples.micro_batches(0, 1, 2, 1)] == [1, 1]


@pytest.mark.parametrize(
    ("data", "found"), [("wrong", "gives Tensor"), ("nothing", "gives nothing"), ("missing", "no attribute")]
)
def test_samples_that_are_none_are_refused(folder, data, found):
    with pytest.raises(InputError, match=found):
        Workload(job=job(folder, f"of_user_{data}", data)).samples().batch(0)


def test_a_batch_of_another_size_is_refused(folder):
    own = replace(job(folder, "of_user_c", "fixed"), global_batch=8)
    with pytest.raises(InputError, match=r"gives 4 inputs and 4 targets -> expected .* of 8 samples each"):
        Workload(job=own).samples().batch(0)


def test_a_module_without_samples_needs_a_shape(folder):
    (folder / "of_user_d.py").write_text(NET)
    with pytest.raises(UsageError, match="of_user_d:net needs --data"):
        user_model("of_user_d:net")
    with pytest.raises(InputError, match="of_user_e"):
        user_model("of_user_e:net", shape=(6,))
    (folder / "of_user_f.py").write_text("def net():\n    return []\n")
    with pytest.raises(InputError, match="returned list, no torch"):
        user_model("of_user_f:net", shape=(6,))
