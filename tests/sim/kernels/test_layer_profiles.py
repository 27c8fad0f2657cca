"""Profiled layers: which are used, and what lies between and beyond them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import cpu_cluster, job, llama

from traincast.sim.costs.costs import Costs
from traincast.sim.hardware.cluster import Cluster, LayerProfile
from traincast.sim.kernels.layer_profiles import line, profiled_bytes
from traincast.sim.kernels.profile_keys import is_of, variant_of
from traincast.sim.plan.strategy import Strategy

SHAPE = ("hidden", "heads", "kv_heads", "ffn", "vocab", "activation", "norm")


def profile(kind: str = "block", micro_batch: int = 1, **changes) -> LayerProfile:
    """Of a layer of `llama()` in fp32; 1 ms a sample forward and 1 ms of overhead, backward twice that."""
    d = llama().decoder
    values = {
        "kind": kind,
        **{name: getattr(d, name) for name in SHAPE},
        "seq_len": 128,
        "micro_batch": micro_batch,
        "precision": "fp32",
        "forward_s": 1e-3 * (1 + micro_batch),
        "backward_s": 2e-3 * (1 + micro_batch),
    }
    return LayerProfile(**{**values, **changes})


def profiled(*profiles: LayerProfile) -> Cluster:
    cluster = cpu_cluster()
    return replace(cluster, accelerator=replace(cluster.accelerator, layer_profiles=profiles))


def test_a_profile_is_used_as_it_is():
    """And the layers that have none follow the roofline."""
    costs = Costs(profiled(profile()), job(), Strategy())
    embedding, block, head = costs.job.model.layers[0], costs.job.model.layers[1], costs.job.model.layers[-1]
    assert (costs.compute.forward_s(block), costs.compute.backward_s(block)) == (2e-3, 4e-3)
    plain = Costs(cpu_cluster(), job(), Strategy())
    assert costs.compute.forward_s(head) == plain.compute.forward_s(head)
    assert costs.compute.forward_s(embedding) == plain.compute.forward_s(embedding)


@pytest.mark.parametrize(
    "changes", [{"hidden": 512}, {"seq_len": 64}, {"precision": "bf16"}, {"activation": "gelu"}, {"vocab": 2}]
)
def test_a_profile_of_another_shape_is_not_used(changes: dict):
    """Any field that differs."""
    block = job().model.layers[1]
    plain = Costs(cpu_cluster(), job(), Strategy()).compute.forward_s(block)
    assert Costs(profiled(profile(**changes)), job(), Strategy()).compute.forward_s(block) == plain


def test_recompute_adds_to_a_profile():
    """Full repeats the forward but for its last GEMM and what follows; selective attention's share of it."""
    block = job().model.layers[1]
    none, selective, full = (
        Costs(profiled(profile()), job(), Strategy(recompute=r)).compute.backward_s(block)
        for r in ("none", "selective", "full")
    )
    assert none == 4e-3
    assert 5.5e-3 < full < 6e-3
    assert none < selective < none + 1e-3


def test_other_micro_batches_lie_on_the_line():
    """1 ms + 1 ms a sample through 1 and 4 samples gives 3 ms for 2, 9 ms for 8."""
    cluster = profiled(profile(micro_batch=1), profile(micro_batch=4))
    block = job().model.layers[1]
    times = [Costs(cluster, job(), Strategy(micro_batch=mb)).compute.forward_s(block) for mb in (1, 2, 4, 8)]
    assert times == pytest.approx([2e-3, 3e-3, 5e-3, 9e-3])


def test_one_profile_scales_by_the_roofline():
    """To other micro-batches and tensor-parallel degrees, in the right direction."""
    cluster = profiled(profile(micro_batch=2))
    block = job().model.layers[1]
    of = lambda **how: Costs(cluster, job(), Strategy(**how)).compute.forward_s(block)  # noqa: E731
    assert of(micro_batch=1) < of(micro_batch=2) == 3e-3 < of(micro_batch=4) <= 6e-3
    assert 1.5e-3 <= of(micro_batch=2, tp=2) < 3e-3


@given(
    st.dictionaries(st.integers(1, 16), st.floats(1e-6, 1.0), min_size=2, max_size=5),
    st.integers(1, 32),
)
def test_lines_stay_between_sensible_bounds(points: dict[int, float], micro_batch: int):
    """Above the points never cheaper than the last; below never dearer than the first, never free."""
    seconds, known = line(points, micro_batch), sorted(points)
    if micro_batch in points:
        assert seconds == points[micro_batch]
    elif micro_batch > known[-1]:
        assert seconds >= points[known[-1]]
    elif micro_batch < known[0]:
        assert points[known[0]] * micro_batch / known[0] <= seconds <= points[known[0]]
    else:
        assert min(points.values()) <= seconds <= max(points.values())


def test_profiles_of_a_division_serve_that_division_alone():
    """A block on two tensor-parallel ranks; a whole one is scaled where nobody looked."""
    own = profiled(profile(), profile(tp=2, forward_s=7e-3, kept_bytes=100.0))
    block = job().model.layers[1]
    assert Costs(own, job(), Strategy(tp=2)).compute.forward_s(block) == 7e-3
    assert Costs(own, job(), Strategy()).compute.forward_s(block) == 2e-3
    scaled = Costs(profiled(profile()), job(), Strategy(tp=2)).compute.forward_s(block)
    split = Costs(own, job(), Strategy(tp=2, sequence_parallel=True)).compute.forward_s(block)
    assert split == pytest.approx(scaled, rel=0.1)
    assert profiled_bytes(own.accelerator, job(), Strategy(tp=2, micro_batch=3), "block") == 300.0
    assert profiled_bytes(own.accelerator, job(), Strategy(), "block") is None


def test_a_variant_names_what_is_not_as_usual():
    """A profile that names one serves decoders that have it; one without serves none with latents."""
    d = llama().decoder
    assert variant_of(d, "block") == ""
    unusual = replace(d, qk_norm=True, experts=8, experts_per_token=2, expert_ffn=64)
    assert variant_of(unusual, "block") == "qk_norm=True"
    assert variant_of(unusual, "moe_block") == "qk_norm=True experts=8 experts_per_token=2 expert_ffn=64"
    assert is_of(profile(variant="qk_norm=True"), unusual)
    assert not is_of(profile(variant="qk_norm=True"), d)
    assert is_of(profile(), d)
    assert not is_of(profile(), replace(d, kv_rank=32))
