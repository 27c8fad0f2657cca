"""What of networks and users' modules cannot be run is said, with the reason, before anything starts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from traincast.sim.model.hf_config import read_model
from traincast.sim.plan.job import Job
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.strategy import Strategy

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from traincast.executor.model.refusals import refusals  # noqa: E402

LAST_ALONE = (len(read_model("inception-v3-aux").layers) - 1, 1)
"""Layers of two stages, the auxiliary classifier on the first."""


def said(name: str, fields: dict | None = None, **changes) -> str:
    own = Job(name, **{"global_batch": 8, "precision": "fp32", **changes})
    return "; ".join(refusals(make_plan(own, Strategy(**(fields or {})))))


@pytest.mark.parametrize(
    ("name", "fields", "changes"),
    [
        ("resnet-digits", {"dp": 2, "pp": 2}, {}),
        ("resnet50", {"dp": 2}, {}),
        ("inception-v3-aux", {"dp": 2}, {}),
        ("bert-base", {"dp": 2}, {"seq_len": 128}),
        ("transformer-big", {}, {"seq_len": 64}),
        ("dlrm-tiny", {"pp": 2}, {}),
        ("tiny-llama-bytes", {"dp": 2}, {"seq_len": 16}),
    ],
)
def test_what_can_be_run_is_not_refused(name, fields, changes):
    assert said(name, fields, **changes) == ""


@pytest.mark.parametrize(
    ("name", "fields", "changes", "reason"),
    [
        ("dlrm", {}, {}, "dlrm has tables with sparse gradients"),
        ("bert-tiny", {"pp": 2}, {"seq_len": 16}, "share the table of layer 0"),
        ("bert-tiny", {"dp": 2, "sharding": "fsdp"}, {"seq_len": 16}, "sharding fsdp: layers of bert-tiny"),
        ("inception-v3-aux", {"pp": 2, "stage_layers": LAST_ALONE}, {}, "has an output before its last"),
        ("gnmt-tiny", {"schedule": "zb-h1"}, {"seq_len": 6}, "the recurrent layers of gnmt-tiny"),
        ("bert-tiny", {"recompute": "selective"}, {"seq_len": 16}, "recompute selective needs to know"),
        ("resnet-digits", {}, {"data": "text"}, "expected digits | synthetic for resnet-digits"),
        ("resnet-digits", {}, {"loss": "mine:loss"}, "loss mine:loss: resnet-digits has its own"),
        ("tiny-llama-bytes", {}, {"loss": "mine:loss", "seq_len": 16}, "a decoder has its own"),
        ("resnet-digits", {}, {"data": "no_such_module_here:x"}, "no_such_module_here"),
    ],
)
def test_what_cannot_says_why(name, fields, changes, reason):
    assert reason in said(name, fields, **changes)


def test_a_network_that_nobody_can_build_is_refused():
    model = replace(read_model("resnet-digits"), name="measured-elsewhere")
    assert "measured-elsewhere is a description of costs" in said(model)
