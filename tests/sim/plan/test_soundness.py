"""A plan is checked before anything runs, and the fault is shown where it is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from generators import jobs_and_strategies
from hypothesis import given, settings

from traincast.sim.errors import InputError
from traincast.sim.plan.action import parse_actions
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.soundness import validate
from traincast.sim.plan.strategy import Strategy


@settings(deadline=None)
@given(jobs_and_strategies())
def test_every_plan_we_make_is_sound(drawn):
    job, strategy = drawn
    validate(make_plan(job, strategy))


def with_stage(plan, stage: int, text: str):
    actions = list(plan.actions)
    actions[stage] = parse_actions(text)
    return replace(plan, actions=tuple(actions))


@pytest.fixture
def plan(tiny_job):
    return make_plan(tiny_job, Strategy(pp=2, micro_batch=4))


def test_deadlock_is_shown_on_the_grid(plan):
    """Stage 1 never sends the first gradient, so stage 0 waits for ever."""
    broken = with_stage(plan, 1, "1RECV_F0 1F0 1B0 1RECV_F1 1F1 1B1 1SEND_B1 1STEP")
    with pytest.raises(InputError) as caught:
        validate(broken)
    first, *grid = str(caught.value).splitlines()
    assert first == (
        "actions: ranks wait for each other: rank 0 waits at 0RECV_B0 for 1SEND_B0"
        " -> expected an order in which every receive has an earlier send"
    )
    assert [" ".join(line.split()) for line in grid] == [
        "time 0 1 2 3 4 5 6 7 8 9",
        "rank 0 0F0 0SEND_F0 0F1 0SEND_F1 . . . . . . 0RECV_B0 <-- ERROR HERE",
        "rank 1 . . 1RECV_F0 1F0 1B0 1RECV_F1 1F1 1B1 1SEND_B1 1STEP",
    ]


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ("1RECV_F0 1F0 1B0 1SEND_B0 1STEP", "actions[1]: nothing -> expected 1F1"),
        (
            "1RECV_F0 1F0 1F0 1B0 1SEND_B0 1RECV_F1 1F1 1B1 1SEND_B1 1STEP",
            "actions[1]: 1F0 2 times -> expected once",
        ),
        (
            "1RECV_F0 1F0 1B0 1SEND_B0 1RECV_F1 1F1 1B1 1SEND_B1 1F2 1STEP",
            "actions[1]: 1F2 -> expected micro-batches 0 to 1",
        ),
        (
            "1RECV_F0 1F0 1OFFLOAD0 1B0 1SEND_B0 1RECV_F1 1F1 1B1 1SEND_B1 1STEP",
            "actions[1]: 1OFFLOAD0 without 1FETCH0 -> expected both or none",
        ),
        (
            "1RECV_F0 1F0 1B0 1SEND_B0 1RECV_F1 1F1 1FETCH1 1B1 1SEND_B1 1STEP",
            "actions[1]: 1FETCH1 without 1OFFLOAD1 -> expected both or none",
        ),
        (
            "1RECV_F0 1F0 1B0 1SEND_B0 1RECV_F1 1F1 1B1 1SEND_B1 0RESHARD 1STEP",
            "actions[1]: 0RESHARD -> expected no action of stage 0, which rank 0 holds",
        ),
        (
            "1RECV_F0 1F0 1B0 1SEND_B0 1RECV_F1 1F1 1B1 1SEND_B1 0STEP",
            "actions[1]: 0STEP -> expected 1STEP, of the rank itself",
        ),
    ],
)
def test_wrong_actions_are_named(plan, actions, message):
    with pytest.raises(InputError) as caught:
        validate(with_stage(plan, 1, actions))
    assert message in str(caught.value).splitlines()


def test_backward_before_forward_is_found(plan):
    with pytest.raises(InputError, match="1B0 for 1F0"):
        validate(with_stage(plan, 1, "1RECV_F0 1B0 1F0 1SEND_B0 1RECV_F1 1F1 1B1 1SEND_B1 1STEP"))


def test_stages_must_hold_all_layers(plan):
    stages = (plan.stages[0], replace(plan.stages[1], end_layer=5))
    with pytest.raises(InputError, match="stages: 5 layers -> expected all 6 of the model"):
        validate(replace(plan, stages=stages))
