"""Measured curves that several clusters share, as YAML files of their own.

A cluster's `transports: h100-nvswitch` names such a file in `transports/` beside the cluster's or among the
presets: which collectives were timed on how many ranks of what.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from ..errors import Fault, InputError
from ..files.document import Document, did_you_mean, faults_from_pydantic, shown
from ..files.reader import load_document
from .cluster_schema import TransportForm
from .form_types import Name, Strict, Text

TRANSPORTS_DIRECTORY = Path(__file__).parents[2] / "topologies" / "transports"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")


class TransportsForm(Strict):
    """Curves with one source."""

    schema_: Literal["traincast.transports/1"] = Field(alias="schema", description="traincast.transports/1")
    name: Name = Field(description="what was measured")
    source: Text = Field(description="where the times are from")
    date: Text = ""
    transports: tuple[TransportForm, ...] = Field(min_length=1, description="curves by operation and ranks")


def transport_presets() -> dict[str, Path]:
    """Names of measured curves and their files."""
    return {path.stem: path for path in sorted(TRANSPORTS_DIRECTORY.glob("*.yaml"))}


def named_transports(document: Document, name: str) -> tuple[tuple[TransportForm, ...], list[Fault]]:
    """(curves that the cluster file ``document`` only names, faults of theirs)."""
    presets = transport_presets()
    own = Path(document.file).parent / "transports" / f"{name}.yaml"
    path = own if _NAME.match(name) and own.is_file() else presets.get(name)
    if path is None:
        hint = did_you_mean(name, presets)
        return (), [document.fault(("transports",), shown(name), "curves, or the name of a file", hint)]
    try:
        return check_transports(load_document(path))
    except InputError as error:
        return (), error.faults


def check_transports(document: Document) -> tuple[tuple[TransportForm, ...], list[Fault]]:
    """(curves, faults) of a file of their own; what a curve does not say of its source, the file says."""
    if not isinstance(document.data, dict):
        return (), [document.fault((), shown(document.data), "a mapping that describes measured curves")]
    try:
        form = TransportsForm.model_validate(document.data)
    except ValidationError as error:
        return (), faults_from_pydantic(document, error, TransportsForm)
    return tuple(
        curve if curve.source else curve.model_copy(update={"source": form.source})
        for curve in form.transports
    ), []
