"""Clusters and accelerators as YAML files: hand-written presets and what calibration writes.

Reading reports every fault of a file at once, with its line; what was written reads back to the bit.
A preset is a file in `topologies/`; an accelerator that is only named is a file in `accelerators/` beside
the cluster's file or among the presets, and so are curves that are only named in `transports/`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import Fault, InputError
from ..files.document import (
    Document,
    did_you_mean,
    faults_from_pydantic,
    in_order,
    log_doubts,
    raise_faults,
    shown,
)
from ..files.reader import load_document
from .cluster import Accelerator, Cluster

if TYPE_CHECKING:
    from .accelerator_schema import AcceleratorForm

TOPOLOGIES_DIRECTORY = Path(__file__).parents[2] / "topologies"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")


def read_cluster(path_or_preset: str | os.PathLike[str]) -> Cluster:
    """The cluster of a YAML file or of a preset (`hgx-h100`). What is doubtful in it is logged as a warning.

    Raises:
        InputError: no such file or preset, or lists every fault of the file.
    """
    cluster, errors, warnings = check_cluster(load_document(cluster_path(path_or_preset)))
    raise_faults(errors)
    log_doubts(warnings)
    assert cluster is not None  # no errors
    return cluster


def cluster_presets() -> dict[str, Path]:
    """Preset names and their files.

    >>> import traincast as tc
    >>> "hgx-h100" in tc.cluster_presets()
    True
    """
    return {path.stem: path for path in sorted(TOPOLOGIES_DIRECTORY.glob("*.yaml"))}


def accelerator_presets() -> dict[str, Path]:
    """Names of accelerators and their files."""
    return {path.stem: path for path in sorted((TOPOLOGIES_DIRECTORY / "accelerators").glob("*.yaml"))}


def cluster_path(path_or_preset: str | os.PathLike[str]) -> Path:
    """The file of a preset, or ``path_or_preset`` itself. Raises InputError if it names neither."""
    name = os.fspath(path_or_preset)
    if name.endswith((".yaml", ".yml", ".json")) or os.sep in name or Path(name).exists():
        return Path(name)
    presets = cluster_presets()
    plain = name.lower().replace("_", "-")
    if plain in presets:
        return presets[plain]
    hint = did_you_mean(name, presets)
    raise InputError(Fault(path="cluster", found=shown(name), expected="a preset or a YAML file", hint=hint))


def check_cluster(document: Document) -> tuple[Cluster | None, list[Fault], list[Fault]]:
    """(cluster, errors, warnings) of a cluster file; no cluster where there are errors."""
    from pydantic import ValidationError

    from . import cluster_rules as cluster_check
    from .accelerator_schema import AcceleratorForm
    from .cluster_schema import ClusterForm
    from .curve_files import named_transports

    if not isinstance(document.data, dict):
        return None, [document.fault((), shown(document.data), "a mapping that describes a cluster")], []
    data, errors = dict(document.data), cluster_check.topology_faults(document)
    if isinstance(data.get("accelerator"), str):
        named, faults = _named_accelerator(document, data["accelerator"])
        errors += faults
        # The faults of a named accelerator are told with its own file; here it only takes its place.
        data["accelerator"] = named or AcceleratorForm.model_construct()
    if isinstance(data.get("node_groups"), list):
        data["node_groups"], faults = _named_groups(document, data["node_groups"])
        errors += faults
        if data["node_groups"] and isinstance(data["node_groups"][0], dict):
            data.setdefault("accelerator", data["node_groups"][0].get("accelerator"))
    if isinstance(data.get("transports"), str):
        data["transports"], faults = named_transports(document, data["transports"])
        errors += faults
    try:
        form = ClusterForm.model_validate(data)
    except ValidationError as error:
        return None, in_order([*errors, *faults_from_pydantic(document, error, ClusterForm)]), []
    if errors:
        return None, in_order(errors), []
    cluster = form.read()
    return cluster, [], cluster_check.warnings(document, cluster)


def read_accelerator(path_or_preset: str | os.PathLike[str]) -> Accelerator:
    """The accelerator of a YAML file of its own or of a preset (`h100-sxm`).

    Raises:
        InputError: no such file or preset, or lists every fault of the file.
    """
    path = accelerator_presets().get(os.fspath(path_or_preset), Path(path_or_preset))
    accelerator, errors, warnings = check_accelerator(load_document(path))
    raise_faults(errors)
    log_doubts(warnings)
    assert accelerator is not None  # no errors
    return accelerator


def check_accelerator(document: Document) -> tuple[Accelerator | None, list[Fault], list[Fault]]:
    """(accelerator, errors, warnings) of an accelerator's own file."""
    from .cluster_rules import accelerator_warnings

    form, errors = _accelerator_form(document)
    if form is None:
        return None, errors, []
    accelerator = form.read()
    return accelerator, [], accelerator_warnings(document, accelerator)


def _accelerator_form(document: Document) -> tuple[AcceleratorForm | None, list[Fault]]:
    from pydantic import ValidationError

    from .accelerator_schema import AcceleratorForm

    if not isinstance(document.data, dict):
        return None, [document.fault((), shown(document.data), "a mapping that describes an accelerator")]
    try:
        return AcceleratorForm.model_validate(document.data), []
    except ValidationError as error:
        return None, faults_from_pydantic(document, error, AcceleratorForm)


def _named_groups(document: Document, groups: list[Any]) -> tuple[list[Any], list[Fault]]:
    """``groups`` with the accelerators they only name read from their files."""
    from .accelerator_schema import AcceleratorForm

    read, errors = [], []
    for index, group in enumerate(groups):
        if isinstance(group, dict) and isinstance(group.get("accelerator"), str):
            place = ("node_groups", index, "accelerator")
            named, faults = _named_accelerator(document, group["accelerator"], place)
            errors += faults
            group = {**group, "accelerator": named or AcceleratorForm.model_construct()}
        read.append(group)
    return read, errors


def _named_accelerator(
    document: Document, name: str, place: tuple[str | int, ...] = ("accelerator",)
) -> tuple[AcceleratorForm | None, list[Fault]]:
    """An accelerator that the cluster file only names at ``place``."""
    presets = accelerator_presets()
    folder = Path(document.file).parent / "accelerators"
    own = folder / f"{name}.yaml"
    path = own if _NAME.match(name) and own.is_file() else presets.get(name)
    if path is None:
        hint = did_you_mean(name, presets)
        return None, [document.fault(place, shown(name), "the name of an accelerator", hint)]
    try:
        return _accelerator_form(load_document(path))
    except InputError as error:
        return None, error.faults
