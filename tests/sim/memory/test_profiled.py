"""Memory of a host's ranks: what was seen of their layers, and what the allocator lost."""

from __future__ import annotations

from dataclasses import replace

import pytest
from machines import cpu_cluster, job, llama

from traincast.sim.hardware.cluster import Cluster
from traincast.sim.hardware.layer_profile import SHAPE, LayerProfile
from traincast.sim.memory.layer_bytes import output_gradient_bytes
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


LOST = ((1.0, 0.2), (2.0, 0.7))


@pytest.mark.parametrize(
    "strategy",
    [
        Strategy(pp=2, micro_batch=1, schedule="gpipe"),
        Strategy(pp=2, micro_batch=1, schedule="1f1b"),
        Strategy(micro_batch=1, recompute="full"),
    ],
    ids=lambda strategy: strategy.label,
)
def test_what_is_lost_is_of_one_micro_batch(strategy: Strategy):
    """However many are in flight, on however many stages, kept or computed again."""
    (whole,) = memory(make_plan(JOB, Strategy(micro_batch=1)), seen(LOST))
    for rank in memory(make_plan(JOB, strategy), seen(LOST)):
        assert rank.fragmentation_bytes == pytest.approx(whole.fragmentation_bytes)


def test_reduced_gradients_stand_once_more():
    """Flat; of ranks that share out states also the part of each."""
    (alone,) = memory(make_plan(JOB, Strategy()), seen())
    (ddp,) = memory(make_plan(JOB, Strategy(dp=2)), seen())
    (zero2,) = memory(make_plan(JOB, Strategy(dp=2, sharding="zero2")), seen())
    assert alone.buffers_bytes == 0.0
    assert ddp.buffers_bytes == pytest.approx(ddp.gradients_bytes)
    assert zero2.buffers_bytes == pytest.approx(1.5 * ddp.gradients_bytes)


def test_workers_of_servers_have_messages_both_ways():
    """Gradients packed, and where parameters arrive."""
    strategy = Strategy(dp=2, gradient_exchange="parameter_server", servers=1)
    worker, _ = memory(make_plan(JOB, strategy), seen())
    assert worker.buffers_bytes == pytest.approx(worker.gradients_bytes + worker.weights_bytes)


def test_between_the_halves_of_a_backward_the_graph_stays():
    """On the last rank two micro-batches wait for their second halves at once."""
    whole, halves = (
        memory(make_plan(JOB, Strategy(pp=2, micro_batch=1, schedule=schedule)), seen())[-1]
        for schedule in ("1f1b", "zb-h1")
    )
    stage = make_plan(JOB, Strategy(pp=2, micro_batch=1)).stages[-1]
    kinds = [JOB.model.layers[i].kind for i in stage.layer_indices]
    kept = sum(KEPT[kind] for kind in kinds)
    waiting = kept + sum(output_gradient_bytes(JOB, Strategy(pp=2, micro_batch=1), kind) for kind in kinds)
    assert whole.activations_bytes == pytest.approx(kept)
    assert halves.activations_bytes == pytest.approx(2 * waiting)
