"""The best plans of a job on a cluster, and the space they are looked for in."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..display import draw
from ..plan.job import Job
from ..plan.strategy import Strategy
from ..search.found import Search
from ..search.planner import Progress, search
from ..search.result import write_result
from ..search.result_layout import prepare_directory
from ..search.space import strategies as space
from . import inputs
from .inputs import MAX_SAMPLES, ClusterLike, ModelLike, check_counts, job_on
from .plans import typed


def strategies(job: Job | ModelLike, cluster: ClusterLike, **arguments: Any) -> Iterable[Strategy]:
    """Every strategy that `plan` looks at, valid or not; the search refuses what breaks a rule.

    >>> import traincast as tc
    >>> job = tc.Job("gpt2", global_batch=64, seq_len=1024)
    >>> "dp8 mb8" in [strategy.label for strategy in tc.strategies(job, tc.cluster("dgx-a100", nodes=1))]
    True
    """
    machine = inputs.cluster(cluster)
    return space(job_on(machine, job, **arguments), machine)


def plan(
    job: Job | ModelLike,
    cluster: ClusterLike,
    strategies: Iterable[Strategy] | None = None,
    *,
    top: int = 10,
    samples: int = 32,
    seed: int = 0,
    progress: Progress = lambda text, fraction: None,
    output: str | os.PathLike[str] | None = None,
    force: bool = False,
    **arguments: Any,
) -> Search:
    """The ``top`` fastest ways to train ``job`` on ``cluster``, proven by bounds.

    Asynchronous updates are not worth synchronous steps, so they are ranked apart: up to ``top`` come after
    these, if they take less than the slowest of them.
    ``strategies`` are those of the whole space where none are given; ``arguments`` are the fields of a Job
    where ``job`` is a model. Plans, traces and a report are written to the directory ``output`` if given;
    with ``force`` an earlier result in it is replaced. ``progress`` is called with a text and the fraction
    done.

    >>> import traincast as tc
    >>> job = tc.Job("gpt2", global_batch=64, seq_len=1024)
    >>> found = tc.plan(job, tc.cluster("dgx-a100", nodes=1), top=3, samples=4)
    >>> len(found.plans), found.best.plan.world_size, found.best.metrics.fits
    (3, 8, True)
    >>> [one.why_not[0] for one in found.plans[1:]]
    ['+', '+']

    Raises:
        NoPlanError: nothing fits; says which came closest and what it is short of.
        InputError: the job breaks a rule.
        UsageError: ``output`` holds results and ``force`` is not given, or cannot be written.
    """
    check_counts(1, top=top)
    check_counts(0, most=MAX_SAMPLES, samples=samples)
    check_counts(0, seed=seed)
    if isinstance(strategies, Strategy):
        strategies = (strategies,)
    machine = inputs.cluster(cluster)
    whole = job_on(machine, job, **arguments)
    if output is not None:
        prepare_directory(Path(output), force, plans=2 * top)
    tried = space(whole, machine) if strategies is None else map(typed, strategies)
    found = search(whole, machine, tried, top=top, samples=samples, seed=seed, progress=progress)
    if output is not None:
        write_result(Path(output), found, seed=seed, page=_page, force=force)
    return found


def _page(directory: Path, path: Path) -> None:
    """The report of a directory."""
    draw("page", directory, path)
