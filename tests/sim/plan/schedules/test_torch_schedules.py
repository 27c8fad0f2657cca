"""Our pipeline schedules are those of `torch.distributed.pipelining`, pinned to torch 2.13.

torch is asked twice: what a schedule does (its step is played on a stage that only takes notes, without a
process group), and what its own tables say.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from traincast.sim.plan.action import Action, Actions, Kind
from traincast.sim.plan.schedules import schedule, schedule_faults

torch = pytest.importorskip("torch")
schedules = pytest.importorskip("torch.distributed.pipelining.schedules")

SIZES = [(1, 1), (1, 4), (2, 2), (2, 3), (3, 7), (4, 4), (4, 8), (5, 16), (8, 32)]
sizes = pytest.mark.parametrize(("stages", "micro_batches"), SIZES)


def test_torch_is_the_version_these_tables_are_from() -> None:
    """The tables are private to torch; another version may have others."""
    assert torch.__version__.startswith("2.13.")


class NotingStage:
    """What a torch schedule needs of a pipeline stage; notes forwards and backwards, computes nothing."""

    def __init__(self, stage: int, stages: int) -> None:
        self.stage_index = self.group_rank = stage
        self.num_stages = self.group_size = stages
        self.is_first, self.is_last = stage == 0, stage == stages - 1
        self.submod = None
        self.has_backward = True
        self.notes: list[Action] = []

    def forward_one_chunk(self, index: int, *_: Any, **__: Any) -> None:
        self.notes.append(Action(self.stage_index, Kind.FORWARD, index))

    def backward_one_chunk(self, index: int, **_: Any) -> None:
        self.notes.append(Action(self.stage_index, Kind.BACKWARD, index))

    def _no_transfers(self, _: int) -> list:
        return []

    get_fwd_recv_ops = get_fwd_send_ops = get_bwd_recv_ops = get_bwd_send_ops = _no_transfers

    def perform_reduce_grad(self, _: int) -> None:
        pass


def played(schedule_class: Any, stages: int, micro_batches: int) -> tuple[Actions, ...]:
    """By stage: what the schedule does in one step."""
    noted = []
    for index in range(stages):
        stage = NotingStage(index, stages)
        played_one = schedule_class(stage, micro_batches)
        played_one._initialize_stage = lambda *_: None  # would exchange shapes between processes
        played_one._step_microbatches()
        noted.append(tuple(stage.notes))
    return tuple(noted)


def table(pipeline_order: dict[int, list[Any]]) -> tuple[Actions, ...]:
    """By rank: the compute actions of torch's own table, read through their common text form."""
    return tuple(
        tuple(Action.parse(str(action)) for action in pipeline_order[rank] if action and action.is_compute_op)
        for rank in sorted(pipeline_order)
    )


def multi_stage(schedule_class: Any, ranks: int, virtual: int, micro_batches: int) -> Any:
    """A schedule for ``virtual`` stages on each of ``ranks`` ranks, made without a process group."""
    stage = SimpleNamespace(num_stages=ranks * virtual, group_size=ranks, group_rank=0, submod=None)
    return schedule_class([stage] * virtual, micro_batches)


@sizes
def test_gpipe_does_what_torch_does(stages: int, micro_batches: int) -> None:
    """As played, on every stage."""
    ours = schedule("gpipe", stages, 1, micro_batches)
    assert ours == played(schedules.ScheduleGPipe, stages, micro_batches)


@sizes
def test_one_f_one_b_does_what_torch_does(stages: int, micro_batches: int) -> None:
    """As played, on every stage."""
    assert schedule("1f1b", stages, 1, micro_batches) == played(schedules.Schedule1F1B, stages, micro_batches)


@sizes
def test_gpipe_is_torchs_table(stages: int, micro_batches: int) -> None:
    """ScheduleGPipe's pipeline order."""
    theirs = schedules.ScheduleGPipe(NotingStage(0, stages), micro_batches)
    assert schedule("gpipe", stages, 1, micro_batches) == table(theirs.pipeline_order)


@sizes
def test_one_f_one_b_is_torchs_table_but_for_the_last_stage(stages: int, micro_batches: int) -> None:
    """Schedule1F1B's pipeline order; on its last stage torch counts forwards from 1, not as it then runs."""
    made = schedules.Schedule1F1B(NotingStage(0, stages), micro_batches)
    theirs, ours = table(made.pipeline_order), schedule("1f1b", stages, 1, micro_batches)
    assert theirs[:-1] == ours[:-1]
    off_by_one = tuple(
        Action(a.stage, a.kind, a.micro_batch + 1) if a.kind is Kind.FORWARD else a for a in ours[-1]
    )
    assert theirs[-1] == off_by_one


GRID = [
    (ranks, virtual, micro_batches)
    for ranks in (1, 2, 3, 4, 6, 8)
    for virtual in (1, 2, 3)
    for micro_batches in (1, 2, 3, 4, 6, 7, 8, 12, 16, 24, 25)
]
MULTI_STAGE = {
    "interleaved": "ScheduleInterleaved1F1B",
    "loopedbfs": "ScheduleLoopedBFS",
    "zbv": "ScheduleZBVZeroBubble",
    "dualpipev": "ScheduleDualPipeV",
}


def of_torch(class_name: str, ranks: int, virtual: int, micro_batches: int) -> tuple[Actions, ...] | None:
    """The table of a schedule with several stages a rank; None where torch refuses these sizes."""
    try:
        made = multi_stage(getattr(schedules, class_name), ranks, virtual, micro_batches)
    except ValueError:
        return None
    return table(made.pipeline_order)


@pytest.mark.parametrize("name", MULTI_STAGE)
def test_schedules_of_several_stages_are_torchs_tables(name: str) -> None:
    """On a grid of sizes, overlaps included; what torch refuses, we refuse."""
    compared = 0
    for ranks, virtual, micro_batches in GRID:
        theirs = of_torch(MULTI_STAGE[name], ranks, virtual, micro_batches)
        if theirs is None:
            assert schedule_faults(name, ranks, virtual, micro_batches)
        else:
            assert schedule(name, ranks, virtual, micro_batches) == theirs, (ranks, virtual, micro_batches)
            compared += 1
    assert compared >= 30


def test_zb_h1_is_torchs_interleaved_zero_bubble_with_one_stage() -> None:
    """torch implements it for any number of stages a rank."""
    for ranks, _, micro_batches in GRID:
        theirs = of_torch("ScheduleInterleavedZeroBubble", ranks, 1, micro_batches)
        if theirs is not None:
            assert schedule("zb-h1", ranks, 1, micro_batches) == theirs, (ranks, micro_batches)
