"""Keys of a `config.json` read one by one, with what is wrong with each."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, TypeGuard

from ..errors import Fault
from ..files.document import Document, printable, shown
from .hf_families import Family

MAX_SIZE = 10**8
"""Of any dimension; the largest known vocabularies have 10^6 entries."""
MAX_LAYERS = 10_000

_MAY_BE_NONE = ("dense_layers", "shared_count", "shared_ffn")
"""Sizes that may be 0."""


def is_size(value: object) -> TypeGuard[int]:
    """Whether ``value`` is a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


class KeyReader:
    """One configuration while it is read; collects what is wrong with it."""

    def __init__(self, document: Document):
        self.document = document
        self.data: dict[str, Any] = document.data
        self.errors: list[Fault] = []
        self.warnings: list[Fault] = []

    def _error(self, key: str, found: str, expected: str = "", hint: str = "") -> None:
        self.errors.append(self.document.fault((key,), found, expected, hint))

    def _warn(self, key: str, found: str, hint: str) -> None:
        self.warnings.append(self.document.fault((key,), found, hint=hint))

    def _key(self, keys: tuple[str, ...]) -> str:
        """The key of ``keys`` that the file uses; the usual one where it uses none."""
        return next((key for key in keys if self.data.get(key) is not None), keys[0])

    def _size(self, name: str, keys: tuple[str, ...], family: Family) -> int:
        """A whole number; 0 where it is absent or wrong."""
        if not keys:
            return 0
        key = self._key(keys)
        value = self.data.get(key)
        if value is None:
            if name in family.required:
                others = f" (or {', '.join(keys[1:])})" if keys[1:] else ""
                hint = self._near(key)
                self._error(key, "missing", f"a whole number{others}", hint)
            return 0
        least, limit = int(name not in _MAY_BE_NONE), MAX_LAYERS if name == "layers" else MAX_SIZE
        if not is_size(value) or not least <= value <= limit:
            self._error(key, shown(value), f"a whole number from {least} to {limit}")
            return 0
        return value

    def _near(self, key: str) -> str:
        others = [k for k in self.data if isinstance(k, str) and k != key]
        near = difflib.get_close_matches(key, others, n=1, cutoff=0.8)
        return f"the file has {printable(near[0])}" if near else ""

    def _flag(self, key: str, default: bool) -> bool:
        value = self.data.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            self._error(key, shown(value), "true or false")
        return bool(value)

    def _name(self) -> str:
        """The file's own name; that of its directory where the file is called config.json."""
        path = Path(self.document.file)
        named = self.data.get("_name_or_path")
        if path.name != "config.json":
            return path.stem
        if isinstance(named, str) and named.strip("./ "):
            return printable(named.rstrip("/").split("/")[-1])
        return path.resolve().parent.name or "model"
