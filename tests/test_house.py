"""The rules of the house, held by tests: layout, direction of imports, what may load what."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from import_graph import (
    Rules,
    broken_rules,
    circles,
    import_graph,
    imported,
    package_of,
    read_sources,
    unused_rules,
    upward_rules,
)

import traincast

ROOT = Path(traincast.__file__).parent
FOLDERS = ("sim", "executor", "reports", "lab", "commands")

MAY_IMPORT: Rules = {
    "sim.errors": (),
    "sim.display": (),
    "sim.gc_pause": (),
    "sim.jit": (),
    "sim.files": ("sim.errors",),
    "sim.units": ("sim.files",),
    "sim.variability": ("sim.errors",),
    "sim.reliability": ("sim.errors", "sim.variability"),
    "sim.model": ("sim.errors", "sim.files"),
    "sim.plan": ("sim.errors", "sim.display", "sim.files", "sim.model"),
    "sim.trace": ("sim.errors", "sim.display", "sim.files"),
    "sim.hardware": (
        "sim.errors",
        "sim.display",
        "sim.files",
        "sim.units",
        "sim.variability",
        "sim.reliability",
    ),
    "sim.network": ("sim.errors", "sim.jit", "sim.hardware"),
    "sim.kernels": ("sim.errors", "sim.model", "sim.plan", "sim.hardware"),
    "sim.costs": ("sim.errors", "sim.model", "sim.plan", "sim.hardware", "sim.network", "sim.kernels"),
    "sim.memory": ("sim.model", "sim.plan", "sim.hardware", "sim.kernels", "sim.costs"),
    "sim.updates": (
        "sim.errors",
        "sim.jit",
        "sim.variability",
        "sim.plan",
        "sim.trace",
        "sim.hardware",
        "sim.costs",
    ),
    "sim.convergence": ("sim.errors", "sim.updates"),
    "sim.calibration": (
        "sim.errors",
        "sim.files",
        "sim.model",
        "sim.plan",
        "sim.trace",
        "sim.hardware",
        "sim.network",
        "sim.kernels",
        "sim.costs",
    ),
    "sim.check": ("sim.errors", "sim.files", "sim.model", "sim.plan", "sim.hardware"),
    "sim.program": ("sim.errors", "sim.jit", "sim.plan", "sim.hardware", "sim.costs", "sim.memory"),
    "sim.engine": (
        "sim.errors",
        "sim.jit",
        "sim.variability",
        "sim.plan",
        "sim.hardware",
        "sim.network",
        "sim.program",
    ),
    "sim.predict": (
        "sim.errors",
        "sim.display",
        "sim.plan",
        "sim.trace",
        "sim.hardware",
        "sim.kernels",
        "sim.costs",
        "sim.memory",
        "sim.updates",
        "sim.program",
        "sim.engine",
    ),
    "sim.search": (
        "sim.errors",
        "sim.display",
        "sim.gc_pause",
        "sim.files",
        "sim.units",
        "sim.plan",
        "sim.trace",
        "sim.hardware",
        "sim.costs",
        "sim.memory",
        "sim.predict",
    ),
    "sim.published": (
        "sim.errors",
        "sim.gc_pause",
        "sim.files",
        "sim.model",
        "sim.plan",
        "sim.hardware",
        "sim.memory",
        "sim.predict",
    ),
    "sim.api": (
        "sim.errors",
        "sim.display",
        "sim.files",
        "sim.units",
        "sim.reliability",
        "sim.model",
        "sim.plan",
        "sim.trace",
        "sim.hardware",
        "sim.network",
        "sim.costs",
        "sim.memory",
        "sim.convergence",
        "sim.calibration",
        "sim.check",
        "sim.engine",
        "sim.predict",
        "sim.search",
        "sim.published",
    ),
    "executor.measure": ("sim.plan", "sim.trace"),
    "executor.model": ("sim.errors", "sim.model", "sim.plan"),
    "executor.parallel": ("sim.plan", "executor.measure", "executor.model"),
    "executor.train": ("sim.errors", "sim.plan", "executor.measure", "executor.model", "executor.parallel"),
    "executor.servers": (
        "sim.errors",
        "sim.plan",
        "sim.trace",
        "executor.measure",
        "executor.model",
        "executor.parallel",
        "executor.train",
    ),
    "executor.run": (
        "sim.errors",
        "sim.files",
        "sim.plan",
        "sim.trace",
        "executor.measure",
        "executor.model",
        "executor.parallel",
        "executor.train",
        "executor.servers",
    ),
    "executor.calibrate": (
        "sim.errors",
        "sim.model",
        "sim.plan",
        "executor.measure",
        "executor.model",
        "executor.parallel",
        "executor.train",
        "executor.run",
        "!sim.model.networks",
    ),
    "executor.converge": ("sim.errors", "sim.files", "executor.run"),
    "executor.module_trace": ("sim.errors", "sim.model"),
    "reports": (
        "sim.errors",
        "sim.display",
        "sim.files",
        "sim.trace",
        "sim.hardware",
        "sim.calibration",
        "sim.memory",
        "sim.predict",
        "sim.search",
        "sim.published",
        "sim.api",
    ),
    "lab": (
        "sim.errors",
        "sim.display",
        "sim.files",
        "sim.units",
        "sim.model",
        "sim.plan",
        "sim.trace",
        "sim.hardware",
        "sim.convergence",
        "sim.calibration",
        "sim.predict",
        "sim.search",
        "sim.api",
        "executor.model",
        "executor.parallel",
        "executor.run",
        "executor.calibrate",
        "executor.converge",
        "executor.module_trace",
    ),
    "commands": ("reports",),
}
"""Packages, lowest first, and what each may import; see `import_graph.py`."""

SOURCES = read_sources(ROOT, FOLDERS)
GRAPH = import_graph(SOURCES)


def with_line(line: str, *modules: str) -> dict[str, str]:
    """The sources, with ``line`` added to ``modules``."""
    return {name: f"{text}\n{line}\n" if name in modules else text for name, text in SOURCES.items()}


def test_only_two_python_files_lie_in_the_root():
    """Any other would be importable as a module of somebody else's name."""
    assert sorted(path.name for path in ROOT.glob("*.py")) == ["__init__.py", "__main__.py"]


