"""Plans completed: a job and a strategy of whatever form, with what their cluster adds."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..costs.pass_costs import pass_times
from ..errors import InputError, UsageError
from ..hardware.cluster import Cluster
from ..plan.field_types import type_faults
from ..plan.job import Job
from ..plan.make_plan import make_plan as lowered
from ..plan.plan import Plan
from ..plan.plan_file import read_plan
from ..plan.schedule_csv import read_schedule_csv
from ..plan.schedules import CARRIED, find_schedule
from ..plan.soundness import validate
from ..plan.strategy import Strategy
from ..plan.strategy_rules import strategy_faults
from ..predict.prediction import Prediction
from ..predict.world_size import refuse_too_many_ranks
from . import inputs
from .inputs import JOB_FIELDS, STRATEGY_FIELDS, ClusterLike, ModelLike, job_of, job_on, refuse_unknown

PlanLike = Plan | Prediction | Job | ModelLike
"""A Plan or a file of one, one that was predicted, a Job, or a model whose job is said beside it."""


def make_plan(
    job: Job | ModelLike,
    strategy: Strategy | None = None,
    cluster: ClusterLike | None = None,
    *,
    schedule_csv: str | os.PathLike[str] | None = None,
    **fields: Any,
) -> Plan:
    """The plan of ``job`` by ``strategy``: stages, and what every rank does in order.

    ``fields`` are fields of Strategy that change ``strategy``, and, where ``job`` is a model, fields of Job.
    ``schedule_csv`` is a file with the order of passes in PyTorch's format. Schedules that arrange themselves
    (zb-1p, zb-2p) look at seconds, so they need the ``cluster``; the others may do without.

    >>> import traincast as tc
    >>> job = tc.Job("llama3-8b", global_batch=32, seq_len=4096)
    >>> tc.make_plan(job, tp=4, pp=2)
    Plan(llama3-8b: tp4 pp2 1f1b mb1, 8 ranks, 2 stages, 32 micro-batches)

    Raises:
        InputError: lists every broken rule; or there are more ranks than accelerators.
        UsageError: the schedule needs a cluster, or an argument is unknown.
    """
    refuse_unknown(fields, JOB_FIELDS + STRATEGY_FIELDS)
    chosen = _strategy(strategy, schedule_csv, fields)
    arguments = {name: value for name, value in fields.items() if name in JOB_FIELDS}
    if cluster is None:
        return _without_cluster(job, chosen, schedule_csv, arguments)
    machine = inputs.cluster(cluster)
    return _completed(job_on(machine, job, **arguments), chosen, machine, schedule_csv)


def _strategy(
    strategy: Strategy | None, schedule_csv: str | os.PathLike[str] | None, fields: dict[str, Any]
) -> Strategy:
    changed = {name: value for name, value in fields.items() if name in STRATEGY_FIELDS}
    if schedule_csv:
        changed["schedule"] = CARRIED
    if "stage_layers" in changed:
        changed["stage_layers"] = tuple(changed["stage_layers"])
    return typed(replace(typed(Strategy() if strategy is None else strategy), **changed))


def typed(strategy: Strategy) -> Strategy:
    """``strategy``, whose rules may be calculated with.

    Raises:
        UsageError: it is none.
        InputError: lists every field of a wrong type.
    """
    if not isinstance(strategy, Strategy):
        raise UsageError(f"strategy of type {type(strategy).__name__}: expected a Strategy")
    if faults := type_faults(strategy, "strategy"):
        raise InputError(faults)
    return strategy


def _without_cluster(
    job: Job | ModelLike, strategy: Strategy, schedule_csv: str | os.PathLike[str] | None, arguments: dict
) -> Plan:
    whole = job_of(job, **arguments)
    if schedule_csv:
        return _ordered(whole, strategy, {}, schedule_csv)
    if not strategy_faults(strategy, whole) and find_schedule(strategy.schedule).arranged_by_times:
        raise UsageError(
            f"schedule {strategy.schedule} arranges itself by the seconds of its passes; say on which cluster"
        )
    return lowered(whole, strategy)


def _completed(
    job: Job, strategy: Strategy, cluster: Cluster, schedule_csv: str | os.PathLike[str] | None
) -> Plan:
    """The plan for ``cluster``, which tells schedules that arrange themselves what passes take."""
    refuse_too_many_ranks(strategy, cluster)
    if schedule_csv:
        return _ordered(job, strategy, cluster.facts(), schedule_csv)
    times = None
    faults = [*job.faults(), *strategy_faults(strategy, job)]
    if not faults and find_schedule(strategy.schedule).arranged_by_times:
        times = pass_times(job, strategy, cluster)
    return lowered(job, strategy, cluster.facts(), times=times)


def _ordered(
    job: Job, strategy: Strategy, facts: dict[str, object], schedule_csv: str | os.PathLike[str]
) -> Plan:
    """The plan whose passes are in the order of a file, which may be a wrong one."""
    plan = lowered(job, strategy, facts, orders=read_schedule_csv(schedule_csv))
    validate(plan)
    return plan


def plan_on(
    cluster: Cluster,
    what: PlanLike,
    strategy: Strategy | None = None,
    *,
    schedule_csv: str | os.PathLike[str] | None = None,
    **fields: Any,
) -> Plan:
    """The plan that ``what`` is, or the one that the rest makes of it on ``cluster``.

    Raises:
        InputError: as `make_plan`; or a plan's file cannot be used.
        UsageError: as `make_plan`; or a plan is given, which says itself what else is given too.
    """
    if isinstance(what, Prediction):
        what = what.plan
    elif not isinstance(what, Plan | Job) and is_plan_file(what):
        what = read_plan(what)  # type: ignore[arg-type]
    if isinstance(what, Plan):
        said = [*fields, *(["strategy"] if strategy else []), *(["schedule_csv"] if schedule_csv else [])]
        if said:
            raise UsageError(f"a plan says its own {', '.join(said)}; give the model or job instead")
        refuse_too_many_ranks(what.strategy, cluster)
        return replace(what, cluster=cluster.facts())
    return make_plan(what, strategy, cluster, schedule_csv=schedule_csv, **fields)


def is_plan_file(what: object) -> bool:
    """Whether a JSON file says that it is a plan; a model's config.json does not."""
    if not isinstance(what, str | os.PathLike):
        return False
    path = Path(what)
    if path.suffix != ".json" or not path.is_file():
        return False
    with path.open("rb") as file:
        return b"traincast.plan/" in file.read(4096)
