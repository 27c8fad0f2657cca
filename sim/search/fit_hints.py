"""What to change where a plan does not fit in memory, and how far it could still grow where it does.

Changes of the strategy are tried by the model itself, one by one, and two together where none is enough:
each says what it saves and what it costs in step time. Those of a search's space that are not one of these
changes away are found by `traincast plan`. The number of accelerators stays, unless some are
idle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import combinations

from ..costs.costs import Costs
from ..costs.lower_bound import lower_bound_s
from ..costs.pass_costs import pass_times
from ..costs.remembered import Remembered
from ..hardware.cluster import Cluster
from ..memory.peak import memory
from ..plan.job import Job
from ..plan.make_plan import make_plan, order_faults, sketch
from ..plan.pass_times import PassTimes
from ..plan.plan import Plan
from ..plan.schedules import CARRIED, find_schedule
from ..plan.strategy import Strategy
from ..plan.strategy_rules import strategy_faults
from ..predict.simulate import simulate
from .space import divisors

FACTORS = (2, 4, 8)
"""By how much a degree is raised or a micro-batch divided."""
MOST_SIMULATED = 12
"""Strategies whose step time is simulated; those with the lowest bounds."""
_IMPLIED = ("reshard_after_forward",)
MOST_TOGETHER = 3
"""Changes at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """One change that makes a plan fit."""

    changes: dict[str, object]
    """Fields of the strategy and their new values."""
    strategy: Strategy
    peak_bytes: float
    """Of the fullest rank after the change."""
    saved_bytes: float
    """Less than before, on the fullest rank."""
    step_time_s: float
    slower: float
    """Step time over that of the plan as it is, minus 1."""

    @property
    def text(self) -> str:
        """As `dp 2, tp 4, sequence-parallel`, by the names of the options."""
        said = [
            (name.replace("_", "-"), value) for name, value in self.changes.items() if name not in _IMPLIED
        ]
        return ", ".join(name if value is True else f"{name} {value}" for name, value in said)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change of a strategy."""

    what: str
    """The field it changes."""
    apply: Callable[[Strategy], Strategy | None]
    """None where it cannot be made."""


def hints(plan: Plan, cluster: Cluster, *, most: int = 8) -> tuple[Hint, ...]:
    """Changes with which ``plan`` fits ``cluster``, the fastest first; none where its order is its own (csv).

    One or two together, three where those are not enough. What fits without one of its changes, and is no
    slower so, is left out.
    """
    if plan.strategy.schedule == CARRIED:
        return ()
    changes = list(_changes(plan.strategy, plan.job, cluster))
    known, found = {plan.strategy}, []
    for together in range(1, MOST_TOGETHER + 1):
        if together <= 2 or len(found) < most:
            found += _fitting(plan.job, cluster, _combined(plan.strategy, changes, together), known)
    remembered = Remembered()
    found.sort(key=lambda item: _bound_s(plan.job, cluster, item.strategy, remembered))
    before = simulate(plan, cluster, samples=0).step_time_s
    peak = max(place.total_bytes for place in memory(plan, cluster))
    made = [_hint(plan, cluster, item, peak, before) for item in found[:MOST_SIMULATED]]
    return tuple(_needed(sorted(made, key=lambda hint: (hint.step_time_s, hint.text)))[:most])


def _needed(fastest_first: list[Hint]) -> list[Hint]:
    """Without those that a part of their changes makes as fast."""
    kept: list[Hint] = []
    for hint in fastest_first:
        if not any(_own(other) < _own(hint) for other in kept):
            kept.append(hint)
    return kept


def _own(hint: Hint) -> set[tuple[str, object]]:
    """Its changes but for the replicas, which only make room for them."""
    return {change for change in hint.changes.items() if change[0] != "dp"}


def largest_micro_batch(plan: Plan, cluster: Cluster) -> tuple[int, float]:
    """The largest micro-batch with which ``plan`` still fits, and the peak of its fullest rank (bytes).

    Its own where no larger one does.
    """
    strategy, job = plan.strategy, plan.job
    best = strategy.micro_batch, max(place.total_bytes for place in memory(plan, cluster))
    if strategy.schedule == CARRIED:
        return best
    for size in divisors(job.global_batch // strategy.dp):
        if size > strategy.micro_batch:
            peak = _peak_if_it_fits(job, replace(strategy, micro_batch=size), cluster)
            if peak is None:
                break
            best = size, peak
    return best


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fitting:
    """A strategy with which a plan fits."""

    strategy: Strategy
    peak_bytes: float


def _fitting(
    job: Job, cluster: Cluster, tried: Iterator[Strategy | None], known: set[Strategy]
) -> list[_Fitting]:
    """Those of ``tried`` that are valid, new and fit."""
    found: list[_Fitting] = []
    for strategy in tried:
        if strategy is None or strategy in known:
            continue
        known.add(strategy)
        peak = _peak_if_it_fits(job, strategy, cluster)
        if peak is not None:
            found.append(_Fitting(strategy=strategy, peak_bytes=peak))
    return found


def _combined(strategy: Strategy, changes: list[Change], together: int) -> Iterator[Strategy | None]:
    """So many changes one after the other, of which none undoes another."""
    for chosen in combinations(changes, together):
        if len({change.what for change in chosen}) < together:
            continue
        changed: Strategy | None = strategy
        for change in chosen:
            changed = changed and change.apply(changed)
        yield changed


def _bound_s(job: Job, cluster: Cluster, strategy: Strategy, remembered: Remembered) -> float:
    return lower_bound_s(Costs(cluster, job, strategy, remembered), job, strategy)


def _peak_if_it_fits(job: Job, strategy: Strategy, cluster: Cluster) -> float | None:
    """Peak of the fullest rank (bytes); None where the strategy is against a rule or does not fit."""
    if strategy.world_size > cluster.accelerators or strategy_faults(strategy, job):
        return None
    if order_faults(strategy, strategy.micro_batches(job)):
        return None
    plan = make_plan(job, strategy, times=_times(job, strategy, cluster)) if _arranges(strategy) else None
    places = memory(plan or sketch(job, strategy), cluster)
    return max(p.total_bytes for p in places) if all(p.fits for p in places) else None


def _arranges(strategy: Strategy) -> bool:
    return find_schedule(strategy.schedule).arranged_by_times


def _times(job: Job, strategy: Strategy, cluster: Cluster) -> PassTimes | None:
    """Seconds of the passes, for a schedule that looks at them."""
    return pass_times(job, strategy, cluster) if _arranges(strategy) else None


def _hint(plan: Plan, cluster: Cluster, found: _Fitting, peak: float, before: float) -> Hint:
    changed = make_plan(plan.job, found.strategy, times=_times(plan.job, found.strategy, cluster))
    step = simulate(changed, cluster, samples=0).step_time_s
    old, new = asdict(plan.strategy), asdict(found.strategy)
    return Hint(
        changes={name: new[name] for name in old if old[name] != new[name]},
        strategy=found.strategy,
        peak_bytes=found.peak_bytes,
        saved_bytes=peak - found.peak_bytes,
        step_time_s=step,
        slower=step / before - 1,
    )


def _changes(strategy: Strategy, job: Job, cluster: Cluster) -> Iterator[Change]:
    """All that may save memory, the mildest first."""
    yield Change(what="sequence_parallel", apply=_sequence_parallel)
    for policy in ("selective", "full"):
        yield _set("recompute", policy)
    for kind in ("zero1", "zero2", "fsdp"):
        yield Change(what="sharding", apply=lambda s, kind=kind: _sharded(s, kind))
    for factor in FACTORS:
        yield _set("micro_batch", max(1, strategy.micro_batch // factor))
    for degree in ("tp", "pp", "cp"):
        for factor in FACTORS:
            yield _raised(degree, factor, cluster)
    if job.model.decoder.experts:
        for factor in FACTORS:
            yield _set("ep", strategy.ep * factor)
    for kind in ("optimizer", "activations", "both"):
        yield _set("offload", kind)


def _set(field: str, value: object) -> Change:
    return Change(what=field, apply=lambda s: replace(s, **{field: value}))


def _sequence_parallel(strategy: Strategy) -> Strategy | None:
    return replace(strategy, sequence_parallel=True) if strategy.tp > 1 else None


def _sharded(strategy: Strategy, kind: str) -> Strategy | None:
    """Over the replicas, where there are several and they exchange gradients among themselves."""
    if strategy.replicas == 1 or strategy.gradient_exchange != "allreduce":
        return None
    return replace(strategy, sharding=kind, shard_degree=0, reshard_after_forward=strategy.pp == 1)


def _raised(degree: str, factor: int, cluster: Cluster) -> Change:
    """A degree times ``factor``: on idle accelerators, or taken from the replicas where there are too few."""

    def apply(s: Strategy) -> Strategy | None:
        raised = {degree: getattr(s, degree) * factor}
        if s.world_size * factor <= cluster.accelerators:
            return replace(s, **raised)
        return replace(s, **raised, dp=s.dp // factor) if s.dp % factor == 0 else None

    return Change(what=degree, apply=apply)
