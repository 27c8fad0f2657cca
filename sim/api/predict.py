"""One step predicted: as a trace, and with its metrics."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..hardware.cluster import Cluster
from ..hardware.stragglers import merged, parse_slow
from ..plan.plan import Plan
from ..plan.strategy import Strategy
from ..predict import simulate as engines
from ..predict.metrics import Metrics
from ..predict.metrics import metrics as metrics_of
from ..predict.prediction import Prediction, prediction_of
from ..trace.trace import Trace
from . import inputs
from .inputs import MAX_SAMPLES, ClusterLike, check_counts, check_numbers
from .plans import PlanLike, plan_on

Slow = Mapping[int, float] | Sequence[str]
"""By number: how much slower; or texts, as `3=1.5`."""
MOST_JITTER = 10.0
"""A coefficient of variation beyond which nothing is known of anything."""


def simulate(
    what: PlanLike,
    cluster: ClusterLike,
    strategy: Strategy | None = None,
    *,
    engine: str = "compiled",
    samples: int = 0,
    seed: int = 0,
    stepwise: bool = False,
    network: str = engines.NETWORKS[0],
    spans: bool = True,
    jitter: float | None = None,
    slow_ranks: Slow = (),
    slow_nodes: Slow = (),
    slow_links: Slow = (),
    schedule_csv: str | os.PathLike[str] | None = None,
    **fields: Any,
) -> Trace:
    """The predicted trace of one step on ``cluster``.

    ``what`` is a Plan or the path of one; or a Job, or a model with its job's ``fields``, trained by
    ``strategy`` and what other ``fields`` change of it (`tp=8`). With ``samples`` > 0 so many steps are
    drawn, each with the cluster's jitter (or ``jitter``, a coefficient of variation) and the error that
    calibration leaves; the spans are those of a step without either. ``slow_ranks`` and ``slow_nodes``
    compute so many times as long, ``slow_links`` of a node keep a fraction of their bandwidth. ``stepwise``
    plays ring collectives step by step. ``engine`` is `compiled` or the reference, `simpy`, which gives the
    same; ``network`` is `closed-form` or `flow` (links shared by max-min fairness, message by message).
    Without ``spans`` the trace has none, which takes a fraction of the time.

    >>> import traincast as tc
    >>> trace = tc.simulate("llama3-8b", "hgx-h100", tp=4, pp=2, global_batch=32, seq_len=4096)
    >>> trace.source, trace.world_size, 1 < trace.step_time_s < 10
    ('predicted', 8, True)

    Raises:
        InputError: lists every broken rule; or there are more ranks than accelerators.
        UsageError: arguments that do not go together, or are unknown.
    """
    check_counts(0, most=MAX_SAMPLES, samples=samples)
    check_counts(0, seed=seed)
    slow = (slow_ranks, slow_nodes, slow_links)
    plan, machine = _prepared(what, cluster, strategy, jitter, slow, schedule_csv, fields)
    return engines.simulate(
        plan,
        machine,
        engine=engine,
        samples=samples,
        seed=seed,
        stepwise=stepwise,
        network=network,
        spans=spans,
    )


def predict(
    what: PlanLike,
    cluster: ClusterLike,
    strategy: Strategy | None = None,
    *,
    engine: str = "compiled",
    samples: int = 32,
    seed: int = 0,
    stepwise: bool = False,
    network: str = engines.NETWORKS[0],
    jitter: float | None = None,
    slow_ranks: Slow = (),
    slow_nodes: Slow = (),
    slow_links: Slow = (),
    schedule_csv: str | os.PathLike[str] | None = None,
    **fields: Any,
) -> Prediction:
    """As `simulate`, with the plan and its metrics next to the trace: MFU, bubble, communication, memory.

    >>> import traincast as tc
    >>> found = tc.predict("llama3-8b", "hgx-h100", tp=4, pp=2, global_batch=32, seq_len=4096)
    >>> found.plan.strategy.label, found.metrics.fits, 0.2 < found.metrics.mfu < 0.6
    ('tp4 pp2 1f1b mb1', True, True)

    Raises:
        InputError, UsageError: as `simulate`.
    """
    check_counts(0, most=MAX_SAMPLES, samples=samples)
    check_counts(0, seed=seed)
    slow = (slow_ranks, slow_nodes, slow_links)
    plan, machine = _prepared(what, cluster, strategy, jitter, slow, schedule_csv, fields)
    trace = engines.simulate(
        plan, machine, engine=engine, samples=samples, seed=seed, stepwise=stepwise, network=network
    )
    return prediction_of(plan, machine, trace)


def _prepared(
    what: PlanLike,
    cluster: ClusterLike,
    strategy: Strategy | None,
    jitter: float | None,
    slow: tuple[Slow, Slow, Slow],
    schedule_csv: str | os.PathLike[str] | None,
    fields: dict[str, Any],
) -> tuple[Plan, Cluster]:
    """The plan, and the cluster with who is slow in it."""
    check_numbers(0.0, MOST_JITTER, jitter=jitter)
    machine = inputs.cluster(cluster)
    plan = plan_on(machine, what, strategy, schedule_csv=schedule_csv, **fields)
    if jitter is None and not any(slow):
        return plan, machine
    texts = [_slow_texts(one) for one in slow]
    stragglers = parse_slow(*texts, ranks=plan.world_size, nodes=machine.nodes)
    spread = machine.jitter if jitter is None else jitter
    return plan, replace(machine, stragglers=merged(machine.stragglers, stragglers), jitter=spread)


def _slow_texts(slow: Slow) -> Sequence[str]:
    if isinstance(slow, Mapping):
        return [f"{place}={float(factor)!r}" for place, factor in slow.items()]
    return slow


def metrics(plan: Plan, cluster: ClusterLike, trace: Trace) -> Metrics:
    """The numbers of a predicted ``trace`` of ``plan``: throughput, utilisation, bubble, memory.

    >>> import traincast as tc
    >>> cluster = tc.cluster("hgx-h100")
    >>> plan = tc.make_plan(tc.Job("llama3-8b", global_batch=32, seq_len=4096), tp=4, pp=2)
    >>> tc.metrics(plan, cluster, tc.simulate(plan, cluster)).fits
    True
    """
    return metrics_of(plan, inputs.cluster(cluster), trace)
