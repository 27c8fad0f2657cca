"""Clusters as YAML: presets, round trips to the bit, and every bad input with its whole message."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import cluster_faults

from traincast.sim.errors import InputError
from traincast.sim.files.reader import load_document, parse_document
from traincast.sim.hardware.cluster import (
    Accelerator,
    Cluster,
    Host,
    LayerProfile,
    Link,
    OptimizerCost,
    TransportCurve,
    Wire,
)
from traincast.sim.hardware.cluster_file import (
    accelerator_presets,
    check_accelerator,
    check_cluster,
    cluster_presets,
    read_cluster,
)
from traincast.sim.hardware.cluster_writer import cluster_to_yaml, write_cluster
from traincast.sim.network.transport import transport

GOOD = """\
schema: traincast.cluster/1
name: good
nodes: 2
accelerators_per_node: 8
accelerator: h100-sxm
links:
  nv: {joins: accelerators, bandwidth: 450 GB/s, latency: 2 us}
  ib: {joins: nodes, bandwidth: 400 Gb/s, latency: 5 us}
switches: [leaf0]
wires:
  - {from: node0, to: leaf0, link: ib}
  - {from: node1, to: leaf0, link: ib}
"""

CALIBRATED = Cluster(
    name="laptop",
    nodes=2,
    accelerators_per_node=4,
    accelerator=Accelerator(
        name="one core: of four",
        kind="cpu",
        peak_flops={"fp32": 1.2345678901e11, "bf16": 3e10},
        memory_bytes=8_123_456_789.0,
        memory_bandwidth=1.1e10,
        gemm_efficiency={"fp32": ((1e3, 0.1), (1.7e9, 0.93), (1e12, 1.0))},
        attention_efficiency={"fp32": ((12345.678, 0.1),)},
        memory_efficiency=((1024.0, 0.5), (1e7, 0.123456789012345)),
        launch_overhead_s=1.23456789e-6,
        framework_factor=1.0345,
        sm_count=4,
        optimizer_costs={"adamw": OptimizerCost(overhead_s=1e-5, per_parameter_s=1.3e-12)},
        layer_profiles=(
            LayerProfile(
                kind="block",
                hidden=256,
                heads=8,
                kv_heads=4,
                ffn=704,
                vocab=256,
                activation="swiglu",
                norm="rmsnorm",
                seq_len=128,
                micro_batch=4,
                precision="fp32",
                forward_s=0.0123,
                backward_s=0.0246,
            ),
            LayerProfile(
                kind="moe_block",
                hidden=256,
                heads=8,
                kv_heads=4,
                ffn=704,
                vocab=256,
                activation="swiglu",
                norm="rmsnorm",
                seq_len=128,
                micro_batch=4,
                precision="fp32",
                forward_s=0.0123,
                backward_s=0.0246,
                tp=2,
                sequence_parallel=True,
                cp=4,
                cp_exchange="all_gather",
                ep=2,
                variant="experts=8 experts_per_token=2 expert_ffn=352",
                input_gradient_s=0.0145,
                weight_gradient_s=0.0101,
                kept_bytes=12345678.0,
            ),
        ),
        reserved_bytes=1e6,
        allocator_loss=((1, 0.0), (2, 0.5)),
        price_per_hour=0.1,
        power_w=12.5,
        source="measured here",
        date="2026-01-01",
    ),
    links={
        "lo": Link(
            name="lo",
            joins="nodes",
            bandwidth=1.25e9,
            latency=5e-6,
            per_node=True,
            efficiency=((1e6, 0.9),),
            efficiency_by_operation={"all_to_all": ((1024.0, 0.25), (1e6, 0.75))},
        )
    },
    switches=("s0", "yes"),
    wires=(Wire(a="node0", b="s0", link="lo"), Wire(a="s0", b="node1", link="lo")),
    transports=(
        TransportCurve(
            operation="all_reduce",
            ranks=2,
            times_s=((1024.0, 5.123e-5), (1e6, 3e-3)),
            cpu_times_s=((1024.0, 0.0), (1e6, 1e-3)),
            nodes=2,
        ),
    ),
    host=Host(
        cores=2,
        time_slice_s=0.003,
        concurrency=((1, 1.0), (2, 1.234)),
        host_staged=False,
        traffic=1.25,
        copied_s_per_byte=1.5e-10,
    ),
    jitter=0.021,
    residuals={"gemm": 0.013, "all_reduce": 0.0},
    corrections={"compute": 1.0625, "all_reduce": 0.9},
    description="two lines\nof text",
    source="traincast calibrate",
    date="2026-01-02",
)


def warnings(text: str) -> list[str]:
    cluster, errors, doubts = check_cluster(parse_document(text, "c.yaml"))
    assert cluster is not None
    assert errors == []
    return [str(doubt) for doubt in doubts]


@pytest.mark.parametrize("name", sorted(cluster_presets()))
def test_presets_are_sound_and_sourced(tmp_path, name):
    """Every preset reads without a warning, says where its numbers are from, and round-trips."""
    path = cluster_presets()[name]
    cluster, errors, doubts = check_cluster(load_document(path))
    assert (errors, doubts) == ([], [])
    assert cluster is not None
    assert cluster.name == name
    assert all("https://" in source for source in (cluster.source, cluster.accelerator.source))
    assert all(link.source for link in cluster.links.values())
    measured = [link.efficiency for link in cluster.links.values() if link.joins != "host"]
    assert all(measured) or cluster.fabric is not None or not cluster.is_measured
    assert transport(cluster, "all_reduce", range(cluster.accelerators), 2**30) > 0
    write_cluster(cluster, tmp_path / "copy.yaml")
    assert read_cluster(tmp_path / "copy.yaml") == cluster


def test_presets_are_the_machines_they_name():
    """The numbers that everybody knows."""
    h100, a100 = read_cluster("hgx-h100"), read_cluster("DGX_A100")
    assert (h100.accelerators, h100.accelerator.peak_flops["bf16"]) == (32, 989e12)
    assert a100.accelerator.memory_bytes == 80 * 2**30
    assert {link.name: link.bandwidth for link in a100.links.values()} == {
        "nvlink": 300e9,
        "infiniband": 25e9,
        "host": 32e9,
    }
    assert read_cluster("ethernet-a100").links["ethernet"].per_node


@pytest.mark.parametrize("name", sorted(accelerator_presets()))
def test_accelerators_are_sound(name):
    accelerator, errors, doubts = check_accelerator(load_document(accelerator_presets()[name]))
    assert (errors, doubts) == ([], [])
    assert accelerator is not None
    assert accelerator.basis == "datasheet" or accelerator.is_measured == bool(accelerator.gemm_efficiency)


def test_what_calibration_writes_reads_back_to_the_bit(tmp_path):
    """Every field of every part."""
    write_cluster(CALIBRATED, tmp_path / "c.yaml")
    assert read_cluster(tmp_path / "c.yaml") == CALIBRATED


def test_yaml_form_is_compact():
    """A curve is one line, with a unit on every quantity."""
    text = cluster_to_yaml(CALIBRATED)
    assert "    fp32: [[1 kFLOP, 0.1], [1.7 GFLOP, 0.93], [1 TFLOP, 1]]\n" in text
    assert "  times: [[1 KiB, 51.23 us], [1 MB, 3 ms]]\n" in text
    assert "- {from: node0, to: s0, link: lo}\n" in text


positive = st.floats(min_value=1e-9, max_value=1e15)
curves = st.dictionaries(st.floats(1.0, 1e15), st.floats(1e-3, 1.0), max_size=4).map(
    lambda points: tuple(sorted(points.items()))
)


@settings(max_examples=30, deadline=None)
@given(curves, positive, positive, st.text(max_size=20))
def test_any_cluster_round_trips_or_is_refused(tmp_path_factory, curve, bandwidth, latency, text):
    """Values of any size and text of any kind: the same cluster, or one clear refusal."""
    link = Link(name="lo", joins="nodes", bandwidth=bandwidth, latency=latency, efficiency=curve)
    accelerator = replace(CALIBRATED.accelerator, gemm_efficiency={"bf16": curve}, memory_efficiency=curve)
    cluster = replace(CALIBRATED, links={"lo": link}, accelerator=accelerator, description=text)
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    write_cluster(cluster, path)
    if text.isprintable():
        assert read_cluster(path) == cluster


def test_everything_wrong_is_told_at_once():
    """One round mends a file."""
    assert (
        cluster_faults("""\
