"""The one writer of files: whole or not at all, and only onto a regular file or where nothing is.

A file is made next to its place under a name that nobody can guess, by O_EXCL and O_NOFOLLOW, forced to the
disk, and renamed over what was there. A device, a pipe, a socket, a directory and a symbolic link are refused
and stay. Files that belong together are made in a folder of their own and renamed into place one after
another once all of them are there; if that fails or is interrupted, what was there before is put back.
Folders below the one that was named are never entered through a symbolic link.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import stat
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO

from ..errors import InputError, UsageError
from .document import printable
from .reader import file_kind

__all__ = [
    "check_output",
    "check_places",
    "copy_file",
    "make_directory",
    "replaced_together",
    "replacing",
    "write_json_atomic",
    "write_text_atomic",
]

StrPath = str | os.PathLike[str]

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_REPLACED = ".replaced"


def write_text_atomic(path: StrPath, text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8, whole or not at all.

    Raises:
        UsageError: the file cannot be written, or what is there is no regular file.
    """
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{_shown(path)}: cannot be written: {error}") from error
    with replacing(path) as file:
        file.write(data)


def write_json_atomic(path: StrPath, data: object) -> None:
    """Write ``data`` as JSON, indented, keys in their order. Raises as `write_text_atomic`.

    Raises:
        InputError: ``data`` holds NaN, an infinity or something that JSON has no form for.
    """
    try:
        text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{_shown(path)}: cannot be written as JSON: {error}") from error
    write_text_atomic(path, text + "\n")


def copy_file(source: StrPath, path: StrPath) -> None:
    """Copy the bytes of ``source`` to ``path``. Raises as `write_text_atomic`."""
    with Path(source).open("rb") as original, replacing(path) as file:
        shutil.copyfileobj(original, file)


