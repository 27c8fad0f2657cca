"""The accelerators and machines that come with the program: vendors' numbers, measured curves, both cited."""

from __future__ import annotations

import csv
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from machines import gpu, gpu_cluster, job

from traincast.sim.hardware.cluster import Accelerator, NodeGroup
from traincast.sim.hardware.cluster_file import (
    accelerator_presets,
    cluster_presets,
    read_accelerator,
    read_cluster,
)
from traincast.sim.kernels.kernel import Kernel
from traincast.sim.kernels.roofline import kernel_s
from traincast.sim.network.transport import transport
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.strategy import Strategy
from traincast.sim.predict.intervals import DATASHEET_RESIDUAL, UNCALIBRATED_RESIDUAL
from traincast.sim.predict.simulate import simulate

PRESETS = {name: read_accelerator(name) for name in accelerator_presets()}
MEASURED = sorted(name for name, accelerator in PRESETS.items() if accelerator.is_measured)
WANTED = """
    v100-16gb-sxm2 v100-32gb-sxm2 a100-40gb-sxm a100-80gb-sxm a100-40gb-pcie a100-80gb-pcie h100-sxm h100-pcie
    h200-sxm b200 gb200 b300 gb300 mi250x mi300x mi325x mi355x l4 l40s a10g t4 p100-sxm2 k80 rtx-3090 rtx-4090
    trainium1 tpu-v5e tpu-v5p gh200-96gb gh200-141gb
"""


def specifications() -> list[dict[str, str]]:
    text = (Path(__file__).parents[2] / "data/accelerator_specs.csv").read_text()
    return list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))


def product_s(accelerator: Accelerator, precision: str, m: int, n: int, k: int) -> float:
    size = 2.0 * (m * k + k * n + m * n)
    kernel = Kernel(kind="gemm", flops=2.0 * m * n * k, bytes=size, m=m, n=n, k=k)
    return kernel_s(accelerator, kernel, precision)


def test_everything_that_is_promised_is_there():
    assert set(WANTED.split()) <= set(PRESETS)


def test_numbers_are_the_vendors():
    """Peaks within 1 % of an independent collection, bandwidth within 3 %; memory within 8 %, since a GB is
    10**9 or 2**30 bytes."""
    rows = specifications()
    wrong = []
    for row in rows:
        accelerator, said = PRESETS[row["preset"]], float(row["value"])
        if row["item"] == "capacity":
            found, tolerance = accelerator.memory_bytes / 1e9, 0.08
        elif row["item"] == "peak_bandwidth":
            found, tolerance = accelerator.memory_bandwidth / 1e12, 0.03
        else:
            found, tolerance = accelerator.peak_flops[row["item"]] / 1e12, 0.01
        if found != pytest.approx(said, rel=tolerance):
            wrong.append((row, found))
    assert wrong == []
    assert len(rows) == 111


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_files_are_sourced_and_sound(name):
    """Each says whence and when; efficiencies are fractions; a price that nobody knows is not made up."""
    accelerator = PRESETS[name]
    assert "http" in accelerator.source
    assert accelerator.date.startswith("20")
    assert accelerator.price_per_hour == 0.0
    assert {*accelerator.gemm_efficiency, *accelerator.attention_efficiency} <= {*accelerator.peak_flops}
    curves = [*accelerator.gemm_efficiency.values(), *accelerator.attention_efficiency.values()]
    for curve in [*curves, accelerator.memory_efficiency]:
        assert all(0 < y <= 1 for _, y in curve)
        assert all(a < b for (a, _), (b, _) in pairwise(curve))


@pytest.mark.parametrize("name", MEASURED)
def test_larger_products_run_better(name):
    """Up to 20 GFLOP each point is better than the one before; from 50 GFLOP on none is under 0.75 of the
    best (fp8: 0.65, since it needs larger ones; clocks fall with the largest)."""
    assert PRESETS[name].gemm_efficiency
    for precision, curve in PRESETS[name].gemm_efficiency.items():
        rising = [y for x, y in curve if x <= 2e10]
        assert rising == sorted(rising)
        best, least = max(y for _, y in curve), 0.65 if precision == "fp8" else 0.75
        assert all(y >= least * best for x, y in curve if x >= 2e11)


def test_what_was_not_measured_says_so():
    """No curve is made up for a device that nobody timed; a power-limited part has that of the same chip."""
    for name in sorted(set(PRESETS) - set(MEASURED)):
        assert PRESETS[name].basis == "datasheet"
        whole = PRESETS["h100-sxm"].gemm_efficiency if name.startswith("h100-96gb") else {}
        assert PRESETS[name].gemm_efficiency == whole
    assert {"h100-pcie", "p100-sxm2", "tpu-v5p", "trainium1"}.isdisjoint(MEASURED)
    assert {"v100-32gb-sxm2", "b200", "gb300", "mi300x", "l40s"} <= set(MEASURED)


def test_generations_come_in_order():
    """One large product in 16 bits takes less time on each."""
    names = ["p100-sxm2", "v100-32gb-sxm2", "a100-80gb-sxm", "h100-sxm", "b200"]
    times = [product_s(PRESETS[name], "fp16", 8192, 8192, 8192) for name in names]
    assert times == sorted(times, reverse=True)
    assert times[0] / times[-1] > 50


