"""Every option that names an output refuses what must not be replaced before it computes anything."""

import importlib
import os
import stat
from pathlib import Path

import click
import pytest
from result_directory import plan, write_directory

from traincast.__main__ import COMMANDS, cli
from traincast.commands.options import OutputFile
from traincast.sim.errors import UsageError

LLAMA = ("llama3-8b", "--cluster", "hgx-h100", "--nodes", "1", "--global-batch", "16", "--seq-len", "1024")
SIMULATE = (*LLAMA, "--tp", "8")
INTO = ("--into", "hgx-h100")

FILES = [
    ("simulate", *SIMULATE, "--trace"),
    ("memory", *SIMULATE, "--png"),
    ("goodput", *SIMULATE, "--png"),
    ("schedule", "1f1b", "--csv"),
    ("schedule", "1f1b", "--png"),
    ("converge", "--png"),
    ("validate", "torchtitan", "--png"),
    ("calibrate", "-o"),
    ("import", "nccl-tests", "in.txt", *INTO, "-o"),
    ("import", "gemm-table", "in.csv", "--into", "l4", "--device", "l4", "-o"),
    ("import", "module", "a:b", "--input", "3", "-o"),
    ("report", "results", "-o"),
]
DIRECTORIES = [("plan", *LLAMA, "-o"), ("demo", "-o"), ("validate", "torchtitan", "-o")]
INPUTS = {
    *(("memory", "schedule_csv"), ("simulate", "schedule_csv"), ("goodput", "schedule_csv")),
    *(("calibrate", "plans"), ("calibrate", "results")),
}


def traincast(*arguments: object) -> None:
    cli.main([str(argument) for argument in arguments], standalone_mode=False)


def path_options(command: click.Command, name: str) -> list[tuple[str, click.Option]]:
    if isinstance(command, click.Group):
        return [
            found for sub in command.commands.values() for found in path_options(sub, f"{name} {sub.name}")
        ]
    options = (option for option in command.params if isinstance(option, click.Option))
    return [(name, option) for option in options if isinstance(option.type, click.Path)]


def all_path_options() -> list[tuple[str, click.Option]]:
    modules = {name: f"{name}_" if name == "import" else name for name in COMMANDS}
    commands = {n: importlib.import_module(f"traincast.commands.{m}").command for n, m in modules.items()}
    return [found for name, command in commands.items() for found in path_options(command, name)]


def test_every_path_option_is_an_output_that_is_checked_or_an_input():
    """A new option with a bare click.Path fails here."""
    loose = {
        (name, option.name)
        for name, option in all_path_options()
        if not isinstance(option.type, OutputFile) and getattr(option.type, "file_okay", True)
    }
    assert loose <= INPUTS


def test_every_output_is_tried_here():
    outputs = {
        (name, option.opts[0]) for name, option in all_path_options() if isinstance(option.type, OutputFile)
    }
    tried = {(" ".join(a[: 2 if a[0] == "import" else 1]), a[-1]) for a in FILES}
    assert outputs == tried


def pipe(path: Path) -> None:
    os.mkfifo(path)


def link(path: Path) -> None:
    path.symlink_to("mine")


def device(path: Path) -> None:
    """A node like /dev/null, in a temporary directory."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except OSError as error:
        pytest.skip(f"this user cannot make a device node: {error}")


def device_by_link(path: Path) -> None:
    """As /dev/stdout leads to a device."""
    device(path.with_name("node"))
    path.symlink_to("node")


@pytest.mark.parametrize("plant", [pipe, link, device, device_by_link])
@pytest.mark.parametrize("arguments", FILES, ids=lambda arguments: " ".join((arguments[0], arguments[-1])))
def test_an_output_file_that_must_stay_is_refused(tmp_path, monkeypatch, arguments, plant):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").write_text("mine")
    path = tmp_path / "out"
    plant(path)
    before = sorted((one.name, one.lstat().st_ino, one.lstat().st_rdev) for one in tmp_path.iterdir())
    with pytest.raises(UsageError, match=r"out: cannot be written: a .* -> expected a regular file"):
        traincast(*arguments, path)
    after = sorted((one.name, one.lstat().st_ino, one.lstat().st_rdev) for one in tmp_path.iterdir())
    assert after == before
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.parametrize("arguments", DIRECTORIES, ids=lambda arguments: arguments[0])
def test_an_output_directory_that_is_none_is_refused(tmp_path, arguments):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    before = path.lstat().st_ino
    with pytest.raises(click.BadParameter, match="is no directory"):
        traincast(*arguments, path)
    assert path.lstat().st_ino == before


@pytest.mark.parametrize("arguments", DIRECTORIES, ids=lambda arguments: arguments[0])
def test_a_pipe_in_an_output_directory_is_refused(tmp_path, arguments):
    """At the place of a file that would be written last, before any is computed."""
    name = "validation.html" if arguments[0] == "validate" else "report.html"
    os.mkfifo(tmp_path / name)
    with pytest.raises(UsageError, match=f"{name}: cannot be written: a named pipe"):
        traincast(*arguments, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_pictures_of_a_report_are_written_together(tmp_path):
    """A link at the place of the last: the first is not replaced either."""
    write_directory(tmp_path / "d", [plan(1, "pp2", error_pct=2.0)])
    traincast("report", tmp_path / "d", "--png", tmp_path / "pictures")
    before = {path.name: path.stat().st_ino for path in (tmp_path / "pictures").iterdir()}
    assert sorted(before) == ["accuracy.png", "memory.png", "timeline.png"]
    (tmp_path / "pictures/timeline.png").unlink()
    (tmp_path / "pictures/timeline.png").symlink_to(tmp_path / "d/result.json")
    text = (tmp_path / "d/result.json").read_text()
    with pytest.raises(UsageError, match=r"timeline\.png: cannot be written: a symbolic link"):
        traincast("report", tmp_path / "d", "--png", tmp_path / "pictures")
    after = {path.name: path.stat().st_ino for path in (tmp_path / "pictures").iterdir()}
    assert after["accuracy.png"] == before["accuracy.png"]
    assert (tmp_path / "d/result.json").read_text() == text


def test_a_linked_folder_of_logs_is_not_entered(tmp_path, tiny_job):
    """`demo` keeps its logs in a folder of its own directory."""
    from traincast.lab.trial import run_plan
    from traincast.sim.plan.make_plan import make_plan
    from traincast.sim.plan.strategy import Strategy

    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/logs").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="logs: cannot be written: a symbolic link -> expected a directory"):
        run_plan(make_plan(tiny_job, Strategy(dp=2)), 1, tmp_path / "out", 0)
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize(
    "options", [("plan", "-o"), ("demo", "-o"), ("validate", "-o"), ("run", "--log-dir")]
)
def test_directories_have_a_name_and_are_none_of_other_kinds(tmp_path: Path, options: tuple[str, str]):
    """An empty text is no name of the current directory, and a pipe no place for files."""
    command = importlib.import_module(f"traincast.commands.{options[0]}").command
    (option,) = (one for one in command.params if options[1] in one.opts)
    pipe(tmp_path / "pipe")
    for name, said in (("", "no directory name"), (str(tmp_path / "pipe"), "is no directory")):
        with pytest.raises(click.BadParameter, match=said):
            option.type.convert(name, option, None)
    assert option.type.convert(str(tmp_path / "new"), option, None) == tmp_path / "new"
