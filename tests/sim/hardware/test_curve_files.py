"""Measured curves in files of their own, which clusters name."""

from __future__ import annotations

import pytest

from traincast.sim.check import check_file
from traincast.sim.errors import InputError
from traincast.sim.files.reader import load_document
from traincast.sim.hardware.cluster_file import read_cluster
from traincast.sim.hardware.curve_files import check_transports, transport_presets
from traincast.sim.network.transport import transport

CLUSTER = """schema: traincast.cluster/1
name: two
nodes: 2
accelerators_per_node: 2
accelerator: a100-80gb-sxm
links:
  nvlink: {joins: accelerators, bandwidth: 300 GB/s, latency: 2 us}
  ib: {joins: nodes, bandwidth: 25 GB/s, latency: 5 us}
transports: mine
"""
CURVES = """schema: traincast.transports/1
name: mine
source: measured here
transports:
  - {operation: all_reduce, ranks: 2, nodes: 1, times: [[1 MiB, 10 us], [2 MiB, 30 us]]}
  - {operation: send_recv, ranks: 2, times: [[1 MiB, 5 us]], source: elsewhere}
"""


@pytest.mark.parametrize("name", sorted(transport_presets()))
def test_presets_are_sound_and_sourced(name):
    """Every file reads, is called what it is, and its times rise with size."""
    path = transport_presets()[name]
    assert check_file(path) == ([], [])
    document = load_document(path)
    curves, faults = check_transports(document)
    assert faults == []
    assert document.data["name"] == name
    assert all("https://" in curve.source or curve.source.startswith(("half", "not")) for curve in curves)
    keys = [(curve.operation, curve.ranks) for curve in curves]
    assert len(set(keys)) == len(keys)
    for curve in curves:
        seconds = [y for _, y in curve.times]
        assert seconds == sorted(seconds)


def test_a_cluster_names_curves_beside_its_file(tmp_path):
    """They are its own then, with the source of the file where they have none."""
    (tmp_path / "two.yaml").write_text(CLUSTER)
    (tmp_path / "transports").mkdir()
    (tmp_path / "transports" / "mine.yaml").write_text(CURVES)
    cluster = read_cluster(tmp_path / "two.yaml")
    assert [(c.operation, c.nodes, c.source) for c in cluster.transports] == [
        ("all_reduce", 1, "measured here"),
        ("send_recv", 0, "elsewhere"),
    ]
    assert transport(cluster, "all_reduce", [0, 1], 2**21) == pytest.approx(30e-6)


@pytest.mark.parametrize(
    ("curves", "found"),
    [
        (None, "two.yaml:9: transports: 'mine' -> expected curves, or the name of a file"),
        (CURVES.replace("ranks: 2, nodes", "ranks: 1, nodes"), "mine.yaml:5: transports[0].ranks: 1"),
        (CURVES.replace("source: measured here\n", ""), "mine.yaml: source: missing"),
        ("- 1\n", "a mapping that describes measured curves"),
    ],
)
def test_what_is_wrong_with_named_curves_is_told(tmp_path, curves, found):
    """With the file it is in."""
    (tmp_path / "two.yaml").write_text(CLUSTER)
    if curves is not None:
        (tmp_path / "transports").mkdir()
        (tmp_path / "transports" / "mine.yaml").write_text(curves)
    with pytest.raises(InputError) as error:
        read_cluster(tmp_path / "two.yaml")
    assert found in str(error.value)