schema: traincast.cluster/1
name: bad
nodes: 2
gpus_pernode: 8
accelerator: h100-sx
links:
  nv: {joins: accelerators, bandwidth: 400 gb/s, latency: 5}
  ib: {joins: nodes, bandwidth: 25 us, latency: -5 us, efficiency: [[1 MiB, 1.2]], bandwith: 3}
switches: [leaf0, leaf0]
wires:
  - {from: node0, to: leaf1, link: ibb}
  - {from: node2, to: leaf0, link: ib}
  - {from: leaf0, to: leaf0, link: ib}
""")
        == """\
c.yaml: accelerators_per_node: missing -> expected a whole number
c.yaml:4: gpus_pernode: unknown key; did you mean accelerators_per_node?
c.yaml:5: accelerator: 'h100-sx' -> expected the name of an accelerator; did you mean h100-sxm?
c.yaml:7: links.nv.bandwidth: '400 gb/s' is ambiguous -> expected 400 Gb/s or 400 GB/s
c.yaml:7: links.nv.latency: 5 without a unit -> expected a time, as 5 us or 1.5 ms
c.yaml:8: links.ib.bandwidth: '25 us', which is a time -> expected a bandwidth, as 400 Gb/s (bits) or \
50 GB/s (bytes)
c.yaml:8: links.ib.latency: '-5 us' -> expected 0 or more
c.yaml:8: links.ib.efficiency[0][1]: 1.2 -> expected a fraction above 0 and at most 1
c.yaml:8: links.ib.bandwith: unknown key; did you mean bandwidth?
c.yaml:9: switches[1]: 'leaf0' for the second time -> expected each name once
c.yaml:11: wires[0].to: 'leaf1' -> expected node0 to node1 or a switch; did you mean leaf0?
c.yaml:11: wires[0].link: 'ibb' -> expected the name of a link; did you mean ib?
c.yaml:12: wires[1].from: 'node2' -> expected node0 to node1 or a switch
c.yaml:13: wires[2]: from 'leaf0' to itself -> expected two different ends
14 errors"""
    )


WIRES = GOOD[GOOD.index("switches") :]
BAD = [
    ("nodes: 2", "nodes: 0", "c.yaml:3: nodes: 0 -> expected at least 1"),
    ("nodes: 2", "nodes: -2", "c.yaml:3: nodes: -2 -> expected at least 1"),
    ("nodes: 2", "nodes: 1.5", "c.yaml:3: nodes: 1.5 -> expected a whole number"),
    ("nodes: 2", "nodes: true", "c.yaml:3: nodes: true -> expected a whole number"),
    ("nodes: 2", "nodes: '2'", "c.yaml:3: nodes: '2' -> expected a whole number"),
    ("node: 8", "node: 0", "c.yaml:4: accelerators_per_node: 0 -> expected at least 1"),
    (
        "nodes: 2",
        "nodes: 1000000000",
        "c.yaml:3: nodes: 1000000000 -> expected at most 10000000",
    ),
    (
        "nodes: 2",
        "nodes: 5000000",
        "c.yaml:3: nodes: 5000000 × 8 = 40000000 accelerators -> expected at most 10000000",
    ),
    ("400 Gb/s", "0 Gb/s", "c.yaml:8: links.ib.bandwidth: '0 Gb/s' -> expected more than 0"),
    ("400 Gb/s", "-4 Gb/s", "c.yaml:8: links.ib.bandwidth: '-4 Gb/s' -> expected more than 0"),
    ("400 Gb/s", ".inf", "c.yaml:8: links.ib.bandwidth: inf -> expected a finite number"),
    (
        "400 Gb/s",
        "'nan GB/s'",
        "c.yaml:8: links.ib.bandwidth: 'nan GB/s' -> expected a bandwidth, as 400 Gb/s (bits) or "
        "50 GB/s (bytes)",
    ),
    (
        "400 Gb/s",
        "50000000000",
        "c.yaml:8: links.ib.bandwidth: 50000000000 without a unit -> expected a bandwidth, as 400 Gb/s "
        "(bits) or 50 GB/s (bytes)",
    ),
    (
        "latency: 5 us}",
        "latency: 5 us, efficiency: [[1 MiB, 0.5], [1 KiB, 0.6]]}",
        "c.yaml:8: links.ib.efficiency: a point at 1024 after one at 1.04858e+06 -> expected points in "
        "rising order, each once",
    ),
    (
        "latency: 5 us}",
        "latency: 5 us, efficiency: [[1 MiB]]}",
        "c.yaml:8: links.ib.efficiency[0][1]: missing",
    ),
    (
        "- {from: node1, to: leaf0, link: ib}",
        "- {from: node1, to: leaf1, link: ib}",
        "c.yaml:12: wires[1].to: 'leaf1' -> expected node0 to node1 or a switch; did you mean leaf0?",
    ),
    (
        "  - {from: node1, to: leaf0, link: ib}\n",
        "",
        "c.yaml:10: wires: node1 has no wire -> expected all 2 nodes joined",
    ),
    (
        WIRES,
        WIRES.replace("[leaf0]", "[leaf0, leaf1]").replace("node1, to: leaf0", "node1, to: leaf1"),
        "c.yaml:10: wires: no way from node0 to node1 -> expected all 2 nodes joined",
    ),
    (
        "[leaf0]",
        "[leaf0, node1]",
        "c.yaml:9: switches[1]: 'node1' -> expected a name that is no node's",
    ),
    (
        "joins: nodes,",
        "joins: accelerators,",
        "c.yaml:6: links: no link between the 2 nodes; add one with joins: nodes",
    ),
    (
        "joins: nodes,",
        "joins: racks,",
        "c.yaml:8: links.ib.joins: 'racks' -> expected accelerators, nodes, switches, zones or host",
    ),
    (
        "traincast.cluster/1",
        "traincast.cluster/2",
        "c.yaml:1: schema: 'traincast.cluster/2' -> expected traincast.cluster/1",
    ),
    (
        "schema: traincast.cluster/1\n",
        "",
        "c.yaml: schema: missing -> expected traincast.cluster/1",
    ),
    ("name: good", "name: [1]", "c.yaml:2: name: a list of 1 -> expected text"),
    (
        "name: good",
        'name: "a\\x1b[31m"',
        "c.yaml:2: name: 'a\\x1b[31m' -> expected text without control characters",
    ),
    (
        "accelerator: h100-sxm",
        "accelerator: ../../secret",
        "c.yaml:5: accelerator: '../../secret' -> expected the name of an accelerator",
    ),
    (
        "accelerator: h100-sxm",
        "accelerator: h100-smx",
        "c.yaml:5: accelerator: 'h100-smx' -> expected the name of an accelerator; did you mean h100-sxm?",
    ),
    (
        "accelerator: h100-sxm",
        "accelerator: {name: x, kind: tpu, peak_flops: {bf15: 1 TFLOP/s}, memory: 80 Gb}",
        "c.yaml:5: accelerator.kind: 'tpu' -> expected gpu or cpu\n"
        "c.yaml:5: accelerator.peak_flops.bf15: 'bf15' -> expected fp64 | fp32 | tf32 | bf16 | fp16 | fp8 | "
        "int8\n"
        "c.yaml:5: accelerator.memory: '80 Gb' is ambiguous -> expected 80 GB or 80 GiB\n"
        "c.yaml:5: accelerator.memory_bandwidth: missing -> expected a bandwidth, as 3.35 TB/s\n"
        "4 errors",
    ),
]


@pytest.mark.parametrize(("good", "bad", "expected"), BAD)
def test_bad_clusters(good, bad, expected):
    """Each with its place, what was found, and what belongs there."""
    assert GOOD.count(good) == 1
    assert cluster_faults(GOOD.replace(good, bad)) == expected


@pytest.mark.parametrize(
    ("good", "odd", "expected"),
    [
        (
            "400 Gb/s",
            "400 GB/s",
            "c.yaml:8: links.ib.bandwidth: 400 GB/s is implausible for a link between nodes; are these bits? "
            "400 Gb/s is 50 GB/s",
        ),
        (
            "latency: 5 us",
            "latency: 5 s",
            "c.yaml:8: links.ib.latency: 5 s is implausible for a link; a switch takes about 1 us",
        ),
    ],
)
def test_implausible_values_are_warned_of(good, odd, expected):
    """Valid, so the cluster is read; doubtful, so it is said."""
    assert warnings(GOOD) == []
    assert warnings(GOOD.replace(good, odd)) == [expected]


def test_a_whole_nodes_link_may_be_fast():
    """8 × 400 Gb/s is 400 GB/s for a node."""
    assert warnings(GOOD.replace("bandwidth: 400 Gb/s", "per_node: true, bandwidth: 400 GB/s")) == []


def test_unknown_preset_suggests_a_near_one():
    with pytest.raises(InputError) as caught:
        read_cluster("hgx-h101")
    assert str(caught.value) == (
        "cluster: 'hgx-h101' -> expected a preset or a YAML file; did you mean hgx-h100?"
    )


def test_an_accelerator_beside_the_cluster_comes_first(tmp_path):
    """Somebody's own h100-sxm is used, and its faults carry its own file's name."""
    (tmp_path / "accelerators").mkdir()
    own = tmp_path / "accelerators" / "h100-sxm.yaml"
    own.write_text("name: mine\nkind: gpu\npeak_flops: {bf16: 1 TFLOP/s}\nmemory: 1 GiB\n")
    (tmp_path / "c.yaml").write_text(GOOD)
    with pytest.raises(InputError) as caught:
        read_cluster(tmp_path / "c.yaml")
    assert str(caught.value) == (f"{own}: memory_bandwidth: missing -> expected a bandwidth, as 3.35 TB/s")
    own.write_text(own.read_text() + "memory_bandwidth: 1 TB/s\n")
    assert read_cluster(tmp_path / "c.yaml").accelerator.name == "mine"
