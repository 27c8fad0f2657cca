"""Files are written in one place: what else makes, changes or removes one is listed with its reason."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import traincast

ROOT = Path(traincast.__file__).parent
FOLDERS = ("sim", "executor", "reports", "commands")

WRITER = "sim/files/writer.py"
WRITES_BESIDES = {
    (
        "executor/measure/heartbeat.py",
        "os.open",
    ): "a line of fixed width, written in place, in the run's own folder",
    (
        "executor/run/launcher.py",
        "tempfile.mkdtemp",
    ): "the run's own folder, 0700, under a name nobody can guess",
    ("executor/run/launcher.py", "shutil.rmtree"): "that folder",
    ("executor/run/launcher.py", ".open"): "a rank's log in it, which the process writes to",
    ("executor/run/worker.py", "torch.save"): "parameters in it; the launcher copies them out",
    ("executor/measure/memory.py", "os.open"): "the kernel's file that forgets a process's peak",
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
    ("sim/trace/chrome_trace.py", "gzip.GzipFile"): "onto a file that the writer opened",
    ("__main__.py", "os.open"): "/dev/null in the place of a stdout that nobody reads",
    ("__main__.py", "open"): "the same, where there is no stdout at all",
    ("reports/notebook.py", ".savefig"): "into memory, for a page to show",
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
    for path in [
        ROOT / "__main__.py",
        *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")),
    ]:
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
