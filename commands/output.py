"""What a command says: data on stdout, progress on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

Progress = Callable[[str, float], None]
"""Called with what is being done and the fraction done."""

_EVERY_S = 10.0
"""Seconds between progress lines where stderr is no terminal."""


def echo_json(data: object) -> None:
    """Print machine-readable data; NaN never leaves the program."""
    click.echo(json.dumps(data, indent=1, allow_nan=False, ensure_ascii=False))


def note(text: str) -> None:
    """Say something to the person, not to the pipe."""
    if not _quiet():
        click.echo(text, err=True)


def _quiet() -> bool:
    context = click.get_current_context(silent=True)
    return bool(context and context.obj and context.obj.get("quiet"))


@contextmanager
def progress(title: str) -> Iterator[Progress]:
    """A progress bar on a terminal, a line every ten seconds elsewhere, nothing when quiet."""
    if _quiet():
        yield lambda text, fraction: None
    elif sys.stderr.isatty():
        yield from _bar(title)
    else:
        yield _lines(title)


def _bar(title: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress

    columns = (TextColumn("[bold]{task.fields[title]}"), BarColumn(), TextColumn("{task.description}"))
    with RichProgress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("", total=1.0, title=title)
        yield lambda text, fraction: bars.update(task, description=text, completed=fraction)


def _lines(title: str) -> Progress:
    said = time.monotonic()

    def say(text: str, fraction: float) -> None:
        nonlocal said
        if time.monotonic() - said >= _EVERY_S:
            said = time.monotonic()
            click.echo(f"{title}: {text} ({fraction:.0%})", err=True)

    return say
