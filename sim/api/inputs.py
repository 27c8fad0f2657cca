"""What stands for a cluster, a model or a job, and what is filled in where nothing is said."""

from __future__ import annotations

import os
from dataclasses import fields
from typing import Any

from ..errors import InputError, UsageError
from ..files.document import did_you_mean
from ..hardware.cluster import Accelerator, Cluster
from ..hardware.cluster_file import read_accelerator, read_cluster
from ..model.hf_config import read_model
from ..model.model import Model
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
        UsageError: the cluster cannot have so many nodes.
    """
    found = what if isinstance(what, Cluster) else read_cluster(what)
    return found if nodes is None else found.with_nodes(nodes)


def accelerator(what: Accelerator | str | os.PathLike[str]) -> Accelerator:
    """The accelerator of a preset or of a YAML file of its own.

    >>> import traincast as tc
    >>> f"{tc.accelerator('h100-sxm').peak_flops['bf16'] / 1e12:.0f} TFLOP/s"
    '989 TFLOP/s'

    Raises:
        InputError: no such file or preset, or lists every fault of the file.
    """
    return what if isinstance(what, Accelerator) else read_accelerator(what)


def model(what: ModelLike) -> Model:
    """The model of a preset (`llama3-8b`, `resnet50`), of a Hugging Face `config.json` or of a model file.

    >>> import traincast as tc
    >>> f"{tc.model('llama3-8b').parameters / 1e9:.2f} billion parameters"
    '8.03 billion parameters'

    Raises:
        InputError: no such preset or file, or a file that is no supported configuration.
    """
    return what if isinstance(what, Model) else read_model(what)


def job_on(cluster: Cluster, what: Job | ModelLike, **arguments: Any) -> Job:
    """A valid Job for ``cluster``: in fp32 on processors where nobody says a precision, else in bf16.

    ``what`` is a Job, or a model whose job the ``arguments`` (fields of Job) say; None is a field's default.

    Raises:
        InputError: lists every rule that the job breaks.
        UsageError: there is no batch or no sequence length, or both a Job and arguments.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    refuse_unknown(given, JOB_FIELDS)
    if isinstance(what, Job):
        if given:
            raise UsageError(f"a Job says its own {', '.join(given)}; use dataclasses.replace to change it")
        job = what
    else:
        if "global_batch" not in given:
            raise UsageError("a model needs --global-batch")
        job = Job(what, **given)
    job = job.on(cluster.accelerator.kind)
    if faults := job.faults():
        raise InputError(faults)
    return job


def refuse_unknown(given: dict[str, Any], known: tuple[str, ...]) -> None:
    """Raise UsageError for the first name that is none of ``known``."""
    for name in given:
        if name not in known:
            hint = did_you_mean(name, known)
            raise UsageError(f"{name} is no argument{f'; {hint}' if hint else ''}")
