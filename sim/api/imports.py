"""What other programs measured, taken over into clusters and accelerators."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..calibration.import_gemm_table import import_gemm_table as with_timings
from ..calibration.import_gemm_table import read_gemm_table
from ..calibration.import_nccl_tests import BUS_FACTORS, import_tables
from ..hardware.cluster import Accelerator, Cluster
from . import inputs
from .inputs import ClusterLike

PathLike = str | os.PathLike[str]

MEASURED_OPERATIONS = tuple(BUS_FACTORS)
"""Collectives that nccl-tests measures."""


def import_nccl_tests(
    files: PathLike | Sequence[PathLike],
    into: ClusterLike,
    *,
    operation: str = "",
    ranks: int = 0,
) -> Cluster:
    """The cluster ``into``, whose collectives take as long as nccl-tests (text or -J) measured.

    ``operation`` and ``ranks`` are needed where neither an output nor its file's name says them.

    >>> import traincast as tc
    >>> tc.import_nccl_tests([], into="hgx-h100").name
    'hgx-h100'

    Raises:
        InputError: a file with wrong or unchecked results, or with more than one table.
    """
    paths = [files] if isinstance(files, str | os.PathLike) else files
    return import_tables(
        inputs.cluster(into), [Path(path) for path in paths], operation=operation, ranks=ranks
    )


def import_gemm_table(file: PathLike, into: Accelerator | PathLike, *, device: str) -> Accelerator:
    """The accelerator ``into``, whose GEMMs take as long as ``file`` says of ``device``.

    The file is CSV (or .csv.gz) with the columns accelerator, dtype, m, n, k and time_us. Curves of
    precisions that it has no timings of stay.

    >>> import traincast as tc
    >>> tc.import_gemm_table("nowhere.csv", "l4", device="NVIDIA L4")
    Traceback (most recent call last):
    traincast.sim.errors.InputError: nowhere.csv: no such file

    Raises:
        InputError: no such file, or no timings of ``device`` in it.
    """
    path = Path(file)
    timings = read_gemm_table(path)
    source = f"timings of {device} in {path.name}"
    return with_timings(inputs.accelerator(into), timings, device=device, source=source)
