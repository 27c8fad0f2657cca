"""The HTML report: complete, honest, self-contained, and harmless whatever the names in it are."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from pages import CHROMIUM, CHROMIUM_FLAGS, HOSTILE, Page
from result_directory import plan, trace, write_directory

from traincast.reports import report as report_module
from traincast.reports.report import MAX_REPORT_BYTES, write_report
from traincast.sim.errors import InputError
from traincast.sim.hardware.cluster import Cluster
from traincast.sim.plan.job import Job
from traincast.sim.search.planner import search
from traincast.sim.search.result import write_result
from traincast.sim.search.result_layout import prepare_directory
from traincast.sim.search.space import strategies
from traincast.sim.trace.chrome_trace import write_trace
from traincast.sim.trace.trace import Trace


def report(directory: Path) -> tuple[str, Page]:
    """Write the report of ``directory`` and read it again."""
    write_report(directory, directory / "report.html")
    text = (directory / "report.html").read_text()
    return text, Page(text)


def figures(text: str) -> dict[str, Any]:
    """The figures' JSON in a page."""
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', text, re.DOTALL)
    assert found
    return json.loads(found[1])


def two_plans() -> list[dict[str, Any]]:
    return [plan(1, "pp2 1f1b mb1", -4.4), plan(2, "ps-async dp1+1 mb4", 12.5), plan(3, "pp2 gpipe mb2")]


def test_a_full_report_says_everything(tmp_path: Path) -> None:
    """Verdict, honest errors, what was run, every section, a table under every figure."""
    text, page = report(write_directory(tmp_path, two_plans()))
    for words in (
        "pp2 1f1b mb1 is the fastest of 85 ways.",
        "median of 2 runs, worst 12.5 %",
        "the median error was 12.5 % and the worst 12.5 %",
        "-4.4 %",
        "+12.5 %",
        "+20.0%: pipeline bubble",
        "Asynchronous: an update is not worth a synchronous step",
        "Peak memory of the fullest rank was off by 6.2 % in the median and 6.2 % at worst.",
        "-6.2 %",
        "tiny, 4.56 M parameters (layers 6, hidden 256)",
        "global batch 16 × 128 tokens, adamw, fp32",
        "traincast demo -o out",
        "traincast run plans/1.json --steps 20",
        "refused: divisibility 7",
        "Staleness of its updates: 1.00 in the mean, 2 at most.",
        "gradient",
        "made up for tests 2026-11-21",
        "loopback",
        "Bubble",
    ):
        assert words.lower() in page.text.lower(), words
    shown = {attrs["data-figure"] for _, attrs in page.tags if "data-figure" in attrs}
    assert shown == set(figures(text))
    assert {
        "accuracy",
        "peaks",
        "breakdown",
        "losses",
        "timeline-1",
        "memory-3",
        "transports",
        "residuals",
    } <= shown


def test_plans_that_are_not_compared_stand_apart(tmp_path: Path) -> None:
    """The asynchronous one comes last under a title of its own, and places are counted within each kind."""
    plans = [plan(1, "pp2 1f1b mb1", 20.0), plan(2, "pp2 gpipe mb2", 35.0), plan(3, "ps-async dp1+1", 90.0)]
    plans[2]["why_not"] = ""
    text, _ = report(write_directory(tmp_path, plans))
    table = text[text.index('<table class="plans">') : text.index("</table>")]
    order = [
        "Synchronous: every",
        "pp2 1f1b",
        "second of 2",
        "pp2 gpipe",
        "the fastest of 2",
        "Asynchronous:",
    ]
    places = [table.index(words) for words in [*order, "ps-async"]]
    assert places == sorted(places)
    assert table.count("predicted fastest") == 2


def test_a_report_of_plans_alone_claims_no_measurement(tmp_path: Path) -> None:
    """Nothing measured: no error column, no losses, and it says that nothing has judged the predictions."""
    plans = [plan(1, "pp2 1f1b mb1"), plan(2, "pp2 gpipe mb2")]
    text, page = report(write_directory(tmp_path, plans))
    assert "nothing has judged yet" in page.text
    assert "misses a whole step on one rank by 2.1 %" in page.text
    assert "not measured" in page.text
    assert "Losses of the runs" not in page.text
    assert "losses" not in figures(text)
    data = figures(text)["accuracy"]["data"]
    assert [part["name"] for part in data] == ["predicted, p5–p95"]


