"""What the shared hypothesis strategies draw: every field that a dataclass has, with more than one value."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import fields

from generators import FIELDS, jobs_and_strategies
from hypothesis import HealthCheck, Phase, given, settings

from traincast.sim.plan.job import Job
from traincast.sim.plan.strategy import Strategy
from traincast.sim.plan.strategy_rules import strategy_faults


def test_strategies_of_any_fields_have_every_field():
    assert sorted(FIELDS) == sorted(field.name for field in fields(Strategy))


def test_valid_pairs_vary_every_field_of_both():
    """A field that a test never moves is a field that no property was tried on."""
    seen: dict[str, set[str]] = defaultdict(set)

    @settings(
        max_examples=600,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(jobs_and_strategies())
    def look(pair: tuple[Job, Strategy]) -> None:
        job, strategy = pair
        assert [*job.faults(), *strategy_faults(strategy, job)] == []
        for part in pair:
            for field in fields(part):
                seen[f"{type(part).__name__}.{field.name}"].add(repr(getattr(part, field.name)))

    look()
    wanted = {f"{kind.__name__}.{field.name}" for kind in (Job, Strategy) for field in fields(kind)}
    wanted -= {"Job.data", "Job.loss"}  # what a run reads and computes; nothing is predicted by their names
    assert {name for name, values in seen.items() if len(values) > 1} == wanted
