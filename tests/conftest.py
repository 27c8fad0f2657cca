"""Fixtures that several test files share."""

from __future__ import annotations

import pytest
from machines import gpu, gpu_cluster

from traincast.sim.hardware.cluster import Accelerator, Cluster, Host, Link
from traincast.sim.model.decoder import Decoder
from traincast.sim.model.model import Model
from traincast.sim.plan.job import Job


@pytest.fixture(scope="session")
def tiny_model() -> Model:
    """Four blocks, small enough to train in a blink."""
    return Model(
        name="tiny",
        decoder=Decoder(
            layers=4, hidden=32, heads=4, kv_heads=2, head_dim=8, ffn=64, vocab=64, max_positions=64
        ),
    )


@pytest.fixture(scope="session")
def tiny_job(tiny_model: Model) -> Job:
    """Eight samples of sixteen tokens in fp32."""
    return Job(model=tiny_model, global_batch=8, seq_len=16, precision="fp32")


@pytest.fixture(scope="session")
def round_cluster() -> Cluster:
    """Two nodes of four round-numbered accelerators: 100 TFLOP/s, 1 TB/s, links of 100 and 10 GB/s."""
    accelerator = gpu(
        name="round",
        peak_flops={"bf16": 100e12, "fp32": 50e12},
        memory_bandwidth=1e12,
        sm_count=0,
        launch_overhead_s=1e-6,
    )
    links = {
        "fast": Link(name="fast", joins="accelerators", bandwidth=100e9, latency=1e-6),
        "slow": Link(name="slow", joins="nodes", bandwidth=10e9, latency=5e-6),
    }
    return gpu_cluster(name="round", nodes=2, per_node=4, accelerator=accelerator, links=links)


@pytest.fixture(scope="session")
def host_cluster() -> Cluster:
    """One machine of two cores that four ranks share."""
    accelerator = Accelerator(
        name="core", kind="cpu", peak_flops={"fp32": 50e9}, memory_bytes=8e9, memory_bandwidth=10e9
    )
    links = {"loopback": Link(name="loopback", joins="accelerators", bandwidth=2e9, latency=100e-6)}
    return Cluster(
        name="host",
        nodes=1,
        accelerators_per_node=4,
        accelerator=accelerator,
        links=links,
        host=Host(cores=2, concurrency=((1.0, 1.0), (2.0, 1.1))),
    )
