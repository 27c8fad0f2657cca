"""This machine measured, and written as a cluster that plans can be predicted on."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import date

from ..executor.calibrate.calibrate import Measurements, measure, merge
from ..sim.api.inputs import ModelLike, model
from ..sim.calibration.fit import fit_cluster
from ..sim.hardware.cluster import Cluster
from ..sim.model.model import Model

Progress = Callable[[str, float], None]
Titled = Callable[[str], AbstractContextManager[Progress]]
"""Gives, for a title, what is called with a text and the fraction done."""

SMALL_MODEL = "tiny-llama-bytes"
"""Whose layers are profiled where nobody names a model."""


@contextmanager
def silent(title: str) -> Iterator[Progress]:
    """Tells nobody."""
    yield lambda text, fraction: None


def calibrate(
    *models: ModelLike,
    seq_len: int = 128,
    micro_batches: Sequence[int] = (1, 4),
    rounds: int = 2,
    progress: Titled = silent,
) -> Cluster:
    """Measure compute, memory, optimizer and transport of this machine, and fit a cluster to it.

    Layers of ``models`` are profiled in the sizes given; medians are taken over the ``rounds``. Needs
    torch, and takes half a minute a round for a small model.

    >>> import traincast as tc
    >>> tc.calibrate("tiny-llama-bytes", rounds=1)  # doctest: +SKIP
    Cluster(local-x86_64: 1 nodes × 4 cpu = 4 accelerators)

    Raises:
        InputError: there is no such model.
        RunError: a process of the calibration died or raised.
    """
    chosen = [model(name) for name in models or (SMALL_MODEL,)]
    measured = [
        measure_round(chosen, seq_len, micro_batches, number, rounds, progress) for number in range(rounds)
    ]
    return fitted(measured)


def measure_round(
    models: Sequence[Model],
    seq_len: int,
    micro_batches: Sequence[int],
    number: int,
    rounds: int,
    progress: Titled,
) -> Measurements:
    """One round of measurements, with progress."""
    with progress(f"calibrate {number + 1}/{rounds}") as say:
        return measure(models=models, seq_len=seq_len, micro_batches=micro_batches, on_progress=say)


def fitted(measurements: Sequence[Measurements], ranks: int = 0) -> Cluster:
    """This machine as a cluster, on which up to ``ranks`` processes may be placed."""
    merged = merge(measurements).to_dict()
    cluster = fit_cluster(merged, name=machine_name(), date=date.today().isoformat())
    return replace(cluster, accelerators_per_node=max(ranks, cluster.accelerators_per_node))


def machine_name() -> str:
    """A name for this machine that says nothing private."""
    return f"local-{platform.machine()}"
