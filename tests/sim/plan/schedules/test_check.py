"""A descriptor is what its orders are: those of the files are, and what is not is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from traincast.sim.errors import InputError
from traincast.sim.plan.action import Action, Kind, parse_actions
from traincast.sim.plan.schedules import Orders, PipelineShape, Schedule, find_schedule, schedules
from traincast.sim.plan.schedules.check import LARGEST, check_schedule
from traincast.sim.plan.schedules.order_arrays import PASS_KINDS
from traincast.sim.plan.stage_placement import loop, there_and_back

GENERATED = [one.name for one in schedules() if one.generate]


@pytest.mark.parametrize("name", GENERATED)
def test_schedules_of_the_files_are_what_they_say(name):
    check_schedule(find_schedule(name))


@pytest.mark.parametrize("name", GENERATED)
def test_flags_say_no_more_than_there_is(name):
    """What a descriptor allows itself is found in some order, so that no bound is weaker than it need be."""
    found = find_schedule(name)
    assert found.generate is not None
    shape = PipelineShape(ranks=4, virtual_stages=found.virtual_stages or 2, micro_batches=12)
    actions = [action for own in found.generate(shape) for action in own]
    kinds = {part.kind for action in actions for part in action.passes}
    assert found.splits_backward == (Kind.INPUT_GRADIENT in kinds)
    assert found.overlaps == any(action.parts for action in actions)


REGULAR = [one.name for one in schedules() if one.order_arrays]


@pytest.mark.parametrize("name", REGULAR)
def test_arrays_are_the_generated_orders(name):
    found = find_schedule(name)
    assert found.generate is not None
    assert found.order_arrays is not None
    compared = 0
    for ranks in range(1, LARGEST[0] + 1):
        for virtual in (1,) if found.virtual_stages else range(1, LARGEST[1] + 1):
            for micro_batches in range(1, LARGEST[2] + 1):
                shape = PipelineShape(ranks=ranks, virtual_stages=virtual, micro_batches=micro_batches)
                if found.rules(shape):
                    continue
                made, compared = found.order_arrays(shape), compared + 1
                written = [
                    [(PASS_KINDS.index(a.kind), a.stage, a.micro_batch) for a in own]
                    for own in found.generate(shape)
                ]
                arrays = np.stack([made.kind, made.stage, made.micro_batch], axis=-1)
                assert arrays.tolist() == [[list(row) for row in own] for own in written]
    assert compared >= 30


def orders(*texts: str) -> Orders:
    return tuple(parse_actions(text) for text in texts)


def of_one_rank(text: str) -> Schedule:
    """A toy whose only pipeline is one rank with one micro-batch."""

    def rules(shape: PipelineShape) -> list:
        return [] if (shape.ranks, shape.micro_batches) == (1, 1) else [shape.micro_batch_fault("1")]

    return Schedule(name="toy", generate=lambda _: orders(text), rules=rules)


def of_two_ranks(first: str, second: str, **more) -> Schedule:
    """A toy whose only pipeline is two ranks with two micro-batches."""

    def rules(shape: PipelineShape) -> list:
        return [] if (shape.ranks, shape.micro_batches) == (2, 2) else [shape.micro_batch_fault("2")]

    return Schedule(name="toy", generate=lambda _: orders(first, second), rules=rules, **more)


@pytest.mark.parametrize(
    ("toy", "said"),
    [
        (of_one_rank("0F0"), r"micro-batch 0 goes through stage 0 as F, B, I, W \[1, 0, 0, 0\] times"),
        (of_one_rank("0F0 0B0 0B0"), r"\[1, 2, 0, 0\] times"),
        (of_one_rank("0F0 0I0"), r"\[1, 0, 1, 0\] times"),
        (of_one_rank("0F0 0B0 0F1"), "0F1, expected micro-batches 0 to 0"),
        (of_one_rank("0F0 0B0 1F0"), "1F0 on rank 0, expected F, B, I or W of stages 0 to 0"),
        (of_one_rank("0F0 0SEND_F0 0B0"), "0SEND_F0 on rank 0, expected F, B, I or W"),
        (of_one_rank("0F0 0I0 0W0"), "backwards in halves, expected whole ones or `splits_backward=True`"),
        (of_one_rank("0B0 0F0"), "ranks wait for each other at 0B0"),
        (of_two_ranks("0F0 0B0 0F1 0B1", "1F0 1F1 1B0 1B1"), "ranks wait for each other at 0B0, 1F1"),
        (of_two_ranks("1F0 1B0 1F1 1B1", "0F0 0B0 0F1 0B1"), "1F0 on rank 0, expected on rank 1"),
        (of_two_ranks("0F0 (0F1;0B0)OVERLAP_F_B 0B1", "1F0 1B0 1F1 1B1"), "expected none or `overlaps=True`"),
        (Schedule(name="toy", generate=lambda _: orders("0F0 0B0")), "2 micro-batches: micro-batch 1 goes"),
        (Schedule(name="toy", generate=None), "has no order on up to 4 ranks"),
        (replace(of_one_rank("0F0 0B0"), name="my toy"), "'my toy'; expected a name of a-z"),
    ],
)
def test_what_is_not_as_it_says_is_refused(toy, said):
    with pytest.raises(InputError, match=said):
        check_schedule(toy)


def test_another_number_of_lists_is_refused():
    toy = of_two_ranks("0F0 0B0 0F1 0B1", "1F0 1B0 1F1 1B1")
    check_schedule(toy)
    with pytest.raises(InputError, match="1 lists of passes, expected one for each rank"):
        check_schedule(replace(toy, generate=lambda _: orders("0F0 0B0 0F1 0B1")))


def test_overlaps_that_are_said_pass():
    check_schedule(of_two_ranks("0F0 (0F1;0B0)OVERLAP_F_B 0B1", "1F0 1B0 1F1 1B1", overlaps=True))


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_stages_are_spread_evenly(ranks):
    """Each round of stages has one for each rank; a V turns round on the last and the first."""
    rounds = [[there_and_back(turn * ranks + place, ranks) for place in range(ranks)] for turn in range(4)]
    assert rounds == [list(range(ranks)), list(range(ranks))[::-1]] * 2
    assert [loop(stage, ranks) for stage in range(2 * ranks)] == [*range(ranks), *range(ranks)]


def test_times_reach_only_what_asks_for_them():
    """All passes alike where nobody knows them."""
    shape = PipelineShape(ranks=2, virtual_stages=3, micro_batches=1)
    assert shape.pass_times.forward_s == (1.0,) * 6
    assert Action(0, Kind.FORWARD, 0) == parse_actions("0F0")[0]
