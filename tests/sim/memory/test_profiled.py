"""Memory of a host's ranks: what was seen of their layers, and what the allocator lost."""

from __future__ import annotations

from dataclasses import replace

import pytest
from machines import cpu_cluster, job, llama

from traincast.sim.hardware.cluster import Cluster
from traincast.sim.hardware.layer_profile import SHAPE, LayerProfile
from traincast.sim.memory.peak import memory
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.strategy import Strategy

KEPT = {"embedding": 1e3, "block": 1e6, "head": 5e4}
"""Bytes of one sample."""
JOB = job(global_batch=8)


def seen(loss: tuple[tuple[float, float], ...] = ()) -> Cluster:
    """A host on which somebody looked at what layers keep."""
    d = llama().decoder
    profiles = tuple(
        LayerProfile(
            kind=kind,
            **{name: getattr(d, name) for name in SHAPE},
            seq_len=128,
            micro_batch=1,
            precision="fp32",
            forward_s=1e-3,
            backward_s=2e-3,
            kept_bytes=size,
        )
        for kind, size in KEPT.items()
    )
    cluster = cpu_cluster()
    accelerator = replace(cluster.accelerator, layer_profiles=profiles, allocator_loss=loss)
    return replace(cluster, accelerator=accelerator)


def test_activations_are_those_that_were_seen():
    """All layers of one micro-batch of two samples; logits are the head's."""
    (found,) = memory(make_plan(JOB, Strategy(micro_batch=2)), seen())
    layers = JOB.model.layers
    assert found.activations_bytes == pytest.approx(2 * sum(KEPT[layer.kind] for layer in layers))
    assert found.fragmentation_bytes == 0.0


@pytest.mark.parametrize(("micro_batch", "share"), [(8, 0.2), (2, 0.7)])
def test_the_allocator_loses_its_share(micro_batch: int, share: float):
    """Less where a step has one micro-batch than where gradients of several add up."""
    plan = make_plan(JOB, Strategy(micro_batch=micro_batch))
    (found,) = memory(plan, seen(((1.0, 0.2), (2.0, 0.7))))
    assert found.fragmentation_bytes == pytest.approx(share * found.activations_bytes)


def test_recomputed_blocks_keep_their_share_of_what_was_seen():
    """In full: the input, and while it is computed again the rest of one block."""
    kept, again = (
        memory(make_plan(JOB, Strategy(micro_batch=2, recompute=policy)), seen())[0].activations_bytes
        for policy in ("none", "full")
    )
    assert 2 * KEPT["block"] < again < 0.8 * kept
