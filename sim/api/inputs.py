"""What stands for a cluster, a model or a job, and what is filled in where nothing is said."""

from __future__ import annotations

import math
import os
from dataclasses import fields
from typing import Any

from ..errors import InputError, UsageError
from ..files.document import did_you_mean
from ..hardware.cluster import Accelerator, Cluster
from ..hardware.cluster_file import read_accelerator, read_cluster
from ..model.hf_config import read_model
from ..model.model import Model
from ..plan.field_types import is_number, is_whole
from ..plan.job import Job
from ..plan.strategy import Strategy

ModelLike = Model | str | os.PathLike[str]
"""A Model, the name of a preset, or the path of a `config.json` or a model file."""
ClusterLike = Cluster | str | os.PathLike[str]
"""A Cluster, the name of a preset, or the path of a YAML file."""

JOB_FIELDS = tuple(field.name for field in fields(Job) if field.name != "model")
STRATEGY_FIELDS = tuple(field.name for field in fields(Strategy))


def cluster(what: ClusterLike, *, nodes: int | None = None) -> Cluster:
    """The cluster of a preset or YAML file, with another number of ``nodes`` if asked for.

    What is doubtful in the file is logged as a warning.

    >>> import traincast as tc
    >>> tc.cluster("hgx-h100", nodes=16)
    Cluster(hgx-h100: 16 nodes × 8 NVIDIA H100 80GB HBM3 = 128 accelerators)

    Raises:
        InputError: no such file or preset, or lists every fault of the file.
        UsageError: the cluster cannot have so many nodes; or ``what`` is none of these.
    """
    _refuse_other("cluster", what, Cluster)
    found = what if isinstance(what, Cluster) else read_cluster(what)
    return found if nodes is None else found.with_nodes(nodes)


def accelerator(what: Accelerator | str | os.PathLike[str]) -> Accelerator:
    """The accelerator of a preset or of a YAML file of its own.

    >>> import traincast as tc
    >>> f"{tc.accelerator('h100-sxm').peak_flops['bf16'] / 1e12:.0f} TFLOP/s"
    '989 TFLOP/s'

    Raises:
        InputError: no such file or preset, or lists every fault of the file.
        UsageError: ``what`` is none of these.
    """
    _refuse_other("accelerator", what, Accelerator)
    return what if isinstance(what, Accelerator) else read_accelerator(what)


def model(what: ModelLike) -> Model:
    """The model of a preset (`llama3-8b`, `resnet50`), of a Hugging Face `config.json` or of a model file.

    >>> import traincast as tc
    >>> f"{tc.model('llama3-8b').parameters / 1e9:.2f} billion parameters"
    '8.03 billion parameters'

    Raises:
        InputError: no such preset or file, or a file that is no supported configuration.
        UsageError: ``what`` is none of these.
    """
    _refuse_other("model", what, Model)
    return what if isinstance(what, Model) else read_model(what)


def job_on(cluster: Cluster, what: Job | ModelLike, **arguments: Any) -> Job:
    """A valid Job for ``cluster``: in fp32 on processors where nobody says a precision, else in bf16.

    ``what`` is a Job, or a model whose job the ``arguments`` (fields of Job) say; None is a field's default.

    Raises:
        InputError: lists every rule that the job breaks.
        UsageError: there is no batch or no sequence length, or both a Job and arguments.
    """
    job = job_of(what, **arguments).on(cluster.accelerator.kind)
    if faults := job.faults():
        raise InputError(faults)
    return job


def job_of(what: Job | ModelLike, **arguments: Any) -> Job:
    """As `job_on`, for no cluster yet, and with rules that may be broken."""
    given = {name: value for name, value in arguments.items() if value is not None}
    refuse_unknown(given, JOB_FIELDS)
    if isinstance(what, Job):
        if given:
            raise UsageError(f"a Job says its own {', '.join(given)}; use dataclasses.replace to change it")
        return what
    if "global_batch" not in given:
        raise UsageError("a model needs --global-batch")
    return Job(model(what), **given)


def _refuse_other(what: str, given: object, kind: type) -> None:
    """Raise UsageError for what is neither of ``kind`` nor a text or path that stands for one."""
    if not isinstance(given, kind | str | os.PathLike):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        expected = f"{article} {kind.__name__}, a preset or a path"
        raise UsageError(f"{what} of type {type(given).__name__}: expected {expected}")


MAX_SAMPLES = 100_000
"""Steps that are drawn of one plan; a quantile needs no more."""


def check_counts(least: int, *, most: float = math.inf, **values: object) -> None:
    """Raise UsageError for a value that is no whole number from ``least`` to ``most``; None says nothing."""
    for name, value in values.items():
        if value is not None and not (is_whole(value) and least <= value <= most):  # type: ignore[operator]
            bounds = f"at least {least}" if most == math.inf else f"from {least} to {most:,}"
            raise UsageError(f"{name} {value!r}: expected a whole number, {bounds}")


def check_numbers(least: float = -math.inf, most: float = math.inf, **values: object) -> None:
    """Raise UsageError for a value that is no number from ``least`` to ``most``; None says nothing."""
    for name, value in values.items():
        if value is not None and not (is_number(value) and least <= value <= most):  # type: ignore[operator]
            bounds = "" if math.inf in (-least, most) else f" of {least:g} to {most:g}"
            raise UsageError(f"{name} {value!r}: expected a number{bounds}")


def refuse_unknown(given: dict[str, Any], known: tuple[str, ...]) -> None:
    """Raise UsageError for the first name that is none of ``known``."""
    for name in given:
        if name not in known:
            hint = did_you_mean(name, known)
            raise UsageError(f"{name} is no argument{f'; {hint}' if hint else ''}")
