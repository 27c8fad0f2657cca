"""Named networks and a user's own module, trained by plans, give the numbers of one process.

Batch norm knows the samples of a micro-batch, as replicas have it everywhere without synchronisation, so the
single process accumulates over the same micro-batches.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from traincast.sim.plan.job import Job
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.strategy import Strategy

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from agreement import assert_agrees, run  # noqa: E402

from traincast.executor.model.reference import Outcome, single_process  # noqa: E402
from traincast.executor.model.references import look_in  # noqa: E402
from traincast.lab.module import user_model  # noqa: E402
from traincast.sim.trace.trace import Trace  # noqa: E402

STEPS = 2
NOISE = 1e-4
"""Of the largest gradient of all."""
OWN = """
from torch import nn
from torch.nn import functional as F
from traincast.executor.model.data.digits import load_digits
import torch

class Block(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.conv = nn.Conv2d(a, b, 3, padding=1, bias=False)
        self.norm, self.past = nn.BatchNorm2d(b), nn.Conv2d(a, b, 1)
    def forward(self, x):
        return F.relu(self.norm(self.conv(x)) + self.past(x))

def net():
    blocks = [Block(1, 4), Block(4, 4), Block(4, 8)]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 10))

def batches(step, samples):
    pictures, classes = map(torch.from_numpy, load_digits())
    return pictures[step * samples:(step + 1) * samples], classes[step * samples:(step + 1) * samples]

def loss(outputs, targets):
    return F.cross_entropy(outputs, targets, label_smoothing=0.1)
"""


def job(name: str, **changes) -> Job:
    fields = {"global_batch": 8, "seq_len": 1, "optimizer": "sgd", "precision": "fp32", "learning_rate": 0.05}
    return Job(name, **{**fields, **changes})


CASES = {
    "resnet by replicas and stages": (job("resnet-digits"), {"dp": 2, "pp": 2, "micro_batch": 2}),
    "resnet with halved backwards": (
        job("resnet-digits"),
        {"pp": 2, "micro_batch": 2, "schedule": "zb-h1"},
    ),
    "resnet with several stages a rank": (
        job("resnet-digits"),
        {"pp": 2, "vp": 2, "micro_batch": 2, "schedule": "interleaved"},
    ),
    "resnet computed again": (job("resnet-digits"), {"dp": 2, "micro_batch": 2, "recompute": "full"}),
    "vgg, which drops values": (job("vgg-tiny"), {"dp": 2, "pp": 2, "micro_batch": 2}),
    "mlp with its first layer alone, in halves": (
        job("mlp-digits"),
        {
            "pp": 2,
            "micro_batch": 2,
            "schedule": "zb-h1",
            "stage_layers": (1, job("mlp-digits").model.blocks - 1),
        },
    ),
    "mlp": (job("mlp-digits"), {"dp": 2, "pp": 2, "micro_batch": 2}),
    "dlrm with tables behind the cut": (
        job("dlrm-tiny"),
        {"pp": 2, "micro_batch": 4, "stage_layers": (4, 5)},
    ),
    "bert by replicas": (job("bert-tiny", seq_len=16), {"dp": 2, "micro_batch": 2}),
    "gnmt by replicas": (job("gnmt-tiny", seq_len=6), {"dp": 2, "micro_batch": 2}),
}


@pytest.mark.parametrize("case", CASES)
def test_networks_give_the_numbers_of_one_process(case, tmp_path):
    wanted, fields = CASES[case]
    plan = make_plan(wanted, Strategy(**fields))
    trace, states = run(plan, tmp_path, steps=STEPS - 1, warmup=1)
    expected = single_process(wanted, STEPS, micro_batch=fields["micro_batch"])
    assert_agrees(*without_noise(expected, trace, states))
    assert expected.losses[-1] != expected.losses[0]


def without_noise(expected: Outcome, trace: Trace, states: list) -> tuple[Outcome, Trace, list]:
    """Without parameters whose gradient is 0 but for rounding, as that of the bias of attention's keys, which
    adds the same to all scores of a token."""
    most = max(float(g.abs().max()) for g in expected.gradients.values())
    noise = {name for name, g in expected.gradients.items() if float(g.abs().max()) < NOISE * most}
    assert len(noise) < len(expected.gradients) / 8

    def kept(named):
        return {name: value for name, value in named.items() if name not in noise}

    outcome = Outcome(expected.losses, kept(expected.parameters), kept(expected.gradients))
    return outcome, trace, [{what: kept(own) for what, own in state.items()} for state in states]


@pytest.mark.parametrize(
    "fields", [{"dp": 2, "pp": 2, "schedule": "1f1b"}, {"dp": 2, "pp": 1}], ids=["dp2 pp2", "dp2"]
)
def test_a_users_own_module_gives_the_numbers_of_one_process(fields, tmp_path, monkeypatch):
    """Module, data and loss are imported from the user's folder by every rank."""
    (tmp_path / "own_module.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    names = {"data": "own_module:batches", "loss": "own_module:loss"}
    model = user_model("own_module:net", data=names["data"], global_batch=8)
    wanted = replace(job("mlp-digits", **names), model=model)
    plan = make_plan(wanted, Strategy(micro_batch=2, **fields))
    trace, states = run(plan, tmp_path, steps=STEPS - 1, warmup=1, import_from=str(tmp_path))
    look_in(tmp_path)
    assert_agrees(single_process(wanted, STEPS, micro_batch=2), trace, states)
    assert Path("own_module.py").exists()
