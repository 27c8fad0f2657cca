"""The README's table of what is run is what the executor's refusals say."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import traincast
from traincast.sim.plan.strategy_fields import StrategyFields

pytest.importorskip("torch")
SCRIPT = Path(traincast.__file__).parent / "docs/make_support_table.py"


@pytest.fixture(scope="module")
def made():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("make_support_table", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.mark.timeout(300)
def test_the_readme_says_what_the_executor_refuses(made):
    """If not: python docs/make_support_table.py"""
    text = made.README.read_text()
    assert made.page(text) == text


def test_every_field_of_a_strategy_is_in_the_table(made):
    assert made.varied() == {field.name for field in fields(StrategyFields)}


@pytest.mark.parametrize(
    ("names", "refused", "cell"),
    [
        ("ab", {}, "yes"),
        ("ab", {"a": ["a (no way)"], "b": ["b (no way)"]}, "no: no way"),
        ("abc", {"a": ["a: no way; go round"]}, "all but a: no way"),
        ("abc", {"a": ["a: no"], "b": ["b: never"]}, "c only: a: no; b: never"),
        ("abcde", {"a": ["a: no"], "b": ["b: never"]}, "all but a: no; b: never"),
        ("abc", {"a": ["no reason"], "b": ["no reason"]}, "c only: no reason"),
    ],
)
def test_a_cell_names_what_is_refused_and_why(made, names, refused, cell):
    assert made._cell(list(names), refused) == cell
