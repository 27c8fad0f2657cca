"""Files that belong together take their places together or not at all, and a user's own are never touched."""

import os
from contextlib import suppress
from pathlib import Path

import pytest
from file_tree import make, names, tree

from traincast.sim.errors import UsageError
from traincast.sim.files import writer
from traincast.sim.files.writer import check_places, replaced_together

OLD = {"last.json": "old", "a": "old", "plans/1": "old", "plans/3": "old"}
NEW = {"last.json": "new", "a": "new", "plans/1": "new", "plans/2": "new", "traces/1": "new"}
USERS = {"notes": "mine", "plans/mine": "mine", "measured/x": "mine"}


def replace_all(directory: Path) -> None:
    with replaced_together(directory, replaces=OLD, removes=OLD, last="last.json") as new:
        make(new, NEW)


def test_files_take_their_places_together(tmp_path):
    """The new ones are there, old ones without a successor are gone, a user's own are as they were."""
    make(tmp_path, OLD | USERS)
    replace_all(tmp_path)
    assert tree(tmp_path) == NEW | USERS
    assert not [name for name in names(tmp_path) if name.endswith(".part")]


def test_a_directory_that_was_not_there(tmp_path):
    """It is made; if the files do not come to be, it is gone again."""
    replace_all(tmp_path / "new")
    assert tree(tmp_path) == {f"new/{name}": text for name, text in NEW.items()}

    def fail():
        with replaced_together(tmp_path / "other") as new:
            make(new, NEW)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert names(tmp_path) == ["new"]


class Killed(BaseException):
    """Stands for the end of the process."""


def count_renames(directory: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many steps the replacement of a directory takes."""
    done, rename = [], os.rename
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", lambda *a, **k: done.append(rename(*a, **k)))
        make(directory, OLD | USERS)
        replace_all(directory)
    return len(done)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), Killed()])
def test_a_failure_at_any_step_puts_all_back(tmp_path, monkeypatch, error):
    """Every rename fails once, before it is done and after."""
    steps = count_renames(tmp_path / "count", monkeypatch)
    assert steps == len(OLD) + len(NEW)
    rename = os.rename
    for step in range(steps):
        for late in (False, True):
            left = [step]

            def fails_once(*arguments, left=left, late=late, **named):
                left[0] -= 1
                if left[0] == -1:
                    if late:
                        rename(*arguments, **named)
                    raise error
                rename(*arguments, **named)

            directory = tmp_path / f"{step}{late}"
            make(directory, OLD | USERS)
            with monkeypatch.context() as patch:
                patch.setattr(os, "rename", fails_once)
                with pytest.raises(UsageError if isinstance(error, OSError) else type(error)):
                    replace_all(directory)
            assert tree(directory) == OLD | USERS
            assert names(directory) == sorted({name.split("/")[0] for name in OLD | USERS})


def test_a_killed_process_leaves_no_mixture_that_looks_whole(tmp_path, monkeypatch):
    """Nothing runs after the step: either all is old, or all is new, or the last file is missing."""
    steps = count_renames(tmp_path / "count", monkeypatch)
    rename = os.rename
    for step in range(steps + 1):
        left = [step]

        def ends(*arguments, left=left, **named):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            rename(*arguments, **named)

        directory = tmp_path / str(step)
        make(directory, OLD | USERS)
        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", ends)
            patch.setattr(writer.shutil, "rmtree", lambda *_, **__: None)
            with suppress(Killed):
                replace_all(directory)
        found = tree(directory)
        assert found.items() >= USERS.items()
        if "last.json" in found:
            assert found in (OLD | USERS, NEW | USERS)
        else:
            assert 0 < step < steps


@pytest.mark.parametrize("name", ["plans/2", "traces/1"])
def test_a_users_file_at_a_place_is_kept(tmp_path, name):
    """It is not among those that may be replaced, so nothing is written."""
    make(tmp_path, OLD | {name: "mine"})
    with pytest.raises(UsageError, match=f"{name}: cannot be written: a file that no result here lists"):
        replace_all(tmp_path)
    assert tree(tmp_path) == OLD | {name: "mine"}


@pytest.mark.parametrize("inside", [False, True])
def test_a_linked_folder_is_not_entered(tmp_path, inside):
    """Neither to write in it nor to remove from it, wherever it points to."""
    directory, elsewhere = tmp_path / "d", tmp_path / ("d/elsewhere" if inside else "elsewhere")
    make(directory, {"last.json": "old"})
    make(elsewhere, {"1": "old", "3": "old"})
    (directory / "plans").symlink_to(elsewhere)
    with pytest.raises(UsageError, match="plans: cannot be written: a symbolic link -> expected a directory"):
        replace_all(directory)
    with pytest.raises(UsageError, match="a symbolic link -> expected a directory"):
        check_places(directory, ["plans/1"], replaces=["plans/1"])
    with replaced_together(directory, replaces=["last.json"], removes=["plans/1", "plans/3"]) as new:
        make(new, {"last.json": "new"})
    assert tree(elsewhere) == {"1": "old", "3": "old"}
    assert (directory / "last.json").read_text() == "new"


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "a/../../outside", "..", ""])
def test_nothing_outside_is_removed(tmp_path, name):
    make(tmp_path, {"outside": "mine", "d/a": "old"})
    with replaced_together(tmp_path / "d", replaces=["a"], removes=["a", name]) as new:
        make(new, {"b": "new"})
    assert tree(tmp_path) == {"outside": "mine", "d/b": "new"}


def test_what_is_removed_is_a_regular_file(tmp_path):
    """A link or a pipe of that name stays."""
    make(tmp_path, {"target": "mine"})
    (tmp_path / "a").symlink_to("target")
    os.mkfifo(tmp_path / "b")
    (tmp_path / "c").mkdir()
    with replaced_together(tmp_path, removes=["a", "b", "c"]) as new:
        make(new, {"d": "new"})
    assert names(tmp_path) == ["a", "b", "c", "d", "target"]
    assert tree(tmp_path) == {"target": "mine", "d": "new"}
