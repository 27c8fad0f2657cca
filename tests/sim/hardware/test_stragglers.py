"""Stragglers and slow links: who they hit, how often, and how options and files name them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from machines import gpu_cluster

from traincast.sim.errors import InputError
from traincast.sim.files.reader import parse_document
from traincast.sim.hardware.cluster_file import check_cluster, read_cluster
from traincast.sim.hardware.cluster_writer import write_cluster
from traincast.sim.hardware.straggler_factors import (
    link_factor,
    persistent_factors,
    rank_factors,
    transient_factors,
)
from traincast.sim.hardware.stragglers import SlowLink, Straggler, Stragglers, Transient, merged, parse_slow

STRAGGLERS = (Straggler(kind="rank", place=3, factor=1.5), Straggler(kind="node", place=1, factor=1.2))


def cluster(**slow):
    return gpu_cluster(nodes=2, per_node=4, stragglers=Stragglers(**slow))


def test_persistent_stragglers_slow_their_ranks():
    """A rank alone, a node whole; both factors where both apply; ranks that are not there do not matter."""
    both = (*STRAGGLERS, Straggler(kind="rank", place=4, factor=2.0))
    assert persistent_factors(cluster(persistent=both), 8).tolist() == [1, 1, 1, 1.5, 2.4, 1.2, 1.2, 1.2]
    assert persistent_factors(cluster(persistent=both), 5).tolist() == [1, 1, 1, 1.5, 2.4]
    assert persistent_factors(cluster(persistent=both), 2).tolist() == [1, 1]


def test_without_luck_nobody_is_slow():
    assert rank_factors(gpu_cluster(), 1, 2, 32).tolist() == [1.0] * 32
    assert link_factor(gpu_cluster(), 0) == 1.0


def test_transient_stragglers_come_as_often_as_said():
    """Within five standard errors of the probability; the factor is that of the one point."""
    made = cluster(transient=Transient(probability=0.1, factors=((1.0, 3.0),)))
    factors = transient_factors(made, 5, 0, 100_000)
    assert set(factors.tolist()) == {1.0, 3.0}
    assert abs((factors > 1).mean() - 0.1) < 5 * np.sqrt(0.1 * 0.9 / 100_000)


def test_transient_factors_follow_measured_quantiles():
    """Half up to 1.2, the rest up to 2: uniform between, as the points say."""
    points = ((1e-9, 1.1), (0.5, 1.2), (1.0, 2.0))
    made = cluster(transient=Transient(probability=1.0, factors=points))
    factors = transient_factors(made, 5, 1, 100_000)
    shares = [0.25, 0.5, 0.75, 1.0]
    assert np.quantile(factors, shares).tolist() == pytest.approx([1.15, 1.2, 1.6, 2.0], rel=0.01)


def test_a_step_can_be_drawn_again():
    """Same seed and sample, same bits, also for fewer ranks; others differ; persistent ones multiply."""
    made = cluster(persistent=STRAGGLERS, transient=Transient(probability=0.5, factors=((1.0, 3.0),)))
    first = rank_factors(made, 7, 2, 64)
    assert rank_factors(made, 7, 2, 64).tolist() == first.tolist()
    assert rank_factors(made, 7, 2, 16).tolist() == first[:16].tolist()
    assert rank_factors(made, 7, 3, 64).tolist() != first.tolist()
    assert rank_factors(made, 8, 2, 64).tolist() != first.tolist()
    expected = persistent_factors(made, 64) * transient_factors(made, 7, 2, 64)
    assert first.tolist() == expected.tolist()


def test_slow_links():
    made = cluster(slow_links=(SlowLink(node=1, bandwidth=0.25),))
    assert [link_factor(made, node) for node in (0, 1)] == [1.0, 0.25]


def test_options_name_ranks_nodes_and_links():
    slow = parse_slow(["3=1.5", "rank0=2"], ["node1=1.2"], ["node0=0.25"], ranks=8, nodes=2)
    assert slow == Stragglers(
        persistent=(
            Straggler(kind="rank", place=3, factor=1.5),
            Straggler(kind="rank", place=0, factor=2.0),
            Straggler(kind="node", place=1, factor=1.2),
        ),
        slow_links=(SlowLink(node=0, bandwidth=0.25),),
    )
    assert parse_slow() == Stragglers()


def test_options_add_to_the_file():
    """Persistent ones of both; the later transient ones."""
    transient = Transient(probability=0.5, factors=((1.0, 3.0),))
    file = Stragglers(persistent=STRAGGLERS[:1], transient=transient)
    both = Stragglers(persistent=STRAGGLERS, transient=transient)
    assert merged(file, Stragglers(persistent=STRAGGLERS[1:])) == both
    assert merged(None, None) == Stragglers()


def test_every_bad_option_is_told_at_once():
    with pytest.raises(InputError) as caught:
        parse_slow(
            ["3", "node1=2", "8=2", "1=0", "1=nan", "2=1", "2=1.5", "1=1e999"],
            ["2=1"],
            ["0=1.5", "0=-1"],
            ranks=8,
            nodes=2,
        )
    assert [str(fault) for fault in caught.value.faults] == [
        "--slow-rank: '3' -> expected rank=number, as 3=1.5",
        "--slow-rank: 'node1=2' -> expected rank=number, as 3=1.5",
        "--slow-rank: rank 8 -> expected rank 0 to 7",
        "--slow-rank: '1=0' -> expected a factor on time above 0 and at most 1e+06",
        "--slow-rank: '1=nan' -> expected rank=number, as 3=1.5",
        "--slow-rank: rank 2 for the second time",
        "--slow-rank: '1=1e999' -> expected a factor on time above 0 and at most 1e+06",
        "--slow-node: node 2 -> expected node 0 to 1",
        "--slow-link: '0=1.5' -> expected a fraction of bandwidth above 0 and at most 1",
        "--slow-link: '0=-1' -> expected a fraction of bandwidth above 0 and at most 1",
    ]


def test_files_hold_stragglers(tmp_path):
    """What is written reads back equal."""
    made = replace(
        read_cluster("hgx-h100"),
        stragglers=Stragglers(
            persistent=STRAGGLERS,
            transient=Transient(probability=0.01, factors=((0.5, 1.1), (1.0, 3.0))),
            slow_links=(SlowLink(node=2, bandwidth=0.25),),
        ),
    )
    write_cluster(made, tmp_path / "c.yaml")
    assert read_cluster(tmp_path / "c.yaml") == made


BAD = """\
schema: traincast.cluster/1
name: bad
nodes: 2
accelerators_per_node: 8
accelerator: h100-sxm
links:
  nv: {joins: accelerators, bandwidth: 450 GB/s, latency: 2 us}
  ib: {joins: nodes, bandwidth: 400 Gb/s, latency: 5 us}