def test_every_package_is_listed():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {Path(*name.split(".")[:-1]) for name in SOURCES}
    assert sorted(listed) == sorted(["traincast", *(".".join(["traincast", *f.parts]) for f in folders)])
    assert all((ROOT / folder / "__init__.py").exists() for folder in folders)


def test_every_file_has_a_rule():
    bare = {name for name in SOURCES if package_of(name, MAY_IMPORT) not in MAY_IMPORT}
    assert bare == {"sim.__init__", "executor.__init__"}


def test_packages_import_only_what_they_may():
    assert broken_rules(GRAPH, MAY_IMPORT) == []


def test_no_package_may_import_one_above_it():
    assert upward_rules(MAY_IMPORT) == []


def test_no_rule_allows_what_nobody_needs():
    assert unused_rules(GRAPH, MAY_IMPORT) == []


def test_no_files_import_each_other():
    assert circles(GRAPH) == []


@pytest.mark.parametrize("module", [name for name in SOURCES if name.startswith("sim.hardware.")])
def test_the_guard_sees_an_upward_import(module):
    """The line is relative, so it says what it would in the file itself."""
    graph = import_graph(with_line("from ..search import planner", module))
    assert broken_rules(graph, MAY_IMPORT) == [f"{module} imports sim.search.planner"]


@pytest.mark.parametrize(
    "line",
    [
        "from ...sim.model.networks import presets",
        "from ...sim.model.networks.presets import network_preset",
        "from traincast.sim.model.networks import presets",
        "import traincast.sim.model.networks.presets",
        "def late():\n    from ...sim.model.networks.presets import network_preset",
    ],
)
def test_the_guard_sees_a_package_inside_one_that_is_allowed(line):
    """The executor may import models, but not the networks among them."""
    graph = import_graph(with_line(line, "executor.train.trainer"))
    assert broken_rules(graph, MAY_IMPORT) == ["executor.train.trainer imports sim.model.networks.presets"]


def test_the_guard_sees_two_files_that_import_each_other():
    line = "if TYPE_CHECKING:\n    from .cluster_file import read_cluster"
    assert "sim.hardware.cluster" in GRAPH.nodes
    graph = import_graph(with_line(line, "sim.hardware.cluster"))
    assert any(
        {"sim.hardware.cluster", "sim.hardware.cluster_file"} <= set(group) for group in circles(graph)
    )


def test_the_simulator_and_reports_never_import_torch():
    users = [n for n, text in SOURCES.items() if any(i.split(".")[0] == "torch" for i in imported(n, text))]
    assert "executor.train.trainer" in users
    assert [name for name in users if not name.startswith(("executor.", "lab."))] == []


def test_commands_import_public_names_of_the_package():
    """What is below the API they reach through it; reports and each other's helpers have a rule above."""
    names = {
        alias.name
        for module, text in SOURCES.items()
        if module.startswith("commands.")
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and node.level == 2 and node.module is None
        for alias in node.names
    }
    assert len(names) > 20
    assert names <= set(traincast.__all__)


@pytest.mark.parametrize(
    "line",
    [
        "from ..sim.errors import InputError",
        "from ..executor.run.launcher import execute",
        "from .. import sim",
    ],
)
def test_the_guard_sees_a_command_below_the_api(line):
    graph = import_graph(with_line(line, "commands.plan"))
    assert len(broken_rules(graph, MAY_IMPORT)) == 1


def test_every_exported_name_is_there():
    assert sorted(traincast._HOMES) == sorted(traincast.__all__)
    for name in traincast.__all__:
        assert getattr(traincast, name) is not None
    assert set(traincast.__all__) <= set(dir(traincast))


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
    for name, text in SOURCES.items():
        # `model.eval()` and the like are methods; a bare call is what is meant.
        found = [word for word in forbidden if f" {word}" in text or f"({word}" in text]
        assert not found, f"{name}: {found}"
