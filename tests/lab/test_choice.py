"""Which plans are run: of every kind of family one before any has a second, and nothing that is refused."""

import pytest

from traincast.executor.run import environment
from traincast.lab.choice import choose, runnable
from traincast.lab.families import kind, ways
from traincast.sim.errors import EnvironmentMismatchError
from traincast.sim.plan.family import family
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.strategy import Strategy

KINDS = {
    (),
    ("replicas",),
    ("sharded states",),
    ("sharded parameters",),
    ("local SGD",),
    ("servers",),
    ("asynchronous servers",),
    ("tensor parallel",),
    ("sequence parallel",),
    ("context parallel",),
    ("pipeline",),
    ("several stages a rank",),
    ("halved backwards",),
    ("undrained pipeline",),
}
"""That share work out in one way."""


@pytest.fixture(scope="module")
def plans(tiny_job):
    """A plan of every way, in no order of merit."""
    return [make_plan(tiny_job, strategy) for strategy in ways(tiny_job, 4)]


def test_the_most_different_families_come_first(plans):
    """One of each kind, then products; recomputation is no way to share work out."""
    chosen = [plan.strategy for plan in choose(plans, len(KINDS) + 2)]
    assert {kind(one) for one in chosen[: len(KINDS)]} == KINDS
    assert all(len(kind(one)) == 2 for one in chosen[len(KINDS) :])
    assert not any(one.recompute != "none" for one in chosen)


def test_every_family_has_its_best(plans):
    """Each once: the plan that comes first in the ranking."""
    chosen = choose(plans, len(plans))
    assert [family(plan.strategy) for plan in chosen] == list(
        dict.fromkeys(family(p.strategy) for p in chosen)
    )
    for plan in chosen:
        alike = [one for one in plans if family(one.strategy) == family(plan.strategy)]
        assert plan is alike[0]


def test_nothing_chosen_of_nothing():
    assert choose([], 5) == []


def test_what_is_refused_here_is_left_out(tiny_job, monkeypatch):
    """By the executor's own check, with progress."""

    def check(plan):
        if plan.strategy.tp > 1:
            raise EnvironmentMismatchError("no tensor parallelism")

    monkeypatch.setattr(environment, "check_environment", check)
    said = []
    space = [Strategy(), Strategy(tp=2), Strategy(dp=2)]
    assert runnable(tiny_job, space, lambda text, fraction: said.append((text, fraction))) == [
        space[0],
        space[2],
    ]
    assert [fraction for _, fraction in said] == [0, 1 / 3, 2 / 3]