def test_what_is_missing_is_tolerated_and_said(tmp_path: Path) -> None:
    """No cluster file, no traces, no memory, no counts: still a report."""
    entry = plan(1, "pp2")
    entry["predicted"]["memory"] = []
    directory = write_directory(tmp_path, [entry], with_cluster=False, counts={}, refusals={})
    (directory / "predicted/1.trace.json.gz").unlink()
    text, page = report(directory)
    assert "traces of this plan are not in the directory" in page.text
    assert "No estimate of memory" in page.text
    assert "not searched for" in page.text
    assert set(figures(text)) == {"accuracy"}


def test_nothing_is_loaded_from_anywhere(tmp_path: Path) -> None:
    """One file: a strict policy, no source or link outside it, the library once, under 10 MB."""
    text, page = report(write_directory(tmp_path, two_plans()))
    policy = [attrs["content"] for tag, attrs in page.tags if tag == "meta" and "http-equiv" in attrs]
    assert policy == [
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
    ]
    assert not [tag for tag, attrs in page.tags if "src" in attrs]
    links = [attrs["href"] for tag, attrs in page.tags if "href" in attrs]
    assert all(link and link.startswith(("#", "data:,")) for link in links), links
    assert text.count("plotly.js v") == 1
    assert len(text.encode()) < MAX_REPORT_BYTES
    assert "url(" not in text[: text.index("</style>")]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_text(name: str, tmp_path: Path) -> None:
    """A name in any field makes no tag, no attribute, no script and no template expression."""
    plain = write_directory(tmp_path / "a", [plan(1, "name", 1.0)], refusals={"name": 3})
    write_trace(trace("predicted", action="name"), plain / "predicted/1.trace.json.gz")
    _, reference = report(plain)
    entry = plan(1, name, 1.0) | {"why_not": name}
    directory = write_directory(
        tmp_path / "b",
        [entry],
        command=name,
        verdict=name,
        created=name,
        versions={"traincast": name, name: name},
        model={"name": name, "parameters": 1, "decoder": {"layers": name}},
        refusals={name: 3},
    )
    write_trace(trace("predicted", action=name), directory / "predicted/1.trace.json.gz")
    text, page = report(directory)
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in reference.tags]
    assert [sorted(attrs) for _, attrs in page.tags] == [sorted(attrs) for _, attrs in reference.tags]
    visible = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    assert visible in page.text
    assert "<img" not in json.dumps(figures(text)["timeline-1"]), (
        "plotly reads markup, so it is escaped for it"
    )


def test_many_long_traces_stay_under_the_limit(tmp_path: Path) -> None:
    """Thirty plans of thousands of spans: bars are left out, and the page says so."""
    plans = [plan(number, f"plan {number}") for number in range(1, 31)]
    directory = write_directory(tmp_path, plans)
    once = trace("predicted", ranks=32)
    many = Trace.of(
        [s._replace(start=s.start + i, end=s.end + i) for s in once.spans for i in range(12)],
        source="predicted",
        world_size=32,
        step_times_s=(12.0,),
    )
    assert len(many.spans) > 4000
    write_trace(many, directory / "predicted/1.trace.json.gz")
    for number in range(2, 31):
        shutil.copy(directory / "predicted/1.trace.json.gz", directory / f"predicted/{number}.trace.json.gz")
    text, page = report(directory)
    assert len(text.encode()) < MAX_REPORT_BYTES
    assert "of 32 ranks" in page.text
    assert len([name for name in figures(text) if name.startswith("timeline")]) == 24


