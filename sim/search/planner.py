"""Search for the best plan: enumerate, refuse what cannot be, bound from below, simulate best first.

Simulation goes on until no bound can beat the plans already found, so the best ones of the space are
found for certain, without simulating the rest or asking how much memory they need. Synchronous and
asynchronous plans are ranked apart. The result explains itself: what was refused by which rule, what was
bounded away, and why each runner-up lost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from ..costs.costs import Costs
from ..costs.lower_bound import lower_bound_s
from ..costs.remembered import Remembered
from ..errors import NoPlanError
from ..gc_pause import no_garbage_collection
from ..hardware.cluster import Cluster
from ..memory.peak import memory
from ..plan.job import Job
from ..plan.make_plan import make_plan, order_faults, sketch
from ..plan.plan import Plan
from ..plan.strategy import Strategy
from ..plan.strategy_rules import strategy_faults
from ..plan.synchrony import is_synchronous
from ..predict.prediction import prediction_of
from ..predict.simulate import simulate
from ..trace.trace import Trace
from .found import Search, in_rank

Progress = Callable[[str, float], None]
"""Called with what is being done and the fraction done."""


def search(
    job: Job,
    cluster: Cluster,
    strategies: Iterable[Strategy],
    *,
    top: int = 10,
    samples: int = 32,
    seed: int = 0,
    progress: Progress = lambda text, fraction: None,
) -> Search:
    """The ``top`` fastest of ``strategies`` for ``job`` on ``cluster``, proven by bounds; after them up to
    ``top`` asynchronous ones that take less than the slowest synchronous one listed.

    Raises:
        NoPlanError: nothing fits; says which came closest and what it is short of.
    """
    with no_garbage_collection():
        return _search(job, cluster, strategies, top, samples, seed, progress)


def _search(
    job: Job,
    cluster: Cluster,
    strategies: Iterable[Strategy],
    top: int,
    samples: int,
    seed: int,
    progress: Progress,
) -> Search:
    result = Search(job=job, cluster=cluster)
    bounds = _bounded(job, cluster, strategies, result, progress)
    fastest = {synchronous: _Fastest(top) for synchronous in (True, False)}
    leading = fastest[any(is_synchronous(strategy) for _, _, strategy in bounds)]
    closest: tuple[float, str] | None = None
    # Without jitter the samples cost nothing; with it, only the best are sampled, afterwards.
    sampled_later = cluster.jitter > 0
    for done, (bound, label, strategy) in enumerate(bounds):
        if bound >= leading.slowest_s:
            result.bounded += len(bounds) - done
            break
        own = fastest[is_synchronous(strategy)]
        if bound >= own.slowest_s:
            result.bounded += 1
            continue
        progress(f"simulated {done} of at most {len(bounds)}", 0.3 + 0.6 * done / len(bounds))
        short = max(place.short_bytes for place in memory(sketch(job, strategy), cluster))
        if short > 0:
            result.refusals["memory"] += 1
            closest = min(closest or (short, label), (short, label))
            continue
        plan = make_plan(job, strategy, cluster.facts())
        trace = simulate(plan, cluster, seed=seed, samples=0 if sampled_later else samples)
        own.add(trace.deterministic_step_time_s, label, plan, trace)
    best = [item for own in fastest.values() for item in own.found if item[0] <= leading.slowest_s]
    if not best:
        raise NoPlanError(_nothing_fits(cluster, closest, result))
    ranked = []
    for _, _, plan, first in best:
        trace = simulate(plan, cluster, seed=seed, samples=samples) if sampled_later else first
        ranked.append(prediction_of(plan, cluster, trace))
    # Jitter costs most where many wait for each other, so it may change the order of near ties.
    result.plans = in_rank(ranked)
    return result


class _Fastest:
    """Of the plans simulated so far the ``top`` fastest that are compared with each other."""

    def __init__(self, top: int):
        self.top = top
        self.found: list[tuple[float, str, Plan, Trace]] = []

    @property
    def slowest_s(self) -> float:
        """What a plan must take less than to be among them."""
        return self.found[-1][0] if len(self.found) >= self.top else math.inf

    def add(self, seconds: float, label: str, plan: Plan, trace: Trace) -> None:
        """Take it in, if it is among them; ties go by label."""
        self.found.append((seconds, label, plan, trace))
        self.found.sort(key=lambda item: item[:2])
        del self.found[self.top :]


def _bounded(
    job: Job, cluster: Cluster, strategies: Iterable[Strategy], result: Search, progress: Progress
) -> list[tuple[float, str, Strategy]]:
    """Strategies that are valid, with the lower bound of their step time, lowest first.

    Whether they fit in memory is asked later, and only of those that could be among the best.
    """
    bounds: list[tuple[float, str, Strategy]] = []
    remembered = Remembered()
    everything = list(strategies)
    for number, strategy in enumerate(everything):
        result.considered += 1
        if number % 64 == 0:
            progress(f"considered {number} of {len(everything)}", 0.3 * number / len(everything))
        faults = [*job.faults(), *strategy_faults(strategy, job)]
        if not faults:
            faults = order_faults(strategy, strategy.micro_batches(job))
        if faults:
            result.refusals[_rule(faults[0].path)] += 1
            continue
        costs = Costs(cluster, job, strategy, remembered)
        bounds.append((lower_bound_s(costs, job, strategy), strategy.label, strategy))
    return sorted(bounds, key=lambda item: item[:2])


def _rule(path: str) -> str:
    degrees = ("job.global_batch", *(f"strategy.{name}" for name in ("tp", "pp", "vp", "cp", "ep")))
    return "divisibility" if path.startswith(degrees) else path


def _nothing_fits(cluster: Cluster, closest: tuple[float, str] | None, result: Search) -> str:
    refusals = ", ".join(f"{rule} {count}" for rule, count in result.refusals.most_common())
    text = f"no plan fits: {result.considered} strategies considered, all refused ({refusals})"
    if closest:
        short, label = closest
        have = cluster.accelerator.memory_bytes
        text += (
            f"; closest is {label}, short of {short / 2**30:.1f} GiB of the {have / 2**30:.1f} GiB"
            f" on {cluster.accelerator.name}\n"
            "  hint: use more nodes, a smaller --global-batch, or --precision bf16"
        )
    return text
