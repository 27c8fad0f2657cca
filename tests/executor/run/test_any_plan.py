"""Any valid plan is refused with a reason, or runs and gives the numbers of one process."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

pytest.importorskip("torch")

from agreement import assert_runs_and_agrees
from hypothesis import Phase, given, note, settings
from small_plans import small_plans

from traincast.executor.run.environment import check_environment, refused
from traincast.sim.errors import EnvironmentMismatchError
from traincast.sim.plan.job import Job
from traincast.sim.plan.plan import Plan
from traincast.sim.plan.strategy import Strategy

pytestmark = pytest.mark.slow
NAMED = {field.name for field in (*fields(Strategy), *fields(Job))} | {"fp8", "fp16", "layers"}
EXAMPLES = 30


@settings(max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, phases=[Phase.generate])
@given(plan=small_plans())
def test_any_plan_is_refused_with_a_reason_or_agrees(plan: Plan):
    note(f"{plan.job!r} {plan.job.model.decoder} {plan.strategy}")
    reasons = refused(plan)
    if not reasons:
        with TemporaryDirectory() as directory:
            assert_runs_and_agrees(plan, Path(directory))
        return
    for reason in reasons:
        assert NAMED & set(re.findall(r"\w+", reason)), f"{reason!r} names no field"
    with pytest.raises(EnvironmentMismatchError, match=re.escape(reasons[0])):
        check_environment(plan)