def test_traces_past_the_budget_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans that were run come first; the others say where to look."""
    monkeypatch.setattr(report_module, "TRACE_BUDGET_BYTES", 1)
    text, page = report(write_directory(tmp_path, [plan(1, "a"), plan(2, "b", 3.0)]))
    assert [name for name in figures(text) if name.startswith("timeline")] == ["timeline-2"]
    assert page.text.count("too large for one page") == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "traincast.result/9"}, "schema"),
        ({"plans": []}, "plans"),
        ({"seed": "x", "verdict": None}, "2 errors"),
        ({"plans": [plan(1, "a") | {"predicted_trace": "../../../etc/passwd"}]}, "outside the directory"),
    ],
)
def test_a_broken_result_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    """With exit code 3 and every fault, and no report is left behind."""
    directory = write_directory(tmp_path, [plan(1, "a")])
    result = json.loads((directory / "result.json").read_text()) | change
    (directory / "result.json").write_text(json.dumps(result))
    with pytest.raises(InputError, match=message):
        write_report(directory, directory / "report.html")
    assert not (directory / "report.html").exists()


def test_the_same_directory_gives_the_same_report(tmp_path: Path) -> None:
    """No clock, no random identifiers."""
    directory = write_directory(tmp_path, two_plans())
    assert report(directory)[0] == report(directory)[0]


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Chromium at /usr/bin/chromium")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_it_without_network_or_errors(scheme: str, tmp_path: Path) -> None:
    """Every figure is drawn, the selector works, hostile names run nothing, nothing is requested."""
    from playwright.sync_api import sync_playwright

    plans = [plan(1, HOSTILE[0], -4.4), plan(2, HOSTILE[1], 12.5), plan(3, HOSTILE[4])]
    directory = write_directory(tmp_path, plans, verdict=HOSTILE[3], command=HOSTILE[2])
    write_report(directory, directory / "report.html")
    requests: list[str] = []
    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto((directory / "report.html").as_uri())
        page.wait_for_selector("[data-figure=losses] .main-svg")
        shown = page.eval_on_selector_all(
            ".figure", "all => all.map(e => [e.dataset.figure, e.querySelectorAll('.main-svg').length])"
        )
        assert {name for name, drawings in shown if drawings} == {
            "accuracy",
            "peaks",
            "timeline-1",
            "breakdown",
            "memory-1",
            "efficiency",
            "transports",
            "residuals",
            "losses",
        }
        page.select_option("#plan-select", "3")
        page.wait_for_selector("[data-figure=timeline-3] .main-svg")
        assert page.is_hidden("[data-figure=timeline-1]")
        assert page.title() == "tiny on two cores – traincast report"
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == {"light": "rgb(244, 246, 249)", "dark": "rgb(14, 19, 26)"}[scheme]
        overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert overflow <= 0
        page.emulate_media(media="print")
        assert page.is_hidden("nav")
        browser.close()
    assert complaints == []
    assert requests == [(directory / "report.html").as_uri()]


def test_memory_is_set_against_what_was_measured(tmp_path: Path) -> None:
    """The parts add up to the predicted peak, and each stage shows its fullest measured rank."""
    text, page = report(write_directory(tmp_path, two_plans()))
    bars = figures(text)["memory-1"]["data"]
    by_name = {bar["name"]: bar["x"] for bar in bars}
    assert (
        sum(by_name[name][0] for name in ("weights", "gradients", "optimizer", "activations", "other")) == 75
    )
    assert by_name["measured peak"] == [70.0, 80.0]
    assert by_name["capacity 256.0 MiB"] == [256.0, 256.0]
    assert f"{75 / 256:.1%}".replace("%", " %") in page.text


def test_what_the_planner_writes_becomes_a_report(
    tmp_path: Path, tiny_job: Job, host_cluster: Cluster
) -> None:
    """The directory that `write_result` makes is the directory that the report reads."""
    found = search(tiny_job, host_cluster, strategies(tiny_job, host_cluster), top=3, seed=1)
    best = found.plans[0].trace
    run = Trace.of(best.spans, source="measured", world_size=best.world_size, step_times_s=best.step_times_s)
    prepare_directory(tmp_path, force=False)
    write_result(tmp_path, found, seed=1, measured={0: run})
    text, page = report(tmp_path)
    assert found.plans[0].plan.strategy.label in page.text
    assert "median of 1 run, worst" in page.text
    assert {f"timeline-{number}" for number in range(1, len(found.plans) + 1)} <= set(figures(text))
