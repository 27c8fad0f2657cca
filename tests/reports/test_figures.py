"""PNG figures: drawn without a screen, the same bytes each time, names shown as they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from result_directory import MIB, plan, trace, write_directory

from traincast.reports.figures import accuracy_png, memory_png, plain, timeline_png, write_figures
from traincast.reports.result_file import PlanEntry
from traincast.sim.errors import UsageError

PNG = b"\x89PNG\r\n\x1a\n"
EVIL = "$\\frac{1$ 50% _^{} <b> \x1b[31m"


def entry(label: str = "pp2") -> PlanEntry:
    return PlanEntry.model_validate(plan(1, label, -4.0))


def picture_size(path: Path) -> tuple[int, int]:
    header = path.read_bytes()[:24]
    assert header.startswith(PNG)
    return int.from_bytes(header[16:20]), int.from_bytes(header[20:24])


def test_a_directory_gives_three_figures(tmp_path: Path) -> None:
    """Accuracy over all plans; timeline and memory of the best that was run."""
    directory = write_directory(tmp_path / "in", [plan(1, "a"), plan(2, "b", 3.0)])
    written = write_figures(directory, tmp_path / "out")
    assert [path.name for path in written] == ["accuracy.png", "timeline.png", "memory.png"]
    assert all(picture_size(path)[0] > 1000 for path in written)


def test_the_same_figure_gives_the_same_bytes(tmp_path: Path) -> None:
    """No date and no version inside."""
    for name in ("a.png", "b.png"):
        timeline_png(trace("predicted"), trace("measured", 1.1), tmp_path / name, title="pp2")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_more_ranks_make_a_taller_timeline(tmp_path: Path) -> None:
    """Lines stay as thick as they are, so a picture of many ranks can be read."""
    timeline_png(trace("predicted"), None, tmp_path / "two.png")
    timeline_png(trace("predicted", ranks=8), None, tmp_path / "eight.png")
    assert picture_size(tmp_path / "eight.png")[1] > picture_size(tmp_path / "two.png")[1] + 200


def test_names_with_dollars_are_no_mathematics(tmp_path: Path) -> None:
    """matplotlib would raise on a half formula."""
    assert plain("$a$ \x1b") == "\\$a\\$  "
    timeline_png(trace("predicted"), None, tmp_path / "t.png", title=EVIL)
    accuracy_png([entry(EVIL)], tmp_path / "a.png")
    memory_png(entry(EVIL), 256.0 * MIB, tmp_path / "m.png")
    assert picture_size(tmp_path / "m.png")[1] > 100


def test_a_place_that_cannot_be_written_is_a_usage_error(tmp_path: Path) -> None:
    """A file where a directory should be."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file: cannot be made: File exists"):
        memory_png(entry(), 1e9, tmp_path / "file" / "m.png")


def test_importing_draws_nothing() -> None:
    """matplotlib comes only when a figure is drawn."""
    code = (
        "import sys, traincast.reports.figures, traincast.reports.report\nprint('matplotlib' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"
