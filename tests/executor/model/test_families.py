"""A single process trains every family of decoders that there is a preset of, with all sizes small."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from traincast.sim.model.hf_config import model_presets, read_model
from traincast.sim.model.model import Model
from traincast.sim.plan.job import Job

pytest.importorskip("torch")

from traincast.executor.model.reference import single_process
from traincast.executor.model.workload import Workload

SMALL = {
    "layers": 2,
    "hidden": 16,
    "head_dim": 8,
    "ffn": 24,
    "vocab": 64,
    "max_positions": 32,
    "experts": 4,
    "experts_per_token": 2,
    "expert_ffn": 12,
    "shared_ffn": 12,
    "dense_layers": 1,
    "q_rank": 6,
    "kv_rank": 10,
    "rope_dim": 4,
    "v_head_dim": 6,
}
"""Of what a decoder has; what it has none of stays 0."""


def small(name: str) -> Model:
    """The preset ``name`` with its features, and as many queries a key as it has, up to 2."""
    decoder = read_model(name).decoder
    sizes = {field: size for field, size in SMALL.items() if getattr(decoder, field)}
    grouped = 2 if decoder.kv_heads < decoder.heads else 1
    return Model(name=name, decoder=replace(decoder, heads=4, kv_heads=4 // grouped, **sizes))


@pytest.mark.parametrize("name", sorted(model_presets()))
def test_every_preset_trains_in_a_single_process(name):
    """It has the parameters of its layers, and the loss falls from that of a guess."""
    model = small(name)
    job = Job(
        model=model, global_batch=4, seq_len=16, precision="fp32", optimizer="adamw", learning_rate=1e-2
    )
    held = Workload(job=job).layers(range(4)).layer_parameters()
    assert [sum(p.numel() for p in own) for own in held.values()] == [one.parameters for one in model.layers]
    losses = single_process(job, 6)[0]
    assert losses[0] == pytest.approx(math.log(64), rel=0.02)
    assert losses[-1] < 0.97 * losses[0]
