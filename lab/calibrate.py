"""This machine measured, and written as a cluster that plans can be predicted on."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path

from ..executor.calibrate.calibrate import LAYERS_S, Measurements, measure, merge
from ..executor.calibrate.needs import Needs
from ..sim.api.inputs import ModelLike, model
from ..sim.calibration.fit import fit_cluster
from ..sim.calibration.residuals import Correction, Run, correction
from ..sim.errors import InputError
from ..sim.hardware.cluster import Cluster
from ..sim.hardware.cluster_file import read_cluster
from ..sim.plan.plan import Plan
from ..sim.plan.plan_file import read_plan
from ..sim.predict.prediction import Prediction
from ..sim.predict.simulate import simulate
from ..sim.search.result_layout import CLUSTER, plan_name, trace_name
from ..sim.trace.trace_reader import read_trace
from .needs import needs, usual_needs

Progress = Callable[[str, float], None]
Titled = Callable[[str], AbstractContextManager[Progress]]
"""Gives, for a title, what is called with a text and the fraction done."""

PlanFile = Plan | Prediction | str | os.PathLike[str]
MOST_RUNS = 1000
"""Places of a ranking that are looked at."""
VISITS = 3
"""How often layers are profiled in all rounds."""
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
    plans: Sequence[PlanFile] = (),
    rounds: int = 2,
    progress: Titled = silent,
) -> Cluster:
    """Measure compute, memory, optimizer and transport of this machine, and fit a cluster to it.

    With ``plans``, or files of them, what they need and nothing else: their layers as they divide them, their
    collectives at their sizes. Without, whole layers of ``models`` in the sizes given, and all that two and
    four ranks may say to each other. Medians are taken over the ``rounds``. Needs torch, and takes a minute
    or two in all for small models.

    >>> import traincast as tc
    >>> tc.calibrate("tiny-llama-bytes", rounds=1)  # doctest: +SKIP
    Cluster(local-x86_64: 1 nodes × 4 cpu = 4 accelerators)

    Raises:
        InputError: there is no such model.
        RunError: a process of the calibration died or raised.
    """
    chosen = [model(name) for name in models or (SMALL_MODEL,)]
    wanted = needs(plan_of(one) for one in plans) if plans else usual_needs(chosen, seq_len, micro_batches)
    measured = [measure_round(wanted, number, rounds, progress) for number in range(rounds)]
    return fitted(measured, wanted.world_size if plans else 0)


def plan_of(plan: PlanFile) -> Plan:
    """A plan as it is, or read from its file.

    Raises:
        InputError: the file cannot be used.
    """
    if isinstance(plan, Prediction):
        return plan.plan
    return plan if isinstance(plan, Plan) else read_plan(plan)


def measure_round(
    wanted: Needs, number: int, rounds: int, progress: Titled, *, seconds: float = LAYERS_S, visits: int = 0
) -> Measurements:
    """One round of measurements, with progress; ``seconds`` is how long layers are profiled in all rounds, in
    so many ``visits`` of each, or, with 0, the more the fewer rounds there are."""
    with progress(f"calibrate {number + 1}/{rounds}") as say:
        return measure(
            wanted,
            say,
            seconds=seconds / rounds,
            again=number > 0,
            visits=visits or max(1, round(VISITS / rounds)),
        )


def fitted(measurements: Sequence[Measurements], ranks: int = 0) -> Cluster:
    """This machine as a cluster, on which up to ``ranks`` processes may be placed."""
    merged = merge(measurements).to_dict()
    cluster = fit_cluster(merged, name=machine_name(), date=date.today().isoformat())
    return replace(cluster, accelerators_per_node=max(ranks, cluster.accelerators_per_node))


def calibrate_from_runs(directory: str | os.PathLike[str]) -> tuple[Cluster, Correction]:
    """The cluster of a directory of results, with what its runs say of it as stated factors; and what these
    are worth on families of plans that they were not made from.

    >>> import traincast as tc
    >>> cluster, found = tc.calibrate_from_runs("out")  # doctest: +SKIP
    >>> found.factors["optimizer"]  # doctest: +SKIP
    1.04

    Raises:
        InputError: the directory holds no result, or none with runs of at least two families.
    """
    place = Path(directory)
    cluster = read_cluster(place / CLUSTER)
    runs = _runs(place)
    if len({run.family for run in runs}) < 2:
        raise InputError(
            f"{place}: runs of {len({run.family for run in runs})} families of plans; expected at least two,"
            " so that factors can be held against runs that they were not made from"
        )
    found = correction(runs, cluster, lambda plan, on: simulate(plan, on))
    return replace(cluster, corrections=dict(found.factors)), found


def _runs(place: Path) -> list[Run]:
    """Plans that were run, by their places in the ranking."""
    numbers = [number for number in range(1, MOST_RUNS + 1) if (place / plan_name(number)).exists()]
    return [
        Run(
            plan=read_plan(place / plan_name(number)),
            measured=read_trace(place / trace_name("measured", number)),
        )
        for number in numbers
        if (place / trace_name("measured", number)).exists()
    ]


def machine_name() -> str:
    """A name for this machine that says nothing private."""
    return f"local-{platform.machine()}"
