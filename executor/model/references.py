"""A user's own code, imported by name: only ever what the user of this process has named, or has said to
trust in a plan."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from ...sim.errors import Fault, InputError


def _expected(what: str) -> str:
    return f"package.module:{'factory' if what == 'module' else 'name'}"


def look_in(folder: str | Path) -> None:
    """Find modules in ``folder`` too, after everything that is installed."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def read_reference(name: str, *, what: str = "module") -> Any:
    """What ``package.module:name`` names.

    Raises:
        InputError: there is no such module or name, or the module cannot be imported.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise InputError(Fault(path=what, found=name, expected=_expected(what)))
    try:
        found = import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:
        said = f"{name}: {type(error).__name__}: {error}"
        raise InputError(Fault(path=what, found=said, expected=_expected(what))) from error
    return found


def read_factory(name: str, *, what: str = "module") -> Any:
    """The same of something that can be called.

    Raises:
        InputError: as `read_reference`, or it cannot be called.
    """
    found = read_reference(name, what=what)
    if not callable(found):
        raise InputError(Fault(path=what, found=f"{name} is no function", expected=_expected(what)))
    return found