@pytest.mark.parametrize(
    ("name", "m", "n", "k", "tflops"),
    [
        ("mi300x", 10240, 15360, 8192, 668.4),
        ("mi325x", 13312, 10240, 8192, 784.9),
        ("mi355x", 12288, 8192, 8192, 1565.0),
        ("a100-80gb-pcie", 2048, 5120, 6144, 252.9),
        ("gh200-141gb", 1024, 15360, 4096, 828.6),
        ("b300", 12288, 18432, 1024, 1769.0),
        ("b200", 1792, 16128, 3072, 1745.0),
        ("gb200", 4096, 9728, 2048, 1822.0),
    ],
)
def test_best_products_that_others_found_are_near(name, m, n, k, tflops):
    """Maximum achievable TFLOP/s in bf16 (Bekman, https://github.com/stas00/ml-engineering@744d01e,
    compute/accelerator): the best of thousands of shapes, so the curve's own is up to 15 % slower."""
    short = replace(PRESETS[name], sustained=1.0)
    reached = 2.0 * m * n * k / product_s(short, "bf16", m, n, k) / 1e12
    assert 0.80 * tflops < reached < 1.04 * tflops


@pytest.mark.parametrize(
    ("m", "n", "k", "micros"),
    [
        (2048, 15360, 5120, 4002.383),
        (2048, 20480, 5120, 5034.291),
        (2048, 5120, 5120, 1275.394),
        (2048, 10240, 5120, 2526.233),
        (8192, 15360, 5120, 15957.516),
        (8192, 5120, 20480, 21857.387),
        (8192, 2560, 5120, 2515.378),
        (16384, 3072, 1024, 1644.713),
        (16384, 1024, 4096, 1629.925),
    ],
)
def test_products_of_a_v100_are_near(m, n, k, micros):
    """Forward of projections of GPT 13B and 350M on a V100-32GB (microsoft/SuperScaler@fa80ad0,
    profiler/profiled-time-eurosys), bias, copies and dispatch included, which backward has
    less of; the curve is of both: within 30 %."""
    assert product_s(PRESETS["v100-32gb-sxm2"], "fp16", m, n, k) == pytest.approx(micros / 1e6, rel=0.3)


def test_what_only_a_datasheet_tells_has_a_wider_interval():
    """Wider in logarithm; one such device among measured ones is enough; residuals of a file win."""
    plan = make_plan(job(precision="bf16"), Strategy(dp=2))

    def spread(**changes: Any) -> float:
        cluster = gpu_cluster(**changes)
        low, high = simulate(plan, cluster, samples=2).step_times_s
        return max(high / low, low / high)

    known, unknown = gpu(basis="measured"), gpu(basis="datasheet")
    ratio = spread(accelerator=known)
    assert spread(accelerator=unknown) == pytest.approx(ratio ** (DATASHEET_RESIDUAL / UNCALIBRATED_RESIDUAL))
    groups = tuple(NodeGroup(nodes=2, accelerator=each) for each in (known, unknown))
    assert not gpu_cluster(node_groups=groups).is_measured
    assert spread(accelerator=unknown, residuals={"single_step": UNCALIBRATED_RESIDUAL}) == pytest.approx(
        ratio
    )


def test_a_file_that_says_nothing_is_measured_where_it_has_curves():
    curve = {"bf16": ((1e9, 0.5),)}
    assert not gpu().is_measured
    assert gpu(gemm_efficiency=curve).is_measured
    assert not replace(gpu(gemm_efficiency=curve), basis="datasheet").is_measured


# Microseconds by (ranks, MiB): nccl-tests all_reduce in ai-dynamo/aiconfigurator@095f58a51; V100: all-reduces
# in microsoft/SuperScaler@fa80ad0; MI300X: 312.9 GB/s, https://github.com/stas00/ml-engineering, network.
ALL_REDUCES = {
    "dgx-b200": {(4, 64): 184.8, (8, 64): 277.1, (2, 512): 1017.6, (8, 512): 1355.4, (4, 1): 19.1},
    "dgx-b300": {(4, 64): 179.7, (8, 64): 274.1, (2, 512): 988.9, (8, 512): 1337.5},
    "gb300-nvl72": {(2, 64): 143.9, (4, 64): 179.4, (2, 512): 984.5, (4, 512): 1268.0},
    "l40s-pcie": {(2, 64): 3358.8, (4, 64): 19699.0, (8, 64): 55412.0, (8, 512): 649471.0},
    "dgx-1-v100": {(2, 60): 1679.0, (4, 70): 1511.0, (8, 60): 930.0, (8, 1520): 21546.0, (2, 2880): 73186.0},
    "mi300x-node": {(8, 4096): 1.75 * 4096 * 2**20 / 312.912e3},
}


@pytest.mark.parametrize("name", ALL_REDUCES)
def test_all_reduces_inside_a_node_are_near(name):
    """Within 25 %, in the mean within 15 %: on a switch one curve stands for all numbers of ranks."""
    cluster = read_cluster(name)
    errors = [
        transport(cluster, "all_reduce", range(ranks), mebibytes * 2**20) / (micros / 1e6) - 1
        for (ranks, mebibytes), micros in ALL_REDUCES[name].items()
    ]
    assert max(map(abs, errors)) < 0.25
    assert sum(map(abs, errors)) / len(errors) < 0.15


@pytest.mark.parametrize("name", sorted(cluster_presets()))
def test_every_machine_can_train(name):
    """A small job, data-parallel over two nodes where there are two, has a step time and a throughput."""
    cluster = read_cluster(name)
    ranks = min(2 * cluster.accelerators_per_node, 144)
    precision = "bf16" if {"bf16", "fp16"} & cluster.accelerator.peak_flops.keys() else "fp32"
    small = job(global_batch=ranks, precision=precision)
    trace = simulate(make_plan(small, Strategy(dp=ranks)), cluster.with_nodes(max(2, cluster.nodes)))
    assert 1e-5 < trace.step_times_s[0] < 60
