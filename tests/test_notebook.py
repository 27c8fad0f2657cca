"""docs/notebook.ipynb runs from top to bottom; its tables and pictures need nothing from elsewhere."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest

import traincast

ROOT = Path(traincast.__file__).parent
nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> list[dict]:
    """What each cell of code shows last."""
    notebook = nbformat.read(ROOT / "docs/notebook.ipynb", as_version=4)
    place = {"metadata": {"path": str(tmp_path_factory.mktemp("notebook"))}}
    nbclient.NotebookClient(notebook, timeout=170, kernel_name="python3", resources=place).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [cell.outputs[-1]["data"] for cell in cells]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_every_cell_shows_a_table_or_a_picture(outputs):
    kinds = ["png" if "image/png" in data else "html" if "text/html" in data else "text" for data in outputs]
    assert kinds == ["html", "html", "html", "html", "png", "html", "html", "png", "html", "html", "html"]
    for data in outputs:
        assert len(data["text/plain"].splitlines()) <= 20
        if "image/png" in data:
            assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_what_is_shown_needs_nothing_from_elsewhere(outputs):
    shown = "".join(data.get("text/html", "") for data in outputs)
    assert not re.search(r"https?:|<script|<link|<img|@import|url\(", shown)
