"""Which files of a directory are a result's: those are replaced with --force, and no other ever is."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from result_directory import document, plan

from traincast.reports.report import write_report
from traincast.reports.result_file import read_result
from traincast.sim.errors import InputError, UsageError
from traincast.sim.search.planner import search
from traincast.sim.search.result import write_result
from traincast.sim.search.result_layout import own_files, prepare_directory
from traincast.sim.search.space import strategies
from traincast.sim.trace.trace import Trace


@pytest.fixture
def write(tiny_job, host_cluster):
    """Write a result of ``top`` plans into a directory, the first ``ran`` of them as if they had been run."""
    found = search(tiny_job, host_cluster, strategies(tiny_job, host_cluster), top=3, seed=1)

    def run(directory: Path, *, top: int = 3, ran: int = 0, page=write_report, force: bool = False) -> dict:
        found_now = replace(found, plans=found.plans[:top])
        traces = {n: ranked.trace for n, ranked in enumerate(found_now.plans[:ran])}
        measured = {
            n: Trace.of(t.spans, source="measured", world_size=t.world_size, step_times_s=t.step_times_s)
            for n, t in traces.items()
        }
        prepare_directory(directory, force, plans=top, measured=bool(ran))
        return write_result(directory, found_now, seed=1, measured=measured, page=page, force=force)

    return run


def files(directory: Path) -> set[str]:
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if not path.is_dir()}


def test_a_result_lists_its_files(tmp_path, write):
    """Exactly those that are there."""
    result = write(tmp_path, ran=1)
    assert set(result["files"]) == files(tmp_path)
    assert len(result["files"]) == 3 * 2 + 1 + 3
    assert read_result(tmp_path).files == result["files"]
    assert own_files(tmp_path, force=True) == set(result["files"])


def test_a_result_without_a_page_does_not_list_one(tmp_path, write):
    assert set(write(tmp_path, page=None)["files"]) == files(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_an_earlier_result_is_replaced_by_force_only(tmp_path, write):
    """Traces and plans that have no successor go with it."""
    write(tmp_path, ran=2)
    before = (tmp_path / "result.json").read_bytes()
    with pytest.raises(UsageError, match=r"result\.json exists; give another -o, or --force"):
        write(tmp_path, top=1)
    assert (tmp_path / "result.json").read_bytes() == before
    result = write(tmp_path, top=1, force=True)
    assert files(tmp_path) == set(result["files"])
    assert "plans/1.json" in result["files"]
    assert "plans/2.json" not in result["files"]


OWN = (
    "plans/mine.json",
    "plans/17.json",
    "measured/1.trace.json.gz",
    "measured/own.json",
    "notes.txt",
    "logs/x.log",
)


@pytest.mark.parametrize("force", [False, True])
def test_a_users_files_stay(tmp_path, write, force):
    """In the folders that we write to as well, and whether there was a result or not."""
    if force:
        write(tmp_path)
    for name in OWN:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"my {name}")
    result = write(tmp_path, force=force)
    assert {name: (tmp_path / name).read_text() for name in OWN} == {name: f"my {name}" for name in OWN}
    assert files(tmp_path) == {*OWN, *result["files"]}


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("name", ["plans/2.json", "predicted/1.trace.json.gz", "cluster.yaml", "report.html"])
def test_a_users_file_in_the_way_is_kept(tmp_path, write, name, force):
    """Refused before anything is computed; after, too, if it came meanwhile."""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(UsageError, match=f"{name}: cannot be written: a file that no result here lists"):
        prepare_directory(tmp_path, force, plans=3)
    with pytest.raises(UsageError, match=f"{name}: cannot be written: a file that no result here lists"):
        write(tmp_path, force=force)
    assert files(tmp_path) == {name}
    assert (tmp_path / name).read_text() == "mine"


def test_a_result_that_comes_meanwhile_is_kept(tmp_path, write):
    """Two runs into one directory: the second to end does not replace the first."""

    def page(directory: Path, path: Path) -> None:
        (tmp_path / "result.json").write_text("theirs")
        write_report(directory, path)

    with pytest.raises(
        UsageError, match=r"result\.json: cannot be written: a file that no result here lists"
    ):
        write(tmp_path, page=page)
    assert files(tmp_path) == {"result.json"}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), InputError("too large")])
def test_a_failure_leaves_the_earlier_result(tmp_path, write, error):
    """The page is made last of all; the result before it is read as before."""
    write(tmp_path, ran=1)
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}

    def page(_directory: Path, _path: Path) -> None:
        raise error

    with pytest.raises(type(error)):
        write(tmp_path, top=1, page=page, force=True)
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before
    assert len(read_result(tmp_path).plans) == 3


HOSTILE = [
    "../outside.json",
    "../../x",
    "/etc/hostname",
    "plans/../../outside.json",
    "plans/../notes.txt",
    "notes.txt",
    "plans/mine.json",
    "plans/1.json\n",
    "plans//1.json",
    "",
    ".",
    "..",
    None,
    7,
    ["plans/1.json"],
]


def test_a_result_that_lists_what_is_not_ours(tmp_path, write):
    """A name counts only if it is one that we give; the rest stays, in the directory and outside it."""
    directory = tmp_path / "d"
    write(directory)
    kept = [tmp_path / "outside.json", directory / "notes.txt", directory / "plans/mine.json"]
    for path in kept:
        path.write_text("mine")
    result = json.loads((directory / "result.json").read_text())
    (directory / "result.json").write_text(json.dumps(result | {"files": [*HOSTILE, *result["files"]]}))
    assert own_files(directory, force=True) == set(result["files"])
    write(directory, top=1, force=True)
    assert [path.read_text() for path in kept] == ["mine"] * 3


def test_a_folder_that_leads_elsewhere_is_not_followed(tmp_path, write):
    """`plans` is a link: nothing there is removed or replaced, and the user is told."""
    directory, elsewhere = tmp_path / "d", tmp_path / "elsewhere"
    write(directory)
    (directory / "plans").rename(elsewhere)
    (directory / "plans").symlink_to(elsewhere)
    before = {path.name: path.read_bytes() for path in elsewhere.iterdir()}
    for way in (
        lambda: prepare_directory(directory, force=True, plans=1),
        lambda: write(directory, top=1, force=True),
    ):
        with pytest.raises(UsageError, match="plans: cannot be written: a symbolic link"):
            way()
    assert {path.name: path.read_bytes() for path in elsewhere.iterdir()} == before


def test_a_listed_file_that_became_a_link_is_not_followed(tmp_path, write):
    """The link stays, and so does what it points to."""
    write(tmp_path / "d")
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "d/plans/3.json").unlink()
    (tmp_path / "d/plans/3.json").symlink_to(tmp_path / "mine")
    write(tmp_path / "d", top=1, force=True)
    assert (tmp_path / "d/plans/3.json").is_symlink()
    assert (tmp_path / "mine").read_text() == "mine"


def older(directory: Path, **fields) -> None:
    """A result as it was written before its files were listed."""
    written = document([plan(1, "pp2", error_pct=2.0), plan(2, "dp2")], measurements="measurements.json")
    assert "files" not in written
    directory.mkdir(exist_ok=True)
    (directory / "result.json").write_text(json.dumps(written | fields))


def test_an_older_result_owns_what_its_fields_name(tmp_path):
    older(tmp_path)
    assert own_files(tmp_path, force=True) == {
        "result.json",
        "cluster.yaml",
        "report.html",
        "measurements.json",
        "plans/1.json",
        "plans/2.json",
        "predicted/1.trace.json.gz",
        "predicted/2.trace.json.gz",
        "measured/1.trace.json.gz",
    }


def test_an_older_result_that_names_what_is_not_ours(tmp_path):
    older(
        tmp_path,
        measurements="../x",
        cluster={"file": "/etc/hostname"},
        plans=[{"plan": "../../x", "predicted_trace": "notes.txt", "measured_trace": 7}, "plans/1.json"],
    )
    assert own_files(tmp_path, force=True) == {"result.json", "report.html"}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", '{"schema": "somebody.else/1"}', '{"files": ["plans/1.json"]}']
)
def test_what_is_no_result_of_ours_is_kept(tmp_path, text):
    """With --force too: the file is somebody's, or it is broken, and nobody knows what belongs to it."""
    (tmp_path / "result.json").write_text(text)
    for force in (False, True):
        with pytest.raises(UsageError, match=r"result\.json"):
            prepare_directory(tmp_path, force)
    assert (tmp_path / "result.json").read_text() == text


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("target", ["nowhere", "other.json"])
def test_a_linked_result_is_kept(tmp_path, force, target):
    (tmp_path / "other.json").write_text(json.dumps(document([plan(1, "pp2")])))
    (tmp_path / "result.json").symlink_to(target)
    with pytest.raises(UsageError, match=r"result\.json"):
        prepare_directory(tmp_path, force)
    assert (tmp_path / "result.json").is_symlink()


def test_a_pipe_for_a_result_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "result.json")
    with pytest.raises(UsageError, match="a named pipe"):
        prepare_directory(tmp_path, force=True)


def test_a_linked_directory_is_where_the_user_wants_it(tmp_path, write):
    """The directory that was named may be a link; those in it may not."""
    (tmp_path / "scratch").mkdir()
    (tmp_path / "out").symlink_to("scratch")
    result = write(tmp_path / "out")
    assert files(tmp_path / "scratch") == set(result["files"])
