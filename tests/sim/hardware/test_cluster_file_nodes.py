"""Fabrics and groups of nodes in cluster files."""

import pytest
from machines import cluster_faults

from traincast.sim.hardware.cluster import Cluster
from traincast.sim.hardware.cluster_file import read_cluster
from traincast.sim.hardware.cluster_writer import write_cluster
from traincast.sim.network.transport import transport

FABRIC = """\
schema: traincast.cluster/1
name: pod
nodes: 8
accelerators_per_node: 8
accelerator: h100-sxm
library: nccl
fabric: {kind: fat_tree, radix: 16, pod: 2, oversubscription: 2, trunk: up}
links:
  nv: {joins: accelerators, bandwidth: 450 GB/s, latency: 2 us, in_network: true}
  ib: {joins: nodes, bandwidth: 400 Gb/s, latency: 5 us}
  up: {joins: switches, bandwidth: 800 Gb/s, latency: 1 us}
  far: {joins: zones, bandwidth: 100 Gb/s, latency: 10 ms}
"""
SPEC = "{kind: fat_tree, radix: 16, pod: 2, oversubscription: 2, trunk: up}"


def read(tmp_path, text: str) -> Cluster:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return read_cluster(path)


@pytest.mark.parametrize(
    "fabric",
    [
        SPEC,
        "{kind: switch}",
        "{kind: rail, radix: 4}",
        "{kind: dragonfly, groups: 4, routers: 4, radix: 4, parallel: 2, trunk: up}",
        "{kind: torus, dimensions: [4, 4, 4]}",
        "{kind: wan, groups: 2, radix: 8}",
    ],
)
def test_fabrics_are_read_built_and_written_back(tmp_path, fabric):
    """Each kind: the same cluster again, and a network that joins all accelerators."""
    cluster = read(tmp_path, FABRIC.replace(SPEC, fabric))
    assert (cluster.library, cluster.links["nv"].in_network) == ("nccl", True)
    write_cluster(cluster, tmp_path / "copy.yaml")
    assert read_cluster(tmp_path / "copy.yaml") == cluster
    assert transport(cluster, "all_to_all", range(64), 1e6) > 0


@pytest.mark.parametrize(
    ("fabric", "expected"),
    [
        (
            "{kind: mesh}",
            "c.yaml:7: fabric.kind: 'mesh' -> expected switch, fat_tree, rail, dragonfly, torus or wan",
        ),
        ("{kind: fat_tree}", "c.yaml:7: fabric: a fat_tree without radix -> expected radix in it"),
        ("{kind: switch, pod: 2}", "c.yaml:7: fabric.pod: says nothing of a switch -> expected kind"),
        (
            "{kind: rail, radix: 4, trunk: ub}",
            "c.yaml:7: fabric.trunk: 'ub' -> expected the name of a link; known are nv, ib, up, far",
        ),
        ("{kind: torus, dimensions: [4, 4]}", "c.yaml:7: fabric.dimensions: 4 x 4 = 16 hosts -> expected 64"),
        (
            "{kind: dragonfly, groups: 2, routers: 2, radix: 4}",
            "c.yaml:7: fabric: room for 16 hosts -> expected groups x routers x radix of at least 64",
        ),
        ("{kind: wan, groups: 3}", "c.yaml:7: fabric.groups: 3 zones -> expected a divisor of 8 nodes"),
        (
            "{kind: fat_tree, radix: 16, oversubscription: 0.5}",
            "c.yaml:7: fabric.oversubscription: 0.5 -> expected a factor of 1 or more",
        ),
    ],
)  # fmt: skip
def test_bad_fabrics(fabric, expected):
    assert cluster_faults(FABRIC.replace(SPEC, fabric)) == expected


def test_a_fabric_needs_its_links_and_no_wires():
    """All told at once."""
    far = "  far: {joins: zones, bandwidth: 100 Gb/s, latency: 10 ms}\n"
    text = FABRIC.replace(SPEC, "{kind: wan, groups: 2}").replace(far, "")
    text += "switches: [s]\nwires: [{from: node0, to: s, link: ib}]\n"
    found = cluster_faults(text)
    assert "links: no link that joins zones, which a wan needs" in found
    assert "wires: wires besides a fabric -> expected one of the two" in found


def test_nodes_may_have_different_accelerators(tmp_path):
    """First nodes first; the first group's is the cluster's; it reads back."""
    groups = (
        "node_groups:\n  - {nodes: 6, accelerator: a100-80gb-sxm}\n  - {nodes: 2, accelerator: h100-sxm}\n"
    )
    cluster = read(tmp_path, FABRIC.replace("accelerator: h100-sxm\n", groups))
    assert cluster.accelerator == cluster.accelerator_of(0) == cluster.accelerator_of(47)
    assert (
        cluster.accelerator_of(48).name
        == cluster.accelerator_of(10**6).name
        == read_cluster("hgx-h100").accelerator.name
    )
    assert "A100" in cluster.accelerator.name
    write_cluster(cluster, tmp_path / "copy.yaml")
    assert read_cluster(tmp_path / "copy.yaml") == cluster
    alone = read_cluster("hgx-h100")
    assert alone.accelerator_of(31) is alone.accelerator


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (
            "[{nodes: 6, accelerator: h100-sxm}]",
            "c.yaml:13: node_groups: 6 nodes -> expected 8 in all, as nodes says",
        ),
        (
            "[{nodes: 8, accelerator: h1000}]",
            "c.yaml:13: node_groups[0].accelerator: 'h1000' -> expected the name of an accelerator;"
            " did you mean h100-sxm?",
        ),
    ],
)  # fmt: skip
def test_bad_groups_of_nodes(groups, expected):
    assert cluster_faults(f"{FABRIC}node_groups: {groups}\n") == expected
