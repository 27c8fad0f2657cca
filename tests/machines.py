"""Small clusters, models and jobs that the tests of the cost models share, written by hand."""

from __future__ import annotations

from typing import Any

from traincast.sim.errors import InputError
from traincast.sim.files.reader import parse_document
from traincast.sim.hardware.cluster import Accelerator, Cluster, Host, Link, TransportCurve
from traincast.sim.hardware.cluster_file import check_cluster
from traincast.sim.model.decoder import Decoder
from traincast.sim.model.model import Model
from traincast.sim.plan.job import Job
from traincast.sim.plan.mixed_precision import PRECISION_BYTES

NVLINK = Link(name="nvlink", joins="accelerators", bandwidth=300e9, latency=2e-6)
PCIE = Link(name="pcie", joins="host", bandwidth=25e9, latency=1e-5)
INFINIBAND = Link(name="ib", joins="nodes", bandwidth=25e9, latency=5e-6)


def gpu(**changes: Any) -> Accelerator:
    """An A100 by its data sheet, without measured curves; with fp8, which it has not, as fast as int8."""
    values: dict[str, Any] = {
        "name": "A100",
        "kind": "gpu",
        "peak_flops": {"fp8": 624e12, "bf16": 312e12, "fp16": 312e12, "tf32": 156e12, "fp32": 19.5e12},
        "memory_bytes": 80e9,
        "memory_bandwidth": 2.04e12,
        "sm_count": 108,
        "launch_overhead_s": 3e-6,
    }
    return Accelerator(**{**values, **changes})


def gpu_cluster(nodes: int = 4, per_node: int = 8, **changes: Any) -> Cluster:
    """Nodes of A100s, each with a NIC of its own."""
    values: dict[str, Any] = {
        "name": "gpus",
        "nodes": nodes,
        "accelerators_per_node": per_node,
        "accelerator": gpu(),
        "links": {"nvlink": NVLINK, "ib": INFINIBAND, "pcie": PCIE},
    }
    return Cluster(**{**values, **changes})


def cpu_cluster(ranks: int = 4, cores: int = 2, **changes: Any) -> Cluster:
    """One host whose ranks share cores and pass messages through them."""
    accelerator = Accelerator(
        name="core",
        kind="cpu",
        peak_flops=dict.fromkeys(PRECISION_BYTES, 120e9),
        memory_bytes=8e9,
        memory_bandwidth=10e9,
        launch_overhead_s=7e-6,
    )
    values: dict[str, Any] = {
        "name": "host",
        "nodes": 1,
        "accelerators_per_node": ranks,
        "accelerator": accelerator,
        "links": {"lo": Link(name="lo", joins="accelerators", bandwidth=3e9, latency=7e-5), "pcie": PCIE},
        "host": Host(cores=cores, concurrency=((1.0, 1.0), (2.0, 1.2))),
        "transports": (
            TransportCurve(
                operation="send_recv",
                ranks=2,
                times_s=((1e3, 1e-4), (1e6, 4e-4), (1e8, 3e-2)),
                cpu_times_s=((1e3, 5e-5), (1e6, 2e-4), (1e8, 2e-2)),
            ),
            TransportCurve(operation="all_reduce", ranks=2, times_s=((1e3, 3e-4), (1e6, 1e-3), (1e8, 6e-2))),
        ),
    }
    return Cluster(**{**values, **changes})


def gpt(layers: int, hidden: int, heads: int, vocab: int, positions: int = 2048, **changes: Any) -> Model:
    """A GPT: two-matrix MLP of four times the hidden size, learned positions, biases, tied embeddings."""
    values: dict[str, Any] = {
        "layers": layers,
        "hidden": hidden,
        "heads": heads,
        "kv_heads": heads,
        "head_dim": hidden // heads,
        "ffn": 4 * hidden,
        "vocab": vocab,
        "max_positions": positions,
        "activation": "gelu",
        "norm": "layernorm",
        "positions": "learned",
        "attention_bias": True,
        "output_bias": True,
        "mlp_bias": True,
        "tied_embeddings": True,
    }
    return Model(name="gpt", decoder=Decoder(**{**values, **changes}))


def gpt3_175b() -> Model:
    """96 layers of 12288 (Brown et al. 2020), vocabulary padded as in Narayanan et al. 2021."""
    return gpt(96, 12288, 96, 51200)


def llama(layers: int = 4, hidden: int = 256, **changes: Any) -> Model:
    """A small Llama with grouped-query attention and a gated MLP."""
    values: dict[str, Any] = {
        "layers": layers,
        "hidden": hidden,
        "heads": 8,
        "kv_heads": 4,
        "head_dim": hidden // 8,
        "ffn": 2 * hidden,
        "vocab": 1024,
        "max_positions": 512,
    }
    return Model(name="llama", decoder=Decoder(**{**values, **changes}))


def job(model: Model | None = None, **changes: Any) -> Job:
    """16 samples of 128 tokens a step, fp32."""
    values: dict[str, Any] = {
        "model": model or llama(),
        "global_batch": 16,
        "seq_len": 128,
        "precision": "fp32",
    }
    return Job(**{**values, **changes})


def cluster_faults(text: str) -> str:
    """All faults of ``text`` as a cluster file called c.yaml."""
    try:
        _, errors, _ = check_cluster(parse_document(text, "c.yaml"))
    except InputError as error:
        return str(error)
    assert errors
    return str(InputError(errors))
