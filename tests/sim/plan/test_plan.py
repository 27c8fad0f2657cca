"""The Plan as data: text form, rank grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traincast.sim.errors import InputError
from traincast.sim.plan.action import Action, Kind, parse_actions
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.strategy import Strategy

SINGLE = [kind for kind in Kind if kind is not Kind.OVERLAP]
actions = st.builds(Action, st.integers(0, 10**6), st.sampled_from(SINGLE), st.integers(-1, 10**6))


@given(actions | st.builds(Action.overlap, actions, actions))
def test_text_form_round_trips(action):
    assert Action.parse(str(action)) == action


@pytest.mark.parametrize("text", ["", "F0", "0", "0f0", "0X1", "0F-1", "0F0 ", "0F0x", "0 F0"])
def test_what_is_no_action_is_refused(text):
    if text.strip() != text:
        assert Action.parse(text) == Action(0, Kind.FORWARD, 0)
        return
    with pytest.raises(InputError, match="is not an action"):
        Action.parse(text)


def test_a_list_reads_back():
    text = "0F0 0SEND_F0 0RECV_B0 0B0 0REDUCE_GRAD1 0STEP"
    assert " ".join(map(str, parse_actions(text))) == text


def test_rank_grid_puts_tensor_parallel_neighbours_together(tiny_job):
    """[pp, dp, cp, tp], as Megatron-LM orders ranks."""
    plan = make_plan(tiny_job, Strategy(pp=2, dp=2, cp=2, tp=2))
    assert np.array_equal(plan.grid, np.arange(16).reshape(2, 2, 2, 2))
    assert plan.coordinates(11) == (1, 0, 1, 1)
    assert plan.rank_actions(11) == plan.actions[1]