@contextmanager
def replacing(path: StrPath) -> Iterator[IO[bytes]]:
    """An open file that takes its place at ``path`` when the block ends.

    It has the permissions of what was there. Where the block raises, that stays and the new file is gone.

    Raises:
        UsageError: the file cannot be written, or what is there is no regular file.
    """
    path = Path(path)
    with _told_of(path), _opened(path.parent) as folder:
        old = _replaceable(path, folder)
        part = _part_name()
        descriptor = os.open(part, _NEW, 0o666, dir_fd=folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                if old:
                    os.fchmod(descriptor, stat.S_IMODE(old.st_mode) & 0o777)
                yield file
                file.flush()
                os.fsync(descriptor)
            _replaceable(path, folder)
            os.rename(part, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with suppress(OSError):
                os.unlink(part, dir_fd=folder)
            raise
        _forced(folder)


def check_output(path: StrPath, *, parents_are_made: bool = False) -> None:
    """Refuse ``path`` before the work, where `replacing` would refuse it after.

    >>> import traincast as tc
    >>> tc.check_output("trace.json.gz")

    Raises:
        UsageError: the file could not be written; that its folder is not there too, unless that will be made.
    """
    path = Path(path)
    with _told_of(path):
        try:
            with _opened(path.parent) as folder:
                _replaceable(path, folder)
        except FileNotFoundError:
            if parents_are_made:
                return
            raise
        _writable(path.parent)


def make_directory(path: StrPath) -> Path:
    """``path``, made with what is missing above it.

    Raises:
        UsageError: it cannot be made.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{_shown(path)}: cannot be made: {reason}") from error
    return Path(path)


def check_places(directory: StrPath, names: Iterable[str], replaces: Collection[str] = ()) -> None:
    """Refuse before the work what `replaced_together` would refuse after, were ``names`` its files.

    Raises:
        UsageError: ``directory`` is not writable, or something is at a place that may not be replaced.
    """
    directory = Path(directory)
    with _told_of(directory), ExitStack() as closing:
        _writable(directory)
        tree = _Tree(directory, closing)
        for name in names:
            tree.check(name, replaces)


@contextmanager
def replaced_together(
    directory: StrPath, *, replaces: Collection[str] = (), removes: Collection[str] = (), last: str = ""
) -> Iterator[Path]:
    """A new folder whose files take the same places in ``directory`` when the block ends, or none of them.

    Names are relative, with slashes. Files may be there already at ``replaces``; those of ``removes`` that
    are regular files and have no successor are removed. Nothing else in ``directory`` is touched. ``last``
    is taken away first and put in place last, so that where it is, all the others are. Where the block
    raises, or a file cannot take its place, ``directory`` is left as it was.

    Raises:
        UsageError: a file cannot take its place, or what is there may not be replaced.
    """
    directory = Path(directory)
    with ExitStack() as closing:
        if not directory.is_dir():
            make_directory(directory)
            closing.push(lambda kind, *_: _undo_directory(directory) if kind else None)
        closing.enter_context(_told_of(directory))
        tree = _Tree(directory, closing)
        part = _part_name()
        os.mkdir(part, 0o700, dir_fd=tree.root)
        try:
            yield directory / part
            with ExitStack() as inside:
                stage = _Tree(directory / part, inside)
                _move_in(stage, tree, replaces, removes, last)
        finally:
            shutil.rmtree(part, ignore_errors=True, dir_fd=tree.root)


def _undo_directory(directory: Path) -> None:
    with suppress(OSError):
        directory.rmdir()


class _Tree:
    """A folder by its descriptor and the folders in it; those are entered by name, never through a link."""

    def __init__(self, path: Path, closing: ExitStack):
        self.path = path
        self.root = closing.enter_context(_opened(path))
        self._closing = closing
        self._folders = {PurePosixPath("."): self.root}
        self._made: list[tuple[str, int]] = []

    def at(self, name: str, *, make: bool = False) -> tuple[int, str]:
        """The folder of ``name`` and its name there. Raises FileNotFoundError where there is no folder."""
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts or not pure.name:
            raise UsageError(f"{printable(name)!r} lies outside {_shown(self.path)}")
        return self._folder(pure.parent, make), pure.name

    def _folder(self, name: PurePosixPath, make: bool) -> int:
        if name in self._folders:
            return self._folders[name]
        above = self._folder(name.parent, make)
        found = _stat(name.name, above)
        if found is None and make:
            self._made.append((name.name, above))
            os.mkdir(name.name, dir_fd=above)
        elif found is not None and not stat.S_ISDIR(found.st_mode):
            raise _refusal(self.path / name, file_kind(found.st_mode), "a directory")
        descriptor = os.open(name.name, _FOLDER | os.O_NOFOLLOW, dir_fd=above)
        self._closing.callback(os.close, descriptor)
        self._folders[name] = descriptor
        return descriptor

    def check(self, name: str, replaces: Collection[str]) -> None:
        """Raise UsageError where ``name`` is taken by what may not be replaced."""
        with suppress(FileNotFoundError):
            folder, _ = self.at(name)
            if _replaceable(self.path / name, folder) and name not in replaces:
                hint = "move it away, or give another directory"
                raise _refusal(self.path / name, "a file that no result here lists", "nothing", hint)

    def holds(self, name: str) -> bool:
        """Whether ``name`` is a regular file in it."""
        try:
            folder, base = self.at(name)
            found = _stat(base, folder)
        except (OSError, UsageError):
            return False
        return found is not None and stat.S_ISREG(found.st_mode)

    def unmake(self) -> None:
        """Remove the folders that were made, where they are empty."""
        for name, above in reversed(self._made):
            with suppress(OSError):
                os.rmdir(name, dir_fd=above)

    def force(self) -> None:
        """Have the disk know of the names."""
        for descriptor in self._folders.values():
            _forced(descriptor)


def _move_in(
    stage: _Tree, tree: _Tree, replaces: Collection[str], removes: Collection[str], last: str
) -> None:
    """Rename every file of ``stage`` to its place in ``tree``; if one cannot be, rename all back."""
    files = (path for path in stage.path.rglob("*") if path.is_file())
    new = sorted((path.relative_to(stage.path).as_posix() for path in files), key=lambda n: (n == last, n))
    for name in new:
        tree.check(name, replaces)
    leaving = sorted(
        (name for name in {*new, *removes} if tree.holds(name)), key=lambda name: (name != last, name)
    )
    with ExitStack() as undo:
        undo.callback(tree.unmake)
        for number, name in enumerate(leaving):
            # The way back is known before the step: an interrupt may come between any two lines.
            source, target = tree.at(name), stage.at(f"{_REPLACED}/{number}", make=True)
            undo.callback(_move_back, target, source)
            _move(source, target)
        for name in new:
            source, target = stage.at(name), tree.at(name, make=True)
            undo.callback(_move_back, target, source)
            _move(source, target)
        tree.force()
        undo.pop_all()


def _move(source: tuple[int, str], target: tuple[int, str]) -> None:
    os.rename(source[1], target[1], src_dir_fd=source[0], dst_dir_fd=target[0])


def _move_back(source: tuple[int, str], target: tuple[int, str]) -> None:
    with suppress(FileNotFoundError):
        _move(source, target)


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    descriptor = os.open(directory, _FOLDER)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _told_of(path: Path) -> Iterator[None]:
    """What the system refuses, as an error that names ``path``."""
    if "\0" in os.fspath(path):
        raise _refusal(path, "a NUL character in the name", "a file name")
    try:
        yield
    except OSError as error:
        raise UsageError(f"{_shown(path)}: cannot be written: {error.strerror or error}") from error


def _part_name() -> str:
    return f".traincast-{secrets.token_hex(8)}.part"


def _forced(descriptor: int) -> None:
    with suppress(OSError):  # some file systems have no fsync of a folder
        os.fsync(descriptor)


def _stat(name: str, folder: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _replaceable(path: Path, folder: int) -> os.stat_result | None:
    """What is at ``path``, None if nothing. Raises UsageError unless that is a regular file one may write."""
    if not path.name:
        raise _refusal(path, "no file name", "one")
    found = _stat(path.name, folder)
    if found is None:
        return None
    if not stat.S_ISREG(found.st_mode):
        hint = "give another path; --json prints on stdout"
        if stat.S_ISLNK(found.st_mode):
            hint = f"it points to {printable(os.readlink(path.name, dir_fd=folder))}; give the path of a file"
        raise _refusal(path, file_kind(found.st_mode), "a regular file, or nothing", hint)
    # A rename asks only whether the folder may be written; a protected file is meant to stay.
    if not found.st_mode & 0o222 or not os.access(path.name, os.W_OK, dir_fd=folder):
        raise _refusal(path, "a write-protected file", "one that may be written")
    return found


def _writable(directory: Path) -> None:
    if not os.access(directory, os.W_OK | os.X_OK):
        raise _refusal(directory, "a directory without write permission", "one that may be written")


def _refusal(path: Path, found: str, expected: str, hint: str = "") -> UsageError:
    text = f"{_shown(path)}: cannot be written: {found} -> expected {expected}"
    return UsageError(f"{text}; {hint}" if hint else text)


def _shown(path: StrPath) -> str:
    return printable(os.fspath(path))
