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
    "writer",
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


WRITER = "sim/files/writer.py"
WRITES_BESIDES = {
    (
        "executor/run/heartbeat.py",
        "os.open",
    ): "a line of fixed width, written in place, in the run's own folder",
    (
        "executor/run/launcher.py",
        "tempfile.mkdtemp",
    ): "the run's own folder, 0700, under a name nobody can guess",
    ("executor/run/launcher.py", "shutil.rmtree"): "that folder",
    ("executor/run/launcher.py", ".open"): "a rank's log in it, which the process writes to",
    ("executor/run/worker.py", "torch.save"): "parameters in it; the launcher copies them out",
    ("executor/calibrate/crew.py", "tempfile.mkdtemp"): "the crew's own folder, as the run's",
    ("executor/calibrate/crew.py", "shutil.rmtree"): "that folder",
    ("executor/calibrate/crew.py", ".open"): "a rank's log in it",
    ("executor/calibrate/worker.py", "os.fdopen"): "standard output, where answers go",
    ("executor/converge/converge.py", "tempfile.mkdtemp"): "the run's own folder, as above",
    ("executor/converge/converge.py", "shutil.rmtree"): "that folder",
    ("executor/converge/converge.py", ".open"): "a rank's log in it",
    ("executor/converge/converge.py", "np.savez"): "the ranks' input in it",
    ("reports/figures.py", ".savefig"): "onto a file that the writer opened",
    ("reports/convergence_figure.py", ".savefig"): "onto a file that the writer opened",
    ("sim/trace/trace_file.py", "gzip.GzipFile"): "onto a file that the writer opened",
    ("__main__.py", "os.open"): "/dev/null in the place of a stdout that nobody reads",
}
"""(file, call) to the reason why it does not go through the writer."""

MODULES_THAT_OPEN = ("gzip", "bz2", "lzma", "io", "codecs", "zipfile", "tarfile")
ALWAYS_WRITES = {
    *(
        "write_text",
        "write_bytes",
        "mkdir",
        "touch",
        "unlink",
        "rmdir",
        "rename",
        "symlink_to",
        "hardlink_to",
    ),
    *("savefig", "to_csv", "to_json", "to_parquet", "tofile", "savetxt", "extractall"),
}
WRITES_IN = {
    "os": {"replace", "remove", "removedirs", "renames", "link", "symlink", "mkfifo", "mknod", "makedirs",
           "truncate", "chmod", "fchmod"},
    "shutil": {"rmtree", "copy", "copy2", "copyfile", "copytree", "move"},
    "torch": {"save"},
    "np": {"save", "savez", "savez_compressed"},
    "tempfile": {"mkdtemp", "mkstemp", "NamedTemporaryFile", "TemporaryDirectory", "TemporaryFile"},
    "sqlite3": {"connect"},
}  # fmt: skip


def writing_calls(source: str) -> set[str]:
    """Calls in ``source`` that make, change or remove files, as `.open` or `os.replace`."""
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return {name for call in calls if (name := _writing_call(call))}


def _writing_call(call: ast.Call) -> str:
    function = call.func
    if isinstance(function, ast.Name):
        bare = {"GzipFile", "mkdtemp", "mkstemp", "NamedTemporaryFile", "TemporaryDirectory", "rmtree"}
        writes = function.id in bare or (function.id == "open" and _mode_writes(call, 1))
        return function.id if writes else ""
    if not isinstance(function, ast.Attribute):
        return ""
    owner = function.value.id if isinstance(function.value, ast.Name) else ""
    name = (
        f"{owner}.{function.attr}"
        if owner in WRITES_IN or owner in MODULES_THAT_OPEN
        else f".{function.attr}"
    )
    if function.attr in WRITES_IN.get(owner, ()) or function.attr in ALWAYS_WRITES:
        return name
    if function.attr == "replace" and owner != "os":  # of a path it takes one argument, of text two
        return name if len(call.args) == 1 and not call.keywords and owner != "dataclasses" else ""
    if owner == "os" and function.attr == "open":
        flags = ast.dump(call.args[1])
        return name if any(word in flags for word in ("O_WRONLY", "O_RDWR", "O_CREAT", "_NEW")) else ""
    if function.attr in ("open", "fdopen", "GzipFile", "ZipFile"):
        place = 1 if owner in ("os", *MODULES_THAT_OPEN) else 0
        return name if _mode_writes(call, place) else ""
    return ""


def _mode_writes(call: ast.Call, place: int) -> bool:
    """Whether the mode, argument number ``place`` or by name, is one of writing, or nobody knows."""
    named = [keyword.value for keyword in call.keywords if keyword.arg == "mode"]
    mode = named[0] if named else call.args[place] if len(call.args) > place else ast.Constant("r")
    return not isinstance(mode, ast.Constant) or bool(set("wax+") & set(str(mode.value)))


def test_only_the_writer_writes():
    """A user's files are replaced in one place; what else writes is listed with its reason."""
    found = set()
    for path in [ROOT / "__main__.py", *(path for folder in FOLDERS for path in files(folder))]:
        name = path.relative_to(ROOT).as_posix()
        if name != WRITER:
            found |= {(name, call) for call in writing_calls(path.read_text())}
    assert found == set(WRITES_BESIDES)


@pytest.mark.parametrize(
    ("source", "calls"),
    [
        ("open(p, 'w')", {"open"}),
        ("open(p, mode='a')", {"open"}),
        ("open(p, m)", {"open"}),
        ("open(p); open(p, 'rb')", set()),
        ("p.open('x'); Path(p).open('wb')", {".open"}),
        ("p.open(); p.open('rb')", set()),
        ("gzip.open(p); gzip.open(p, 'rt'); gzip.GzipFile(fileobj=f)", set()),
        ("gzip.open(p, 'wt')", {"gzip.open"}),
        ("gzip.GzipFile('', 'wb', 6, f)", {"gzip.GzipFile"}),
        ("os.open(p, os.O_RDONLY)", set()),
        ("os.open(p, os.O_RDWR | os.O_CREAT)", {"os.open"}),
        ("p.write_text(t); (a / b).unlink(missing_ok=True)", {".write_text", ".unlink"}),
        ("os.replace(a, b); p.replace(q); p.rename(q)", {"os.replace", ".replace", ".rename"}),
        ("t.replace('a', 'b'); replace(x, y=1); dataclasses.replace(x, y=1)", set()),
        ("shutil.rmtree(d); shutil.copy(a, b); shutil.disk_usage(d)", {"shutil.rmtree", "shutil.copy"}),
        ("frame.to_csv(p); figure.savefig(p)", {".to_csv", ".savefig"}),
        ("torch.save(x, p); np.save(p, x); np.load(p)", {"torch.save", "np.save"}),
        ("tempfile.mkdtemp()", {"tempfile.mkdtemp"}),
    ],
)
def test_the_guard_of_the_writer_sees(source, calls):
    assert writing_calls(source) == calls
