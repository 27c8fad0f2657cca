"""Presets beside published nccl-tests: some rows of each kind; `benchmarks/collective_accuracy.py` takes all.

ALCF: https://github.com/argonne-lcf/alcf-nccl-tests (2 DGX A100). xxrjun:
https://github.com/xxrjun/nccl-tests-cluster (10 nodes of H100). AWS P6: https://github.com/stas00/ml-engineering
(4 nodes of B200). aiconfigurator: https://github.com/ai-dynamo/aiconfigurator (one node). H20:
https://github.com/NVIDIA/nccl/issues/1244 (NVLink and adapters as of H100 nodes; no fit saw them).
"""

from __future__ import annotations

from functools import lru_cache

import pytest

from traincast.sim.calibration.import_nccl_tests import bus_bandwidth
from traincast.sim.hardware.cluster_file import read_cluster
from traincast.sim.network.transport import transport

MIB = 2**20
ONE_NODE = [
    ("dgx-a100", "all_reduce", 8, 16, 136),
    ("dgx-a100", "all_reduce", 2, 64, 171),
    ("dgx-a100", "all_gather", 4, 4, 52),
    ("dgx-a100", "reduce_scatter", 8, 256, 204),
    ("dgx-a100", "all_to_all", 8, 64, 169),
    ("hgx-h100", "all_reduce", 8, 256, 430),
    ("hgx-h100", "all_gather", 8, 32, 234),
    ("hgx-h100", "reduce_scatter", 2, 16, 158),
    ("hgx-h100", "all_to_all", 4, 8, 165),
    ("gb200-nvl72", "all_gather", 4, 64, 469),
    ("l40s-pcie", "all_reduce", 8, 64, 2.12),
]
"""Preset, operation, ranks of one node, MiB, busbw in GB/s as published (medians over versions of NCCL)."""

SEVERAL_NODES = [
    ("dgx-a100", "all_reduce", 2, 8, 64, 146.0, 0.1),
    ("dgx-a100", "all_reduce", 2, 8, 1024, 178.0, 0.05),
    ("dgx-a100", "all_gather", 2, 8, 256, 173.0, 0.05),
    ("dgx-a100", "all_to_all", 2, 8, 64, 37.0, 0.05),
    ("hgx-h100", "all_gather", 10, 1, 32, 42.0, 0.1),
    ("hgx-h100", "reduce_scatter", 10, 2, 256, 89.0, 0.1),
    ("hgx-h100", "all_reduce", 10, 4, 1024, 195.0, 0.1),
    ("hgx-h100", "all_gather", 10, 8, 1024, 265.0, 0.2),
    ("hgx-h100", "all_to_all", 10, 8, 256, 50.0, 0.05),
    ("ec2-p6-b200", "all_reduce", 4, 8, 16, 64.4, 0.1),
    ("ec2-p6-b200", "all_reduce", 4, 8, 1024, 362.0, 0.1),
    ("hgx-h100", "all_reduce", 2, 8, 32, 210.8, 0.25),
    ("hgx-h100", "all_reduce", 2, 8, 512, 312.8, 0.25),
]
"""Preset, operation, nodes, ranks a node, MiB, busbw in GB/s as published, the error allowed."""


@lru_cache(maxsize=8)
def _cluster(preset: str):
    return read_cluster(preset)


def busbw(preset: str, operation: str, nodes: int, per_node: int, mib: float) -> float:
    """Predicted, in GB/s."""
    cluster = _cluster(preset).with_nodes(max(nodes, 2))
    ranks = [node * cluster.accelerators_per_node + rank for node in range(nodes) for rank in range(per_node)]
    seconds = transport(cluster, operation, ranks, mib * MIB)
    return bus_bandwidth(operation, len(ranks), mib * MIB, seconds) / 1e9


@pytest.mark.parametrize(("preset", "operation", "ranks", "mib", "published"), ONE_NODE)
def test_inside_a_node_collectives_are_as_published(preset, operation, ranks, mib, published):
    """The presets hold these curves; what is thinned away, and rounding here, is 4 %."""
    assert busbw(preset, operation, 1, ranks, mib) == pytest.approx(published, rel=0.04)


@pytest.mark.parametrize(
    ("preset", "operation", "nodes", "per_node", "mib", "published", "allowed"), SEVERAL_NODES
)
def test_between_nodes_one_latency_and_one_efficiency_are_enough(
    preset, operation, nodes, per_node, mib, published, allowed
):
    """One latency a network, and one fraction an operation but for all-to-alls, over all sizes and ranks."""
    assert busbw(preset, operation, nodes, per_node, mib) == pytest.approx(published, rel=allowed)