stragglers:
  persistent:
    - {rank: 16, factor: 1.5}
    - {rank: 2, factor: 0}
    - {rank: 2, factor: 2}
    - {rank: 1, node: 1, factor: 2}
    - {factor: 2}
  transient: {probability: 1.5, factors: [[0.5, 2], [0.2, 3]]}
  slow_links:
    - {node: 2, bandwidth: 2}
failures: {accelerator_mtbf: 3000, spare: 3}
"""


def test_every_fault_of_a_file_is_told_at_once():
    _, errors, _ = check_cluster(parse_document(BAD, "c.yaml"))
    assert [str(error) for error in errors] == [
        "c.yaml:11: stragglers.persistent[0].rank: 16 -> expected rank 0 to 15",
        "c.yaml:12: stragglers.persistent[1].factor: 0 -> expected more than 0",
        "c.yaml:13: stragglers.persistent[2].rank: 2 for the second time -> expected each once",
        "c.yaml:14: stragglers.persistent[3]: both rank and node -> expected rank or node",
        "c.yaml:15: stragglers.persistent[4]: no place -> expected rank or node",
        "c.yaml:16: stragglers.transient.probability: 1.5 -> expected a fraction above 0 and at most 1",
        "c.yaml:16: stragglers.transient.factors: a point at 0.2 after one at 0.5"
        " -> expected points in rising order, each once",
        "c.yaml:18: stragglers.slow_links[0].node: 2 -> expected node 0 to 1",
        "c.yaml:18: stragglers.slow_links[0].bandwidth: 2 -> expected a fraction above 0 and at most 1",
        "c.yaml:19: failures.accelerator_mtbf: 3000 without a unit -> expected a time, as 5 us or 1.5 ms",
        "c.yaml:19: failures.spare: unknown key; did you mean spare_nodes?",
    ]
