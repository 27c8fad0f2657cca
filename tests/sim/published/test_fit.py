"""The fitted share of short bursts' rates."""

from __future__ import annotations

from dataclasses import replace

import pytest

from traincast.sim.hardware.cluster_file import read_cluster
from traincast.sim.published.fit import FAMILIES, GRID, SustainedFit, family_of, with_sustained
from traincast.sim.published.table import read_table


def test_accelerators_are_of_a_family_by_either_name():
    assert family_of("a100-40gb-sxm") == family_of("NVIDIA A100-SXM4-80GB") == "A100"
    assert family_of("NVIDIA GH200 96GB HBM3") == family_of("h100-96gb-hbm2e-500w") == "H100"
    assert family_of("v100-32gb-sxm2") is None


PRESETS = {"A100": "dgx-a100", "H100": "hgx-h100", "B200": "dgx-b200"}


@pytest.mark.parametrize("family", FAMILIES)
def test_files_state_what_the_fit_starts_from(family: str):
    cluster = read_cluster(PRESETS[family])
    assert cluster.accelerator.sustained == FAMILIES[family][1]
    assert with_sustained(cluster, 0.8).accelerator.sustained == pytest.approx(0.8)


def test_a_limited_part_keeps_its_ratio():
    cluster = read_cluster("hgx-h100")
    slow = replace(cluster, accelerator=replace(cluster.accelerator, sustained=FAMILIES["H100"][1] / 2))
    assert with_sustained(slow, 0.8).accelerator.sustained == pytest.approx(0.4)
    others = read_cluster("dgx-1-v100")
    assert with_sustained(others, 0.8) is others


def test_every_source_counts_once(monkeypatch: pytest.MonkeyPatch):
    """Eight rows that want the lowest value do not outvote two single ones that want the highest."""
    one = read_table("korthikanti_recompute")[0]
    rows = [replace(one, line=i) for i in range(8)]
    lone = [replace(one, cells={**one.cells, "source": name}) for name in ("b", "c")]
    wanted = {id(row): GRID[0] for row in rows} | {id(row): GRID[-1] for row in lone}
    monkeypatch.setattr(SustainedFit, "_row_error", lambda self, row, value: abs(value - wanted[id(row)]))
    assert SustainedFit().best([*rows, *lone])["A100"] == GRID[-1]
    assert SustainedFit().best(rows)["A100"] == GRID[0]


def test_predictions_take_the_fitted_value():
    """On one run that is forecast too quick with every value, the lowest is the best."""
    rows = [row for row in read_table("torchtitan") if "Llama 2 70B" in row.get("model")][:1]
    fit = SustainedFit()
    values = [fit._row_error(rows[0], value) for value in GRID]
    best = GRID[values.index(min(values))]
    assert fit.best(rows) == {"A100": best, "H100": best, "B200": best}  # for want of rows of their own
    case = fit._case(rows[0])
    by_hand = fit._by_value[fit.best(rows)["A100"]].predict(case)
    assert fit(rows).predict(case) == by_hand
