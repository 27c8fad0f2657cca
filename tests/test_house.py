"""The rules of the house, held by tests: layout, direction of imports, what may load what."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import traincast

ROOT = Path(traincast.__file__).parent
FOLDERS = ("sim", "executor", "reports", "commands")
EXECUTOR_MAY_USE = {
    "errors",
    "files",
    "job",
    "model",
    "plan",
    "plan_file",
    "strategy",
    "trace",
    "trace_file",
    "trace_reader",
    "units",
}
"""Nouns that both halves share; costs, engines and planner are not among them."""

REPORTS_MAY_USE = EXECUTOR_MAY_USE | {
    "cluster",
    "cluster_file",
    "curves",
    "intervals",
    "memory",
    "metrics",
    "result",
}

PLAN_MAY_USE = {
    "errors", "job", "model", "partition", "pass_times", "plan", "schedules", "stacks", "stage_placement",
    "strategy", "strategy_rules",
}  # fmt: skip


def imports(path: Path) -> set[str]:
    """Absolute names of the package's modules that a file imports, wherever in it."""
    package = ["traincast", *path.relative_to(ROOT).parent.parts]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *(node.module or "").split(".")]).rstrip(".")
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def sim_modules(path: Path) -> set[str]:
    used = {name.split(".")[2] for name in imports(path) if name.startswith("traincast.sim.")}
    return {name for name in used if (ROOT / "sim" / f"{name}.py").exists()}


def test_only_two_python_files_lie_in_the_root():
    """Any other would be importable as a module of somebody else's name."""
    assert sorted(path.name for path in ROOT.glob("*.py")) == ["__init__.py", "__main__.py"]


def test_every_package_is_listed():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {path.parent.relative_to(ROOT) for folder in FOLDERS for path in files(folder)}
    assert sorted(listed) == sorted(["traincast", *(".".join(["traincast", *f.parts]) for f in folders)])


@pytest.mark.parametrize(
    ("folder", "never"),
    [
        ("sim", ("traincast.executor", "traincast.reports", "traincast.commands", "torch")),
        ("executor", ("traincast.reports", "traincast.commands")),
        ("reports", ("traincast.executor", "traincast.commands", "torch")),
    ],
)
def test_imports_run_one_way(folder, never):
    for path in files(folder):
        wrong = [name for name in imports(path) if name.startswith(never)]
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


@pytest.mark.parametrize(
    ("folder", "may_use"), [("executor", EXECUTOR_MAY_USE), ("reports", REPORTS_MAY_USE)]
)
def test_only_the_shared_nouns_of_sim_are_used(folder, may_use):
    for path in files(folder):
        wrong = sim_modules(path) - may_use
        assert not wrong, f"{path.relative_to(ROOT)} uses sim.{wrong}"


def test_the_plan_knows_no_costs():
    names = ("plan", "lowering", "strategy", "job", "model", "validate")
    for name in [*(ROOT / "sim" / f"{name}.py" for name in names), *files("sim/schedules")]:
        assert sim_modules(name) <= PLAN_MAY_USE, name


def test_every_exported_name_is_there():
    assert sorted(traincast._HOMES) == sorted(traincast.__all__)
    for name in traincast.__all__:
        if name != "execute":  # needs torch
            assert getattr(traincast, name) is not None


HEAVY = ("torch", "pandas", "matplotlib", "numba")


@pytest.mark.parametrize(
    "code",
    [
        "import traincast",
        "import traincast; traincast.simulate; traincast.search; traincast.read_cluster",
        "import sys; sys.argv = ['traincast', '--help']; from traincast.__main__ import cli;"
        " cli(standalone_mode=False)",
        "import traincast.commands.memory, traincast.commands.check, traincast.commands.plan",
    ],
)
def test_nothing_heavy_is_loaded(code, tmp_path):
    """Commands import what they use when they run."""
    check = f"{code}; import sys; print([n for n in {HEAVY!r} if n in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=tmp_path)
    assert done.stderr.strip().splitlines()[-1:] == ["[]"], done.stderr


def test_no_code_runs_what_a_file_says():
    """No pickle, eval, exec, shell or unsafe loader anywhere."""
    forbidden = ("pickle.load", "eval(", "exec(", "shell=True", "yaml.load(", "weights_only=False")
    for folder in FOLDERS:
        for path in files(folder):
            text = path.read_text()
            # `model.eval()` and the like are methods; a bare call is what is meant.
            found = [word for word in forbidden if f" {word}" in text or f"({word}" in text]
            assert not found, f"{path.relative_to(ROOT)}: {found}"
