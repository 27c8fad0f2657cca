"""Schedules with one stage a rank and whole backwards."""

from __future__ import annotations

from ..action import Action, Actions, Kind


def gpipe(stages: int, micro_batches: int) -> tuple[Actions, ...]:
    """All forwards, then all backwards (Huang et al. 2019, GPipe, section 2.3).

    Backwards run in order of micro-batch, as `torch.distributed.pipelining.ScheduleGPipe` does.
    """
    return tuple(
        tuple(Action(stage, kind, i) for kind in (Kind.FORWARD, Kind.BACKWARD) for i in range(micro_batches))
        for stage in range(stages)
    )


def one_f_one_b(stages: int, micro_batches: int) -> tuple[Actions, ...]:
    """Warm-up forwards, then one backward for every forward (Narayanan et al. 2019, PipeDream; 2021, PTD-P).

    Stage s keeps at most ``stages - s`` micro-batches in flight.
    """
    return tuple(_one_f_one_b_stage(stage, stages, micro_batches) for stage in range(stages))


def _one_f_one_b_stage(stage: int, stages: int, micro_batches: int) -> Actions:
    warmup = min(micro_batches, stages - stage)
    actions = [Action(stage, Kind.FORWARD, i) for i in range(warmup)]
    for i in range(micro_batches):
        actions.append(Action(stage, Kind.BACKWARD, i))
        if warmup + i < micro_batches:
            actions.append(Action(stage, Kind.FORWARD, warmup + i))
    return tuple(actions)
