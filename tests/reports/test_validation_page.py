"""The validation page: complete, self-contained, right about its numbers, harmless whatever is in it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pages import CHROMIUM, CHROMIUM_FLAGS, HOSTILE, Page

from traincast.reports.validation_page import (
    REACH_PCT,
    Run,
    Source,
    Unseen,
    bin_counts,
    context,
    write_validation_page,
)

FIGURES = (
    *("mean_abs_pct", "median_abs_pct", "p90_abs_pct", "max_abs_pct", "bias_pct", "spearman"),
    *("regret_pct", "fit_accuracy", "memory_mean_abs_pct", "interval_coverage"),
)


def run(measured: float, predicted: float, **changes) -> Run:
    """A run that took ``measured`` seconds."""
    values = {
        "place": "table.csv:2",
        "model": "GPT 1B",
        "accelerator": "A100",
        "accelerators": 8,
        "strategy": "dp8",
        "measured_s": measured,
        "predicted_s": predicted,
        "low_s": predicted * 0.9,
        "high_s": predicted * 1.1,
    }
    return Run(**{**values, **changes})


def source(*runs: Run, **changes) -> Source:
    """A source of ``runs``, with no figures but those in ``changes``."""
    values = {
        "file": "table.csv",
        "title": "somebody 2021",
        "rows": len(runs) + 1,
        "used": len(runs),
        "figures": dict.fromkeys(FIGURES, None),
        "left_out": {"tp blank": 1},
        "runs": runs,
        "citations": ["arXiv:0000.00000 table 1"],
    }
    return Source(**{**values, **changes})


def page(path: Path, sources: list[Source], unseen: tuple[Unseen, ...] = ()) -> str:
    """The page's text."""
    write_validation_page(sources, path / "validation.html", unseen)
    return (path / "validation.html").read_text(encoding="utf-8")


def test_errors_are_counted_in_bars_of_five_percent():
    """What is beyond the reach is in the outermost bars; no run is lost."""
    counted = dict(bin_counts([-100.0, -58.0, -0.1, 0.0, 4.9, 5.0, 59.9, 60.0, 900.0]))
    assert {middle: n for middle, n in counted.items() if n} == {-57.5: 2, -2.5: 1, 2.5: 2, 7.5: 1, 57.5: 3}
    assert min(counted) == -REACH_PCT + 2.5


def test_tiles_say_how_good_the_predictions_are():
    """Medians over runs, not over sources; a measured time on the edge of the interval is within it."""
    good, wide = run(1.0, 1.02), run(1.0, 1.4)
    sources = [source(good, good, wide, figures={**dict.fromkeys(FIGURES), "fit_accuracy": 0.9})]
    tiles = {label: value for label, value, _ in context(sources)["tiles"]}
    assert tiles == {
        "rows": "3",
        "error of a step time": "2.0 %",
        "runs beyond ± 15 %": "33 %",
        "within p5 to p95": "67 %",
        "fit or failure predicted": "90 %",
    }


def test_worst_rows_come_first():
    """Whichever source they are of, too fast or too slow."""
    sources = [source(run(1.0, 1.3), run(1.0, 0.5)), source(run(1.0, 1.6), title="other")]
    assert [round(one.error_pct) for one, _ in context(sources)["worst"]] == [60, -50, 30]


def test_no_two_sources_are_drawn_alike():
    """Twenty sources have twenty pairs of colour and symbol."""
    drawn = context([source(run(1.0, 1.0), title=str(n)) for n in range(20)])["figures"]["scatter"]["data"]
    marks = [one["marker"] for one in drawn if one["mode"] == "markers"]
    assert len({(mark["color"], mark["symbol"]) for mark in marks}) == 20


def test_the_page_has_every_number_and_no_way_out(tmp_path):
    """Tables, reasons, citations, figures; nothing is loaded from elsewhere."""
    figures = {**dict.fromkeys(FIGURES), "mean_abs_pct": 12.34, "bias_pct": -3.21, "interval_coverage": 0.875}
    first = source(run(2.0, 2.5), figures=figures)
    table = Unseen(title="somebody 2021", seen_pct=12.34, unseen_pct=15.0, growth_pct=21.6)
    text = page(tmp_path, [first, source(title="nobody", left_out={"recompute blank": 7})], (table,))
    words = " ".join(Page(text).words)
    for said in (
        "12.3 %",
        "-3.2 %",
        "88 %",
        "tp blank",
        "recompute blank",
        "arXiv:0000.00000",
        "+25.0 %",
        "+22 %",
    ):
        assert said in words
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    drawn = json.loads(found[1])
    assert set(drawn) == {"scatter", "errors-0"}
    assert drawn["scatter"]["data"][-1]["x"] == [2.0]
    assert not [tag for tag, attributes in Page(text).tags if attributes.get("src")]
    assert "default-src 'none'" in text


def test_nothing_measured_is_a_page_too(tmp_path):
    """All rows left out."""
    text = page(tmp_path, [source(left_out={"vocab blank": 3})])
    assert "No row has a step time" in text
    assert "Left one out" not in text


def test_names_cannot_act(tmp_path):
    """Whatever a table calls its models and sources."""
    plain = [
        tag for tag, _ in Page(page(tmp_path, [source(run(1.0, 1.0), title="t", left_out={"r": 1})])).tags
    ]
    for name in HOSTILE:
        one = run(1.0, 1.0, model=name, place=name, strategy=name, accelerator=name)
        hostile = source(one, title=name, file=name, left_out={name: 1}, citations=[name])
        assert [tag for tag, _ in Page(page(tmp_path, [hostile])).tags] == plain


@pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Chromium at /usr/bin/chromium")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_draws_it(tmp_path, scheme):
    """Every figure, without an error, in either colour scheme; no wider than a phone."""
    from playwright.sync_api import sync_playwright

    page(tmp_path, [source(run(1.0, 1.1), run(3.0, 2.0)), source(run(1.0, 1.0), title="other")])
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=CHROMIUM_FLAGS)
        view = browser.new_page(color_scheme=scheme, viewport={"width": 400, "height": 800})
        faults: list[str] = []
        view.on("pageerror", lambda error: faults.append(str(error)))
        view.goto((tmp_path / "validation.html").as_uri())
        view.wait_for_selector(".figure .main-svg")
        drawn = view.evaluate("document.querySelectorAll('.figure .plot-container').length")
        width = view.evaluate("document.documentElement.scrollWidth")
        browser.close()
    assert (faults, drawn, width) == ([], 3, 400)
