"""Every lowering pass alone: lists of actions in, lists with one concern more out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from machines import job, llama

from traincast.sim.plan.action import parse_actions
from traincast.sim.plan.partition import partition
from traincast.sim.plan.passes.lists import repeat_steps
from traincast.sim.plan.passes.offload import add_offload
from traincast.sim.plan.passes.reductions import add_averaging, add_gradient_reduction
from traincast.sim.plan.passes.servers import add_push_and_pull, server_actions
from traincast.sim.plan.passes.transfers import add_transfers
from traincast.sim.plan.passes.unsharding import add_gathering, add_unsharding
from traincast.sim.plan.passes.updates import add_step
from traincast.sim.plan.plan import Portion
from traincast.sim.plan.strategy import Strategy

JOB = job(llama(layers=2), global_batch=2)
"""Layers: 0 embedding, 1 and 2 blocks, 3 head."""


def lists(*texts: str):
    return tuple(parse_actions(text) for text in texts)


def texts(actions) -> list[str]:
    return [" ".join(map(str, own)) for own in actions]


def test_transfers_go_to_other_ranks_only():
    """Stages 1 and 2 lie on one rank, as in ZBV."""
    assert texts(add_transfers(lists("0F0 0B0", "1F0 2F0 2B0 1B0"))) == [
        "0F0 0SEND_F0 0RECV_B0 0B0",
        "1RECV_F0 1F0 2F0 2B0 1B0 1SEND_B0",
    ]


def test_steps_are_repeated_with_micro_batches_numbered_on():
    assert texts(repeat_steps(lists("(0F0;0B1)OVERLAP_F_B 0W0"), 2, 2)) == [
        "(0F0;0B1)OVERLAP_F_B 0W0 (0F2;0B3)OVERLAP_F_B 0W2"
    ]


def test_parameters_are_gathered_before_every_pass_that_computes_with_them():
    assert texts(add_unsharding(lists("0F0 0I0 0W0"), True, 2)) == [
        "0UNSHARD2 0F0 0RESHARD 0UNSHARD2 0I0 0RESHARD 0W0"
    ]


def test_parameters_that_are_kept_are_gathered_once():
    assert texts(add_unsharding(lists("0F0 1F0 1B0 0B0"), False, 1)) == [
        "0UNSHARD1 0F0 1UNSHARD1 1F0 1B0 1RESHARD 0B0 0RESHARD"
    ]


def test_parameters_are_gathered_at_once_after_a_step():
    assert texts(add_gathering(lists("0F0 2F0 2B0 0B0 0STEP", "1F0 1B0 1STEP"))) == [
        "0F0 2F0 2B0 0B0 0STEP 0UNSHARD 2UNSHARD",
        "1F0 1B0 1STEP 1UNSHARD",
    ]


def test_gradients_are_reduced_after_the_last_backward_and_behind_its_message():
    stages = partition(JOB, Strategy(pp=2, dp=2, bucket_bytes=1))
    assert texts(
        add_gradient_reduction(lists("0F0 0F1 0B0 0B1", "1B0 1SEND_B0 1B1 1SEND_B1"), stages, 2)
    ) == [
        "0F0 0F1 0B0 0B1 0REDUCE_GRAD0 0REDUCE_GRAD1",
        "1B0 1SEND_B0 1B1 1SEND_B1 1REDUCE_GRAD0 1REDUCE_GRAD1",
    ]


def test_averages_are_of_ranks():
    assert texts(add_averaging(lists("0STEP", "1STEP"))) == ["0STEP 0AVERAGE", "1STEP 1AVERAGE"]


def test_a_rank_steps_after_the_backwards_of_all_its_stages():
    stages = partition(JOB, Strategy(pp=2))
    assert texts(add_step(lists("0B0 0REDUCE_GRAD0 0B1", "1B0 1SEND_B0 1B1"), stages, 1, tied=True)) == [
        "0B0 0REDUCE_GRAD0 0REDUCE_TIED 0STEP 0B1 0REDUCE_TIED 0STEP",
        "1B0 1SEND_B0 1REDUCE_TIED 1STEP 1B1 1REDUCE_TIED 1STEP",
    ]


@pytest.mark.parametrize(
    ("passes", "expected"),
    [
        ("0F0 0B0", "0F0 0OFFLOAD0 0FETCH0 0B0"),
        ("0F0 0F1 0B0 0B1", "0F0 0OFFLOAD0 0FETCH0 0F1 0OFFLOAD1 0FETCH1 0B0 0B1"),
        ("0F0 0F1 0I0 0I1 0W0 0W1", "0F0 0OFFLOAD0 0FETCH0 0F1 0OFFLOAD1 0FETCH1 0I0 0I1 0W0 0W1"),
        (
            "0F0 0F1 (0F2;0B0)OVERLAP_F_B 0B1 0B2",
            "0F0 0OFFLOAD0 0FETCH0 0F1 0OFFLOAD1 0FETCH1 (0F2;0B0)OVERLAP_F_B 0OFFLOAD2 0FETCH2 0B1 0B2",
        ),
    ],
)
def test_activations_leave_after_their_forward_and_come_back_one_pass_ahead(passes, expected):
    """Where the pass ahead is the forward that makes them, right after they have left."""
    assert texts(add_offload(lists(passes))) == [expected]


def test_workers_pull_first_and_push_last():
    assert texts(add_push_and_pull(lists("0F0 0B0"))) == ["0PULL 0F0 0B0 0PUSH"]
    by_bucket = add_push_and_pull(lists("0F0 0B0"), buckets=2)
    assert texts(by_bucket) == ["0PULL.0 0PULL.1 0F0 0B0 0PUSH.0 0PUSH.1"]


def test_servers_apply_all_gradients_once_or_each_as_it_comes():
    once = Strategy(dp=2, gradient_exchange="parameter_server", servers=1)
    each = replace(once, synchrony="stale:2")
    whole = [Portion(server=0, layers=(0, 1), bucket=-1, size_bytes=8.0)]
    halves = [Portion(server=0, layers=(1 - number,), bucket=number, size_bytes=4.0) for number in (0, 1)]
    assert texts(server_actions(once, whole)) == ["0PULL0 0PULL1 0PUSH0 0PUSH1 0APPLY"]
    assert texts(server_actions(each, whole)) == ["0PULL0 0PUSH0 0APPLY0 0PULL1 0PUSH1 0APPLY1"]
    assert texts(server_actions(once, halves)) == [
        "0PULL0.0 0PULL1.0 0PUSH0.0 0PUSH1.0 0APPLY.0 0PULL0.1 0PULL1.1 0PUSH0.1 0PUSH1.1 0APPLY.1"
    ]
    assert texts(server_actions(replace(each, dp=1), halves)) == [
        "0PULL0.0 0PUSH0.0 0APPLY0.0 0PULL0.1 0PUSH0.1 0APPLY0.1"
    ]
