"""Convolutions against times of a V100 that others measured, and what their algorithms promise."""

import pytest

from traincast.sim.costs.costs import Costs
from traincast.sim.hardware.cluster_file import read_cluster
from traincast.sim.kernels.convolution import DIRECT, FILTERED
from traincast.sim.kernels.layer_kernels import network_choices
from traincast.sim.model.model import Model
from traincast.sim.model.networks.builder import Builder
from traincast.sim.plan.job import Job
from traincast.sim.plan.strategy import Strategy

MEASURED = [
    # images, channels in and out, window, stride, side of the output; milliseconds forward, backward
    (128, 512, 512, 3, 1, 28, 11.8, 21.9),
    (128, 256, 256, 3, 1, 56, 14.2, 27.0),
    (128, 128, 128, 3, 1, 112, 22.1, 53.4),
    (128, 512, 512, 3, 1, 14, 4.0, 7.4),
    (256, 128, 128, 3, 1, 28, 2.3, 4.5),
    (256, 64, 64, 3, 1, 56, 3.9, 9.8),
    (128, 256, 512, 1, 1, 28, 2.4, 4.4),
    (128, 1024, 512, 1, 1, 14, 2.3, 4.4),
    (128, 256, 256, 1, 1, 56, 4.8, 11.6),
    (128, 256, 512, 1, 2, 28, 2.6, 6.5),
    (128, 128, 128, 3, 2, 28, 2.6, 8.5),
    (256, 64, 192, 5, 1, 27, 3.1, 5.6),
]
"""fp32, of VGG-16, ResNet-18 and -50, ResNeXt-50 and AlexNet (msr-fiddle/pipedream@7db6a1c,
profiler/image_classification/profiles), of several alike the quickest."""
SYNCHRONISED_S = 0.22e-3
"""Of every one of them: what even the smallest ReLU takes."""


def one(batch, into, out, window, stride, side) -> tuple[Job, Strategy]:
    b = Builder()
    x = b.relu(b.conv(b.image(3, side * stride, side * stride), into, 1))
    b.conv(x, out, window, stride=stride, padding=window // 2)
    job = Job(model=Model(name="one", network=b.network()), global_batch=batch, seq_len=1, precision="fp32")
    return job, Strategy(micro_batch=batch)


def test_times_of_a_v100_are_met():
    """Each within 45 %, in the mean within 20 %."""
    cluster = read_cluster("dgx-1-v100")
    errors = []
    for *shape, forward_ms, backward_ms in MEASURED:
        job, strategy = one(*shape)
        costs, layer = Costs(cluster, job, strategy), job.model.layers[1]
        errors.append(costs.compute.forward_s(layer) / (forward_ms * 1e-3 - SYNCHRONISED_S) - 1)
        errors.append(costs.compute.backward_s(layer) / (backward_ms * 1e-3 - SYNCHRONISED_S) - 1)
    assert max(map(abs, errors)) < 0.45
    assert sum(map(abs, errors)) / len(errors) < 0.20


def ways(precision="fp32", window=3, stride=1, batch=8, side=28):
    job, strategy = one(batch, 64, 64, window, stride, side)
    job = Job(model=job.model, global_batch=batch, seq_len=1, precision=precision)
    return network_choices(job, strategy, job.model.layers[1].kind, "forward")[0]


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({}, (DIRECT, FILTERED)),
        ({"window": 5}, (DIRECT, FILTERED)),
        ({"window": 1}, (DIRECT,)),
        ({"stride": 2}, (DIRECT,)),
        ({"precision": "fp16"}, (DIRECT,)),
        ({"window": 9}, (DIRECT,)),
        # 36 values for each of 16 places of 64 channels in and out, twice 3.6 GB.
        ({"batch": 128, "side": 224}, (DIRECT,)),
    ],
    ids=str,
)
def test_where_minimal_filtering_is_tried(changes, kinds):
    """In fp32, windows of 3, 5 and 7 that move by one place, while the tiles fit the workspace."""
    assert {k.kind for way in ways(**changes) for k in way if k.kind != "memory"} == set(kinds)


def test_minimal_filtering_multiplies_as_little_as_it_should():
    """Tiles of 4 × 4 take 36 products, not 144; tiles of 2 × 2 take 16, not 36 (Lavin & Gray 2015)."""
    plain, transformed, fused = ways()
    assert plain[0].flops / sum(k.flops for k in transformed) == 4
    assert plain[0].flops / fused[0].flops == 2.25


def test_odd_images_waste_part_of_their_tiles():
    """7 × 7 places need four tiles of 4 × 4, as 8 × 8 do."""
    plain, transformed, _ = ways(side=7)
    assert plain[0].flops / sum(k.flops for k in transformed) == 4 * 49 / 64
