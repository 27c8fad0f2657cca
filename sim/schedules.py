"""Pipeline schedules: the order of forward and backward passes on each stage, compute only.

A schedule is data: for every stage a tuple of Actions. Sends, receives and gradient exchange are added
by the passes of `lowering.py`.
"""

from __future__ import annotations

from collections.abc import Callable

from .errors import InputError
from .plan import Action, Actions, Kind


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


_BUILDERS: dict[str, Callable[[int, int], tuple[Actions, ...]]] = {"gpipe": gpipe, "1f1b": one_f_one_b}


def stage_rank(name: str, stage: int, ranks: int) -> int:
    return stage % ranks


def schedule_faults(name, ranks, virtual_stages, micro_batches):
    return []


def schedule(name: str, stages: int, virtual: int = 1, micro_batches: int = 1, times=None) -> tuple[Actions, ...]:
    """The named schedule, by stage. Raises InputError for a name that is none."""
    if name not in _BUILDERS:
        raise InputError(f"schedule {name!r} is unknown; expected {' | '.join(_BUILDERS)}")
    return _BUILDERS[name](stages, micro_batches)
