"""The report of a directory of results, and pictures of it."""

from __future__ import annotations

import os
from pathlib import Path

from .figures import write_figures
from .report import write_report


def report(
    directory: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    pictures: str | os.PathLike[str] | None = None,
) -> list[Path]:
    """Write one self-contained HTML report of what `plan`, `execute` or `demo` left in ``directory``.

    It is written to ``output``, or to `report.html` in the directory; ``pictures`` is a directory for PNG
    files. Returns what was written.

    >>> import traincast as tc
    >>> found = tc.plan("gpt2", "dgx-a100", global_batch=64, seq_len=1024, top=1, samples=2, output="results")
    >>> tc.report("results", "page.html")
    [PosixPath('page.html')]

    Raises:
        InputError: a file of the directory cannot be used.
        UsageError: a file cannot be written.
    """
    path = Path(directory) / "report.html" if output is None else Path(output)
    write_report(Path(directory), path)
    return [path, *(write_figures(Path(directory), Path(pictures)) if pictures else [])]
