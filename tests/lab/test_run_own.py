"""Code that a plan names is run only for who says so; the example of the guide runs from an empty folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

import traincast as tc
from traincast.__main__ import cli

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

EXAMPLE = Path(tc.__file__).parent / "docs" / "example" / "digits_net.py"
NAMES = ["--model", "digits_net:net", "--data", "digits_net:batches", "--loss", "digits_net:loss"]
JOB = ["--global-batch", "16", "--micro-batch", "4", "--dp", "2", "--pp", "2"]


def plan_of_another(folder: Path) -> Path:
    """A plan file that names code, which would leave a mark if it were imported."""
    (folder / "strange.py").write_text("from pathlib import Path\nPath('imported').touch()\n")
    model = tc.model("mlp-digits")
    job = tc.Job(model, global_batch=8, precision="fp32", data="strange:batches")
    path = folder / "plan.json"
    tc.write_plan(tc.make_plan(job, dp=2), path)
    return path


def test_a_plan_that_names_code_is_not_run_unasked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = plan_of_another(tmp_path)
    assert tc.read_plan(path).job.references == ("strange:batches",)
    with pytest.raises(tc.UsageError, match=r"code of strange:batches run: if you trust it, give --trust"):
        tc.execute(path)
    with pytest.raises(tc.UsageError, match="strange:batches"):
        tc.execute(path, trust=["strange:others"])
    found = CliRunner().invoke(cli, ["run", str(path), "--data", "strange:others"])
    assert found.exit_code != 0
    assert not Path("imported").exists()
    tc.simulate(tc.read_plan(path), "hgx-h100")
    assert not Path("imported").exists()


def test_a_trusted_plan_imports_what_it_names(tmp_path, monkeypatch):
    """It gets as far as the module, which has no such name."""
    monkeypatch.chdir(tmp_path)
    path = plan_of_another(tmp_path)
    with pytest.raises(tc.TraincastError, match="strange:batches"):
        tc.execute(path, trust=True)
    assert Path("imported").exists()


def test_the_example_has_thirty_lines():
    assert len(EXAMPLE.read_text().splitlines()) <= 30


@pytest.mark.slow
def test_the_example_trains_from_an_empty_folder(tmp_path, monkeypatch):
    """By one command, prediction beside measurement; what it wrote runs again."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(EXAMPLE, tmp_path)
    runner = CliRunner()
    found = runner.invoke(cli, ["run", *NAMES, *JOB, "--steps", "2", "--json"], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    told = json.loads(found.stdout)
    assert told["losses"][-1] < told["losses"][0]
    assert told["comparison"]["total"]["predicted_s"] > 0
    plan = tc.read_plan("logs/plan.json")
    assert plan.job.references == ("digits_net:net", "digits_net:batches", "digits_net:loss")
    assert len(plan.job.model.layers) == 6
    again = runner.invoke(cli, ["run", "logs/plan.json", *NAMES, "--steps", "2", "--log-dir", "again"])
    assert again.exit_code == 0, again.output
    refused = runner.invoke(cli, ["run", "logs/plan.json", "--trust", "--dp", "4"])
    assert "a plan says its own dp" in refused.output


def test_a_run_needs_a_plan_or_a_model():
    found = CliRunner().invoke(cli, ["run", *JOB])
    assert found.exit_code == 2
    assert "give a PLAN, or --model" in found.output
