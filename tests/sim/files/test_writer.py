"""The one writer: a file is the old one or the new one, and nothing but a regular file is ever replaced."""

import os
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from file_tree import make, names, tree

from traincast.sim.errors import InputError, UsageError
from traincast.sim.files import writer
from traincast.sim.files.writer import (
    check_output,
    check_places,
    copy_file,
    make_directory,
    replaced_together,
    replacing,
    write_json_atomic,
    write_text_atomic,
)
from traincast.sim.trace.chrome_trace import write_trace
from traincast.sim.trace.trace import Span, Trace


def test_writing_replaces_whole_files(tmp_path):
    """A file is the old one or the new one; nothing is left next to it."""
    path = tmp_path / "a.json"
    write_text_atomic(path, "old")
    write_json_atomic(path, {"b": [1, "é"]})
    assert path.read_text(encoding="utf-8") == '{\n  "b": [\n    1,\n    "é"\n  ]\n}\n'
    assert names(tmp_path) == ["a.json"]


def test_permissions_are_those_of_what_was_there(tmp_path):
    """A private file stays private; a new one has what the umask leaves."""
    path = tmp_path / "a"
    path.write_text("old")
    path.chmod(0o640)
    write_text_atomic(path, "new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    before = os.umask(0o027)
    try:
        write_text_atomic(tmp_path / "b", "new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o640


def test_a_failing_disk_leaves_the_old_file(tmp_path, monkeypatch):
    """Injected failure of fsync: the old content stays, the temporary file goes."""
    path = tmp_path / "a.txt"
    write_text_atomic(path, "old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UsageError) as caught:
        write_text_atomic(path, "new")
    assert str(caught.value) == f"{path}: cannot be written: No space left on device"
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("in the middle"), MemoryError()])
def test_an_interrupted_writer_leaves_the_old_file(tmp_path, error):
    """Ctrl-C, or whatever makes the text fails midway: what was raised comes through, the old file stays."""
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write():
        with replacing(path) as file:
            file.write(b"half of")
            raise error

    with pytest.raises(type(error)):
        write()
    assert tree(tmp_path) == {"a.txt": "old"}


def test_a_trace_that_fails_midway_leaves_the_old_file(tmp_path):
    """The third span has no JSON form; the first two were written already."""
    path = tmp_path / "t.json.gz"
    path.write_text("old")
    spans = [Span(0, "compute", f"0F{n}", 0, n, 0.0, 1.0) for n in range(3)]
    spans[2] = spans[2]._replace(end=float("nan"))
    trace = Trace(spans=tuple(spans), source="measured", world_size=1, step_times_s=(1.0,))
    with pytest.raises(InputError):
        write_trace(trace, path)
    assert tree(tmp_path) == {"t.json.gz": "old"}


@pytest.mark.parametrize("data", [{"x": float("nan")}, {"x": object()}, {"x": float("inf")}])
def test_json_without_nan(tmp_path, data):
    with pytest.raises(InputError, match="cannot be written as JSON"):
        write_json_atomic(tmp_path / "a.json", data)
    assert names(tmp_path) == []


def pipe(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


def folder(path: Path) -> None:
    path.mkdir()


def link(path: Path) -> None:
    (path.parent / "target").write_text("old")
    path.symlink_to("target")


def dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


def protected(path: Path) -> None:
    path.write_text("old")
    path.chmod(0o444)


def device(path: Path) -> None:
    """A node like /dev/null, in a temporary directory."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except OSError as error:
        pytest.skip(f"this user cannot make a device node: {error}")


KEPT = [
    (pipe, "a named pipe -> expected a regular file, or nothing; give another path; --json prints on stdout"),
    (unix_socket, "a socket -> expected a regular file, or nothing"),
    (folder, "a directory -> expected a regular file, or nothing"),
    (link, "a symbolic link -> expected a regular file, or nothing; it points to target"),
    (dangling_link, "a symbolic link -> expected a regular file, or nothing; it points to nowhere"),
    (protected, "a write-protected file -> expected one that may be written"),
    (device, "a device -> expected a regular file, or nothing"),
]


def state(folder: Path) -> list[tuple]:
    """Name, kind, inode and size of all that is in ``folder``."""
    found = ((path.name, path.lstat()) for path in folder.iterdir())
    return sorted((name, s.st_mode, s.st_ino, s.st_rdev, s.st_size) for name, s in found)


@pytest.mark.parametrize(("plant", "message"), KEPT)
def test_only_a_regular_file_is_replaced(tmp_path, plant, message):
    """Whatever else is there stays, by every way in, and the error names it."""
    path = tmp_path / "out.json"
    plant(path)
    before = state(tmp_path)
    source = Path(__file__)
    ways = (
        lambda: write_text_atomic(path, "new"),
        lambda: write_json_atomic(path, {}),
        lambda: copy_file(source, path),
        lambda: check_output(path),
        lambda: check_places(tmp_path, ["out.json"], replaces=["out.json"]),
    )
    for way in ways:
        with pytest.raises(UsageError) as caught:
            way()
        assert str(caught.value).startswith(f"{path}: cannot be written: {message}")
    with (
        pytest.raises(UsageError, match=r"out\.json: cannot be written"),
        replaced_together(tmp_path, replaces=["out.json"]) as new,
    ):
        make(new, {"out.json": "new", "b": "new"})
    assert state(tmp_path) == before


@pytest.mark.parametrize("plant", [plant for plant, _ in KEPT if plant is not protected])
def test_what_comes_while_it_is_written_is_kept(tmp_path, plant):
    path = tmp_path / "out.json"
    before = []

    def write():
        with replacing(path) as file:
            file.write(b"new")
            plant(path)
            before.append(path.lstat())

    with pytest.raises(UsageError, match="expected a regular file"):
        write()
    assert [(path.lstat().st_ino, path.lstat().st_mode)] == [(one.st_ino, one.st_mode) for one in before]
    assert not [name for name in names(tmp_path) if name.endswith(".part")]


def test_a_planted_link_at_the_temporary_name_is_not_followed(tmp_path, monkeypatch):
    """Were the name guessed, what is there is neither written through nor removed."""
    victim = tmp_path / "victim"
    victim.write_text("old")
    monkeypatch.setattr(writer.secrets, "token_hex", lambda _size: "guessed")
    planted = tmp_path / ".traincast-guessed.part"
    planted.symlink_to(victim)
    with pytest.raises(UsageError, match="File exists"):
        write_text_atomic(tmp_path / "a", "new")
    with pytest.raises(UsageError, match="File exists"), replaced_together(tmp_path) as new:
        make(new, {"a": "new"})
    assert planted.is_symlink()
    assert tree(tmp_path) == {"victim": "old"}


def test_temporary_names_cannot_be_guessed(tmp_path):
    seen = set()
    for _ in range(5):
        with replacing(tmp_path / "a") as file:
            file.write(b"")
            seen |= {name for name in names(tmp_path) if name != "a"}
    assert len(seen) == 5


@pytest.mark.parametrize("path", ["", ".", "..", "/", "a\0b", "missing/a", "file/a"])
def test_paths_that_name_no_file(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("old")
    for way in (lambda: write_text_atomic(path, "new"), lambda: check_output(path)):
        with pytest.raises(UsageError, match="cannot be written"):
            way()
    assert tree(tmp_path) == {"file": "old"}


def test_parents_that_will_be_made_need_not_be_there(tmp_path):
    check_output(tmp_path / "a/b/c.png", parents_are_made=True)
    with pytest.raises(UsageError, match="No such file"):
        check_output(tmp_path / "a/b/c.png")


def test_long_names_can_be_written(tmp_path):
    """The temporary name does not hang on that of the file."""
    write_text_atomic(tmp_path / ("x" * 255), "new")
    assert names(tmp_path) == ["x" * 255]


NOT_ROOT = """
import os, sys
from traincast.sim.errors import UsageError
from traincast.sim.files.writer import check_output, check_places, replaced_together, write_text_atomic
if os.geteuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
def together():
    with replaced_together("."):
        pass
ways = (lambda: write_text_atomic("a", "new"), lambda: write_text_atomic("old", "new"),
        lambda: check_output("a"), lambda: check_places(".", ["a"]), together)
for way in ways:
    try:
        way()
    except UsageError as error:
        print(error)
"""


def test_a_directory_without_permission():
    """A process that is not root, as a user is; the directory lies where everybody may enter it."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        make(directory, {"old": "old"})
        (directory / "old").chmod(0o444)
        directory.chmod(0o555)
        done = subprocess.run(
            [sys.executable, "-c", NOT_ROOT], cwd=directory, capture_output=True, text=True, timeout=60
        )
        assert done.stderr == ""
        assert [line.partition(": cannot be written: ")[2] for line in done.stdout.splitlines()] == [
            "Permission denied",
            "a write-protected file -> expected one that may be written",
            "a directory without write permission -> expected one that may be written",
            "a directory without write permission -> expected one that may be written",
            "Permission denied",
        ]
        assert tree(directory) == {"old": "old"}
        directory.chmod(0o755)


def test_a_read_only_place_is_refused_before_the_work(tmp_path, monkeypatch):
    """As on a read-only file system, for root too."""
    monkeypatch.setattr(os, "access", lambda path, mode, **_: not mode & os.W_OK)
    for way in (lambda: check_output(tmp_path / "a"), lambda: check_places(tmp_path, [])):
        with pytest.raises(UsageError, match="a directory without write permission"):
            way()


def test_a_file_where_a_directory_should_be(tmp_path):
    (tmp_path / "a").write_text("old")
    for path in (tmp_path / "a", tmp_path / "a/b"):
        with pytest.raises(UsageError, match="cannot be made"):
            make_directory(path)
    assert tree(tmp_path) == {"a": "old"}
