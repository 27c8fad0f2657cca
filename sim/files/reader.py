"""The one door for files that people write or that come from others: YAML 1.2 and JSON.

What comes through is plain data with line numbers. Whatever is wrong with a file as a file is one
InputError: too large, too deep, not UTF-8, no regular file, duplicate keys, anchors, tags, NaN. YAML is
read from ruamel's event stream, so nothing in the file can make an object, and nothing is expanded.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from .document import Document, did_you_mean, faults_from_pydantic, printable, raise_faults, shown
from .refusals import line_of, refuse

__all__ = [
    "Document",
    "did_you_mean",
    "faults_from_pydantic",
    "file_kind",
    "load_document",
    "load_text",
    "parse_document",
    "raise_faults",
    "shown",
]

MAX_BYTES = 4 * 2**20

_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def load_document(path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> Document:
    """Read the YAML or JSON file at ``path``, of at most ``max_bytes``.

    Raises:
        InputError: the file cannot be read, or is not a sound document.
    """
    return parse_document(load_text(path, max_bytes=max_bytes), printable(os.fspath(path)))


def load_text(path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> str:
    """The text of the file at ``path``, of at most ``max_bytes``.

    Raises:
        InputError: the file cannot be read, is empty, or is no UTF-8 text.
    """
    file = printable(os.fspath(path))
    return _decode(_read(Path(path), file, max_bytes), file)


def parse_document(text: str, file: str) -> Document:
    """Read a document from ``text``; JSON if it is named so or begins like it, else YAML."""
    from . import json as json_documents
    from . import yaml as yaml_documents

    looks_json = text.lstrip()[:1] in ("{", "[") and not file.endswith((".yaml", ".yml"))
    reader = json_documents if file.endswith(".json") or looks_json else yaml_documents
    return reader.parse(text, file)


def _read(path: Path, file: str, max_bytes: int) -> bytes:
    # Without O_NONBLOCK, opening a FIFO waits until somebody writes to it.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as opened:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                refuse(file, file_kind(mode), "a regular file")
            data = opened.read(max_bytes + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, IsADirectoryError):
            refuse(file, "a directory", "a regular file")
        refuse(file, _cannot_open(error), "a file that can be read", _near_files(path, error))
    if len(data) > max_bytes:
        refuse(file, f"more than {max_bytes} bytes", f"at most {max_bytes} bytes")
    return data


def file_kind(mode: int) -> str:
    """What a file of this ``st_mode`` is, where it is no regular one."""
    kinds = {
        stat.S_ISDIR: "a directory",
        stat.S_ISFIFO: "a named pipe",
        stat.S_ISSOCK: "a socket",
        stat.S_ISLNK: "a symbolic link",
    }
    return next((name for is_kind, name in kinds.items() if is_kind(mode)), "a device")


def _cannot_open(error: OSError | ValueError) -> str:
    if isinstance(error, ValueError):
        return "no file name"
    known = {
        errno.ENOENT: "no such file",
        errno.ELOOP: "a loop of symbolic links",
        errno.ENXIO: "a socket",
    }
    return known.get(error.errno or 0) or (error.strerror or str(error)).lower()


def _near_files(path: Path, error: OSError | ValueError) -> str:
    if not isinstance(error, FileNotFoundError):
        return ""
    with suppress(OSError):
        return did_you_mean(path.name, [p.name for p in list(path.parent.iterdir())[:1000]]).partition(
            "known are"
        )[0]
    return ""


def _decode(data: bytes, file: str) -> str:
    if data.startswith(_UTF16) or b"\0" in data[:2]:
        refuse(file, "UTF-16 text, or no text", "UTF-8 text")
    if b"\0" in data:
        refuse(file, "a NUL byte, so no text", "UTF-8 text", line=line_of(data, data.index(b"\0")))
    if data.startswith(b"\xef\xbb\xbf"):
        refuse(file, "a byte order mark", "UTF-8 text without one", line=1)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = line_of(data, error.start)
        refuse(file, f"byte 0x{data[error.start]:02x}, which is not UTF-8", "UTF-8 text", line=line)
    if not text.strip():
        refuse(file, "an empty file", "a YAML or JSON document")
    return text
