"""Any valid plan is refused with a reason, or runs and gives the numbers of one process."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

pytest.importorskip("torch")

from agreement import assert_runs_and_agrees
from generators import jobs_and_strategies
from hypothesis import Phase, given, note, settings
from small_plans import small_plans

from traincast.executor.run.environment import check_environment, refused
from traincast.sim.errors import EnvironmentMismatchError
from traincast.sim.plan.job import Job
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.plan import Plan
from traincast.sim.plan.strategy import Strategy

pytestmark = pytest.mark.slow
NAMED = {field.name for field in (*fields(Strategy), *fields(Job))} | {"fp8", "fp16", "layers"}
EXAMPLES = 30


def assert_reasons_name_fields(reasons: list[str]) -> None:
    for reason in reasons:
        assert NAMED & set(re.findall(r"\w+", reason)), f"{reason!r} names no field"


@settings(max_examples=60, derandomize=True, deadline=None, database=None)
@given(drawn=jobs_and_strategies())
def test_reasons_name_fields_whatever_the_size(drawn: tuple[Job, Strategy]):
    """Of plans of up to 4 ranks in each dimension, which nobody runs here."""
    assert_reasons_name_fields(refused(make_plan(*drawn)))


@settings(max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, phases=[Phase.generate])
@given(plan=small_plans())
def test_any_plan_is_refused_with_a_reason_or_agrees(plan: Plan):
    note(f"{plan.job!r} {plan.job.model.decoder} {plan.strategy}")
    reasons = refused(plan)
    if not reasons:
        with TemporaryDirectory() as directory:
            assert_runs_and_agrees(plan, Path(directory))
        return
    assert_reasons_name_fields(reasons)
    with pytest.raises(EnvironmentMismatchError, match=re.escape(reasons[0])):
        check_environment(plan)
