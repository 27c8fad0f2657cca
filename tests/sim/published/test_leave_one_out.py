"""Leaving a source out: whose rows a fit sees, and what becomes of the errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
from published_rows import row

from traincast.reports.validation_tables import unseen_table
from traincast.reports.validation_views import unseen
from traincast.sim.hardware.cluster import Cluster
from traincast.sim.published.case import Case
from traincast.sim.published.leave_one_out import leave_one_out
from traincast.sim.published.prediction import Prediction, Predictor
from traincast.sim.published.table import Row
from traincast.sim.published.validation import Judged, judge


@dataclass(slots=True)
class Constant(Predictor):
    """A predictor that always says the same."""

    says_s: float = 1.0
    asked: list[str] = field(default_factory=list)

    def predict(self, case: Case) -> Prediction:
        self.asked.append(case.row.source)
        return Prediction(step_s=self.says_s, low_s=0.0, high_s=9.0, memory_bytes=1.0, fits=True)


def measured(source: str, seconds: float) -> Row:
    return row(source=source, step_s=str(seconds))


def judged_by(predictor: Predictor) -> list[Judged]:
    """Two sources: one that took 1 s and 3 s, one that took 4 s and has a row that is left out."""
    rows = [measured("a", 1.0), measured("a", 3.0), measured("b", 4.0), row(source="b", recompute="")]
    return judge(rows, predictor)


def test_a_fit_sees_all_rows_but_the_source():
    """And predicts the source's rows alone."""
    seen: list[list[str]] = []
    predictor = Constant()

    def fit(rows: Sequence[Row]) -> Predictor:
        seen.append([one.source for one in rows])
        return predictor

    leave_one_out(judged_by(Constant()), fit)
    assert seen == [["b", "b"], ["a", "a"]]
    assert predictor.asked == ["a", "a", "b"]


def test_errors_with_and_without_the_source():
    """The mean of what others measured is no good prediction of either source."""

    def mean(rows: Sequence[Row]) -> Predictor:
        seconds = [float(one.get("step_s")) for one in rows if one.get("recompute")]
        return Constant(says_s=sum(seconds) / len(seconds))

    first, second = leave_one_out(judged_by(Constant(says_s=2.0)), mean)
    assert (first.source, first.seen.mean_abs_pct) == ("a", pytest.approx(100 * (1 + 1 / 3) / 2))
    assert first.unseen.mean_abs_pct == pytest.approx(100 * (3 + 1 / 3) / 2)  # 4 s for 1 s and for 3 s
    assert first.growth_pct == pytest.approx(100 * ((3 + 1 / 3) / (1 + 1 / 3) - 1))
    assert (second.seen.mean_abs_pct, second.unseen.mean_abs_pct) == (50.0, 50.0)  # 2 s for 4 s, both
    assert second.to_dict()["growth_pct"] == 0.0


def test_a_fit_may_change_the_cluster():
    """A device that is half as fast takes longer; everything else stays."""

    def slower(cluster: Cluster) -> Cluster:
        accelerator = cluster.accelerator
        halved = {name: peak / 2 for name, peak in accelerator.peak_flops.items()}
        return replace(cluster, accelerator=replace(accelerator, peak_flops=halved))

    def fit(rows: Sequence[Row]) -> Predictor:
        return Predictor(samples=2, adjust=slower)

    (one,) = leave_one_out(judge([measured("a", 0.001)], Predictor(samples=2)), fit)
    assert one.seen.bias_pct is not None
    assert one.unseen.bias_pct is not None
    assert one.unseen.bias_pct > one.seen.bias_pct > 0


def test_the_table_and_the_page_show_both():
    """With the growth between them."""
    found = leave_one_out(judged_by(Constant(says_s=2.0)), lambda rows: Constant(says_s=4.0))
    cells = unseen_table(found).rows[0]
    assert cells[1:] == ("a", "66.7", "166.7", "+150")
    assert [(one.title, one.growth_pct) for one in unseen(found)] == [
        ("a", pytest.approx(150.0)),
        ("b", pytest.approx(-100.0)),
    ]


def test_sources_without_a_step_time_are_passed_over():
    """There is no error to grow."""
    assert leave_one_out(judge([row(recompute="")], Constant()), lambda rows: Constant()) == ()
