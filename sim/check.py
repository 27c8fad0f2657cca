"""What is wrong with a file, whatever kind it is: cluster, accelerator, measured curves, plan or model.

The kind is read from `schema`, and where there is none from what the file holds.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from .errors import Fault, InputError
from .files.document import Document, did_you_mean, shown
from .files.reader import load_document
from .model.hf_config import WEIGHT_SUFFIXES, check_hf_config, read_model
from .model.model_file import check_model_file
from .plan.plan_file import MAX_BYTES, check_plan

Result = tuple[list[Fault], list[Fault]]


def check_file(path: str | os.PathLike[str]) -> Result:
    """(errors, warnings) of the file at ``path``; never raises for what the file holds."""
    try:
        if os.fspath(path).lower().endswith(WEIGHT_SUFFIXES):
            read_model(path)  # says what to give instead
        json = os.fspath(path).endswith(".json")
        document = load_document(path, **({"max_bytes": MAX_BYTES} if json else {}))
        return _check(document)
    except InputError as error:
        return error.faults, []


def _check(document: Document) -> Result:
    kind = kind_of(document)
    if kind is not None:
        return _CHECKS[kind](document)
    expected = "a cluster, accelerator, plan or model file"
    if not isinstance(document.data, dict):
        return [document.fault((), shown(document.data), expected)], []
    schema = document.data.get("schema")
    if schema is None:
        return [document.fault((), "no schema", expected, f"add schema: {_SCHEMAS[0]}")], []
    hint = did_you_mean(str(schema), _SCHEMAS)
    return [document.fault(("schema",), shown(schema), " | ".join(_SCHEMAS), hint)], []


def kind_of(document: Document) -> str | None:
    """`cluster`, `accelerator`, `transports`, `plan` or `model`; None if it is none of them."""
    data = document.data
    if not isinstance(data, dict):
        return None
    schema = data.get("schema")
    if isinstance(schema, str):
        name = schema.removeprefix("traincast.").partition("/")[0]
        return name if schema.startswith("traincast.") and name in _CHECKS else None
    signs = {
        "plan": {"actions", "stages"},
        "cluster": {"nodes", "accelerators_per_node", "links"},
        "accelerator": {"peak_flops", "memory_bandwidth"},
        "model": {"architectures", "model_type", "hidden_size", "n_embd"},
    }
    return next((kind for kind, keys in signs.items() if keys & data.keys()), None)


def _cluster(document: Document) -> Result:
    from .hardware.cluster_file import check_cluster

    return check_cluster(document)[1:]


def _accelerator(document: Document) -> Result:
    from .hardware.cluster_file import check_accelerator

    return check_accelerator(document)[1:]


def _transports(document: Document) -> Result:
    from .hardware.curve_files import check_transports

    return check_transports(document)[1], []


def _plan(document: Document) -> Result:
    return check_plan(document), []


def _model(document: Document) -> Result:
    if isinstance(document.data, dict) and "schema" in document.data:
        return check_model_file(document), []
    return check_hf_config(document)[1:]


_CHECKS: dict[str, Callable[[Document], Any]] = {
    "cluster": _cluster,
    "accelerator": _accelerator,
    "transports": _transports,
    "plan": _plan,
    "model": _model,
}
_SCHEMAS = ("traincast.cluster/1", "traincast.accelerator/1", "traincast.plan/1", "traincast.model/1")
