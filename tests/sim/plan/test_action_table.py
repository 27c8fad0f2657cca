"""Actions as columns are the actions of lists: the same rows, the same plans, equal and hashed alike."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
from machines import job, llama

from traincast.sim.plan import make_plan as making
from traincast.sim.plan.action import Action, Kind, parse_actions
from traincast.sim.plan.action_table import ActionList, table_from, table_of, with_more
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.passes.tables import table_of_passes
from traincast.sim.plan.plan import Plan
from traincast.sim.plan.plan_file import read_plan, write_plan
from traincast.sim.plan.schedules import PipelineShape, schedules
from traincast.sim.plan.strategy import Strategy

REGULAR = [one for one in schedules() if one.order_arrays and one.unflushed is None]


def from_lists(*arguments: Any) -> Plan:
    """The plan by the passes over lists."""
    with mock.patch.object(making, "_passes", making.schedule):
        return make_plan(*arguments)


@pytest.mark.parametrize("one", REGULAR, ids=lambda one: one.name)
@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("sharding", ["ddp", "zero1", "zero2"])
@pytest.mark.parametrize(("pp", "dp"), [(1, 1), (1, 2), (4, 1), (4, 2)])
def test_plans_from_columns_are_those_from_lists(
    one: Any, overlap: bool, sharding: str, pp: int, dp: int
) -> None:
    """Transfers, reductions once or for every micro-batch, tied embeddings, steps and gathering."""
    vp = 1 if one.virtual_stages == 1 else 2
    for tied, micro_batches in ((True, 4), (False, 8)):
        model = llama(layers=8, tied_embeddings=tied)
        strategy = Strategy(
            pp=pp, vp=vp, dp=dp, schedule=one.name, sharding=sharding, overlap_gradients=overlap,
            bucket_bytes=50_000,
        )  # fmt: skip
        own = job(model, global_batch=dp * micro_batches)
        plan, other = make_plan(own, strategy), from_lists(own, strategy)
        assert isinstance(plan.actions[0], ActionList)
        assert [tuple(rank) for rank in plan.actions] == list(other.actions)
        assert plan == other
        assert other == plan
        assert hash(plan.actions) == hash(other.actions)


@pytest.mark.parametrize("one", REGULAR, ids=lambda one: one.name)
def test_orders_as_columns_are_the_generated_ones(one: Any) -> None:
    """Row by row."""
    shape = PipelineShape(ranks=4, virtual_stages=one.virtual_stages or 2, micro_batches=8)
    assert one.order_arrays
    assert one.generate
    assert table_of_passes(one.order_arrays(shape)).lists == one.generate(shape)


def test_a_list_is_a_sequence_of_actions() -> None:
    """Places, slices, ends and what is beyond them."""
    plan = make_plan(job(), Strategy(pp=2))
    own = plan.actions[1]
    assert own[0] == Action(1, Kind.RECV_F, 0)
    assert own[-1] == Action.of(Kind.STEP, rank=1)
    assert own[:2] == (own[0], own[1])
    assert own[-1] == tuple(own)[-1]
    assert len(own) == len(tuple(own))
    for place in (len(own), -len(own) - 1):
        with pytest.raises(IndexError):
            own[place]
    fresh = make_plan(job(), Strategy(pp=2)).actions[1]
    with pytest.raises(IndexError):
        fresh[len(fresh)]
    assert own != plan.actions[0]
    assert own != list(own)


def test_the_table_of_a_plan_is_found_only_whole() -> None:
    """All its lists in order, or none."""
    plan = make_plan(job(), Strategy(pp=2))
    first, second = plan.actions
    assert isinstance(first, ActionList)
    assert table_of(plan.actions) is first.table
    assert table_of((second, first)) is table_of((first,)) is table_of((tuple(first), second)) is None
    assert table_of(()) is None


def test_more_actions_belong_to_the_rank_that_ends() -> None:
    """Two ranks of one forward each; one action more at each end, and one in front."""
    import numpy as np

    table = table_from(np.array([0, 1, 2]), np.array([0, 0]), stage=np.array([0, 1]))
    more = with_more(table, np.array([0, 1, 2]), np.array([1, 1, 1]), stage=np.array([5, 6, 7]))
    assert more.lists == (parse_actions("5B 0F 6B"), parse_actions("1F 7B"))


def test_a_plan_from_columns_round_trips(tmp_path: Any) -> None:
    """Written and read again it is equal, either way round."""
    plan = make_plan(job(), Strategy(pp=2, dp=2))
    write_plan(plan, tmp_path / "plan.json")
    again = read_plan(tmp_path / "plan.json")
    assert again == plan
    assert plan == again
