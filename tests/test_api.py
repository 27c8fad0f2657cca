"""The public names: each function has an example that runs, and docs/api.md is made of what they say."""

from __future__ import annotations

import doctest
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import traincast as tc

ROOT = Path(tc.__file__).parent
FUNCTIONS = [n for n in tc.__all__ if inspect.isfunction(f := getattr(tc, n)) and f.__name__ == n]
"""Without the older names of some."""
METHODS = [tc.Job, tc.Trace.timeline]


def examples(thing: object) -> list[doctest.DocTest]:
    found = doctest.DocTestFinder(recurse=False).find(thing, getattr(thing, "__name__", ""), globs={})
    return [test for test in found if test.examples]


@pytest.mark.parametrize("thing", [*(getattr(tc, n) for n in FUNCTIONS), *METHODS], ids=lambda t: t.__name__)
def test_the_example_of_every_function_runs(thing, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tests = examples(thing)
    assert tests, f"{thing.__name__} has no example"
    for test in tests:
        said: list[str] = []
        result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL).run(
            test, out=said.append
        )
        assert result.failed == 0, "".join(said)


def test_the_page_of_the_api_is_made_of_the_docstrings():
    done = subprocess.run(
        [sys.executable, ROOT / "docs/make_api.py", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
