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

number = st.integers(0, 10**6)
maybe = st.integers(-1, 10**6)
PASSES = ["F", "B", "I", "W", "SEND_F", "RECV_F", "SEND_B", "RECV_B", "OFFLOAD", "FETCH"]
actions = st.one_of(
    st.builds(Action, number, st.sampled_from([Kind(kind) for kind in PASSES]), maybe),
    st.builds(Action.of, st.just(Kind.UNSHARD), stage=number, ahead=maybe),
    st.builds(Action.of, st.just(Kind.REDUCE_GRAD), stage=number, bucket=maybe),
    st.builds(
        Action.of,
        st.sampled_from([Kind.RESHARD, Kind.REDUCE_TIED]),
        stage=number,
    ),
    st.builds(Action.of, st.sampled_from([Kind.PULL, Kind.PUSH]), stage=number, bucket=maybe),
    st.builds(Action.of, st.sampled_from([Kind.STEP, Kind.AVERAGE]), rank=number),
    st.builds(Action.of, st.sampled_from([Kind.PULL, Kind.PUSH]), server=number, worker=number, bucket=maybe),
    st.builds(Action.of, st.just(Kind.APPLY), server=number, worker=maybe, bucket=maybe),
)


@given(actions | st.builds(Action.overlap, actions, actions))
def test_text_form_round_trips(action):
    assert Action.parse(str(action)) == action


def test_every_kind_but_overlap_is_read_with_what_its_numbers_stand_for():
    texts = "2F0 2B0 2I0 2W0 2SEND_F0 2RECV_F0 2SEND_B0 2RECV_B0 2OFFLOAD0 2FETCH0"
    texts += " 2UNSHARD1 2RESHARD 2REDUCE_GRAD0 2REDUCE_TIED"
    texts += " 0PULL 0PUSH 1PULL0 1PUSH0 1APPLY 2STEP 2AVERAGE"
    read = [Action.parse(text) for text in texts.split()]
    assert {action.kind for action in read} == set(Kind) - {Kind.OVERLAP}
    assert all(action.stage == 2 for action in read[:14])
    assert all(action.micro_batch == 0 for action in read[:10])
    assert (read[10].ahead, read[12].bucket) == (1, 0)
    assert [(action.server, action.worker) for action in read[14:19]] == [
        (-1, -1), (-1, -1), (1, 0), (1, 0), (1, -1),
    ]  # fmt: skip
    assert [(action.stage, action.rank) for action in read[19:]] == [(-1, 2), (-1, 2)]


def test_a_bucket_of_what_passes_to_and_from_servers_follows_a_point():
    read = [Action.parse(text) for text in ["0PUSH.3", "1PUSH0.3", "1APPLY.3", "1APPLY0.3"]]
    assert [(a.stage, a.server, a.worker, a.bucket) for a in read] == [
        (0, -1, -1, 3), (-1, 1, 0, 3), (-1, 1, -1, 3), (-1, 1, 0, 3),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text", ["", "F0", "0", "0f0", "0X1", "0F-1", "0F0 ", "0F0x", "0 F0", "0STEP1", "0F0.1", "0PUSH."]
)
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
