"""What results show in a notebook: tables of their numbers, with names that stay text."""

from __future__ import annotations

from dataclasses import replace

import pytest

import traincast as tc
from traincast.reports.notebook import _TABLES, MOST_ROWS, table_html
from traincast.reports.table import Table
from traincast.sim import display

JOB = {"global_batch": 8, "seq_len": 512}
RESULTS = {
    "Cluster": lambda: tc.cluster("hgx-h100"),
    "Plan": lambda: tc.make_plan("gpt2", pp=2, **JOB),
    "Trace": lambda: tc.simulate("gpt2", "hgx-h100", pp=2, **JOB),
    "Prediction": lambda: tc.predict("gpt2", "hgx-h100", pp=2, **JOB),
    "Search": lambda: tc.plan("gpt2", tc.cluster("hgx-h100", nodes=1), top=2, samples=2, **JOB),
    "Memory": lambda: tc.memory("gpt2", "hgx-h100", pp=2, **JOB),
    "Collectives": lambda: tc.collective("all_reduce", "hgx-h100"),
    "Schedules": lambda: tc.schedules("1f1b", ranks=2, micro_batches=4),
    "LongTraining": lambda: tc.goodput("hgx-h100", step_time=1.0, samples=5),
    "Convergence": lambda: tc.converge(protocols="sync", seconds=0.2),
    "Validation": lambda: tc.validate("korthikanti_recompute", samples=2),
    "Checked": lambda: tc.check("nowhere.yaml"),
    "Comparison": lambda: tc.compare(RESULTS["Trace"](), RESULTS["Trace"]()),
}


def test_every_result_that_can_be_shown_is_tried():
    assert set(RESULTS) == set(_TABLES)


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_is_shown_as_tables_and_its_repr_is_a_line(name):
    found = RESULTS[name]()
    assert isinstance(found, display.Shown)
    html = found._repr_html_()
    assert html.startswith("<table>")
    assert html.count("<table>") == html.count("</table>")
    assert "<script" not in html
    assert "http" not in html
    assert repr(found).startswith(f"{name}(")
    assert len(repr(found).splitlines()) == 1
    assert len(repr(found)) < 200


def test_names_stay_text():
    """A cluster's name is written by somebody else."""
    evil = replace(tc.cluster("hgx-h100"), name="<script>alert(1)</script>\x1b[31m")
    assert "&lt;script&gt;alert(1)&lt;/script&gt; [31m" in evil._repr_html_()
    assert "<script" not in evil._repr_html_()


def test_long_tables_say_what_they_leave_out():
    rows = tuple((str(number),) for number in range(MOST_ROWS + 3))
    html = table_html(Table(title="", columns=("n",), rows=rows))
    assert html.count("<td") == MOST_ROWS
    assert "and 3 more rows" in html


def test_a_picture_is_shown_and_saved(tmp_path):
    picture = RESULTS["Trace"]().timeline(title="a $ name")
    assert picture._repr_png_().startswith(b"\x89PNG")
    picture.save(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == picture._repr_png_()
