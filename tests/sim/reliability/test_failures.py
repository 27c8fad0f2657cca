"""Failures come as often, and in such gaps, as said, and any sample can be drawn again."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from machines import gpu_cluster
from scipy import stats

from traincast.sim.errors import InputError
from traincast.sim.hardware.cluster_file import read_cluster
from traincast.sim.hardware.cluster_writer import write_cluster
from traincast.sim.reliability.failures import (
    DAY_S,
    NEVER,
    TICK_S,
    Failures,
    Machine,
    draw_failures,
    machine,
    mtbf_by_kind_s,
    spare_nodes,
    system_mtbf_s,
)

ONLY_NODES = Failures(accelerator_mtbf_s=0.0, switch_mtbf_s=0.0, software_mtbf_s=0.0, node_mtbf_s=1e6)


def test_defaults_give_back_the_run_they_are_from():
    """16,384 accelerators in 2,048 nodes fail 419 times in 54 days, by the causes of the paper's table."""
    failures = Failures()
    job = machine(failures, 2048, 8)
    assert job == Machine(accelerators=16384, nodes=2048, switches=1024)
    counts = {kind: 54 * DAY_S / mean for kind, mean in mtbf_by_kind_s(failures, job).items()}
    assert counts == pytest.approx({"accelerator": 268, "node": 53, "switch": 35, "software": 63})
    assert system_mtbf_s(failures, job) == pytest.approx(54 * DAY_S / 419)


def test_smaller_runs_fail_less_often_in_proportion():
    """The order of others' figures: 1,024 A100 failed every 7.9 h (Kokolis et al. 2024, arXiv 2410.21680),
    and 1,024 A100 restarted about 90 times in two months (OPT-175B, 1.5 a day)."""
    hours = system_mtbf_s(Failures(), machine(Failures(), 128, 8)) / 3600
    assert hours == pytest.approx(16 * 3.093, rel=1e-3)


def test_what_never_fails_draws_nothing():
    never = replace(ONLY_NODES, node_mtbf_s=0.0)
    assert system_mtbf_s(never, machine(never, 4, 8)) == math.inf
    drawn = draw_failures(never, machine(never, 4, 8), horizon_s=1e9, samples=3)
    assert (drawn.ticks == NEVER).all()


@pytest.mark.parametrize("shape", [0.7, 1.0, 1.5])
def test_gaps_have_the_distribution_they_say(shape: float):
    """Weibull of the given shape and mean, by Kolmogorov and Smirnov."""
    failures = replace(ONLY_NODES, shape=shape)
    drawn = draw_failures(failures, machine(failures, 100, 8), horizon_s=1e8, samples=2, seed=3)
    gaps = np.diff(drawn.ticks[0][drawn.ticks[0] != NEVER]) * TICK_S
    scale = 1e4 / math.gamma(1 + 1 / shape)
    assert len(gaps) > 5_000
    assert stats.kstest(gaps, stats.weibull_min(shape, scale=scale).cdf).pvalue > 1e-3


def test_counts_are_poisson_for_exponential_gaps():
    """Mean and variance alike, within five standard errors of each, over kinds together."""
    drawn = draw_failures(Failures(), machine(Failures(), 2048, 8), horizon_s=5 * DAY_S, samples=4000, seed=1)
    counts = (drawn.ticks != NEVER).sum(axis=1)
    expected = 419 * 5 / 54
    assert abs(counts.mean() - expected) < 5 * math.sqrt(expected / 4000)
    assert counts.var() == pytest.approx(expected, rel=5 * math.sqrt(2 / 4000))
    nodes = drawn.takes_node[drawn.ticks != NEVER].mean()
    assert nodes == pytest.approx(321 / 419, abs=5 * math.sqrt(0.18 / counts.sum()))


def test_a_sample_can_be_drawn_again_and_longer():
    """Fewer samples change nothing, a longer horizon only adds; rows are in order."""
    job = machine(Failures(), 512, 8)
    long = draw_failures(Failures(), job, horizon_s=40 * DAY_S, samples=6, seed=9)
    short = draw_failures(Failures(), job, horizon_s=10 * DAY_S, samples=3, seed=9)
    assert (np.sort(long.ticks, axis=1) == long.ticks).all()
    for row, full, takes, full_takes in zip(
        short.ticks, long.ticks, short.takes_node, long.takes_node, strict=False
    ):
        kept = row != NEVER
        assert row[kept].tolist() == full[full < short.until].tolist()
        assert takes[kept].tolist() == full_takes[full < short.until].tolist()
    other = draw_failures(Failures(), job, horizon_s=10 * DAY_S, samples=3, seed=10)
    assert other.ticks[0].tolist() != short.ticks[0].tolist()


def test_spares_are_a_share_unless_said():
    assert [spare_nodes(Failures(), nodes) for nodes in (1, 48, 49)] == [1, 4, 5]
    assert spare_nodes(Failures(spare_nodes=0), 48) == 0


@pytest.mark.parametrize(
    ("changes", "horizon_s", "samples", "message"),
    [
        ({}, -1.0, 1, "horizon is -1.0 s"),
        ({}, math.nan, 1, "horizon is nan s"),
        ({"shape": 0.0}, 1.0, 1, "shape is 0.0"),
        ({"node_mtbf_s": 1e-3}, 1e6, 10, "failures in 10 runs"),
    ],
)
def test_what_cannot_be_drawn_is_refused(changes, horizon_s, samples, message):
    failures = replace(ONLY_NODES, **changes)
    with pytest.raises(InputError, match=message):
        draw_failures(failures, machine(failures, 1, 8), horizon_s=horizon_s, samples=samples)


def test_files_hold_failures(tmp_path):
    """Every field reads back to the bit, defaults that are not zero too."""
    for failures in (
        Failures(),
        Failures(accelerator_mtbf_s=0.0, shape=0.7, spare_nodes=0, storage_bandwidth=2e12, source="a log"),
    ):
        made = gpu_cluster(failures=failures)
        write_cluster(made, tmp_path / "c.yaml")
        assert read_cluster(tmp_path / "c.yaml").failures == failures
