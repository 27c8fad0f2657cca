"""How a result shows itself in a notebook, without results knowing how to draw.

A class that can be shown inherits from `Shown`. Who draws is set from outside by `set_drawing`: the package's
own `__init__.py` names `reports/notebook.py`, which is imported when something is shown for the first time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Drawing = Callable[[str], Callable[..., Any]]
"""Gives the function that draws, by its name: `html`, `picture` or `page`."""

_drawing: Drawing | None = None


def set_drawing(drawing: Drawing) -> None:
    """Say who draws."""
    global _drawing
    _drawing = drawing


def draw(name: str, *things: Any, **options: Any) -> Any:
    """What the drawing function ``name`` makes of ``things``."""
    if _drawing is None:
        raise RuntimeError("nothing draws: `import traincast` says who does")
    return _drawing(name)(*things, **options)


class Shown:
    """Has a form in HTML, as notebooks ask for it: self-contained, escaped, without any address."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return draw("html", self)
