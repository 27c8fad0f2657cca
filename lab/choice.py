"""Which plans are run to judge predictions by: what runs here, and of that what tells families apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product

from ..sim.errors import EnvironmentMismatchError
from ..sim.plan.family import family
from ..sim.plan.job import Job
from ..sim.plan.make_plan import make_plan
from ..sim.plan.plan import Plan
from ..sim.plan.strategy import Strategy
from .calibrate import Progress
from .families import kind


def runnable(job: Job, strategies: Sequence[Strategy], say: Progress) -> list[Strategy]:
    """Those of ``strategies`` that this machine can run; ``say`` is told how far it is."""
    from ..executor.run.environment import check_environment

    found = []
    for number, strategy in enumerate(strategies):
        say(strategy.label, number / len(strategies))
        try:
            check_environment(make_plan(job, strategy))
        except EnvironmentMismatchError:
            continue
        found.append(strategy)
    return found


def choose(ranked: Iterable[Plan], most: int) -> list[Plan]:
    """The best plan of each family, ``most`` in all, the most different families first.

    ``ranked`` are plans, best first. Of each kind of family (`kind`) one comes in turn: kinds that share work
    out in one way before their products, and of these the ones that recompute last.
    """
    best: dict[str, Plan] = {}
    for plan in ranked:
        best.setdefault(family(plan.strategy), plan)
    kinds: dict[tuple[str, ...], list[Plan]] = {}
    for plan in best.values():
        kinds.setdefault(kind(plan.strategy), []).append(plan)
    waiting = [kinds[one] for one in sorted(kinds, key=lambda one: (len(one), "recompute" in one))]
    turns = product(range(max(map(len, waiting), default=0)), waiting)
    return [own[turn] for turn, own in turns if turn < len(own)][:most]
