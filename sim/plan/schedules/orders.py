"""The orders of schedules by name and sizes, at which sizes they exist, and who holds which stage."""

from __future__ import annotations

from functools import lru_cache

from ...errors import Fault, InputError
from ..pass_times import PassTimes
from .descriptor import Orders, PipelineShape, Schedule
from .registry import find_schedule, schedules


def generated_names() -> tuple[str, ...]:
    """Schedules that have an order of one step of their own: what the pipeline does between steps it never
    drains is an order of many, and the plan's own order is nobody's else."""
    return tuple(one.name for one in schedules() if one.generate and one.unflushed is None)


def schedule(
    name: str, ranks: int, virtual_stages: int, micro_batches: int, times: PassTimes | None = None
) -> Orders:
    """The passes of each of ``ranks`` pipeline ranks, which hold ``virtual_stages`` stages each.

    ``times`` are the seconds of the passes by stage; only schedules that arrange themselves (zb-1p, zb-2p)
    look at them, and take all passes for equal without.

    Raises:
        InputError: the name is none, the plan brings its orders, or it does not exist at these sizes.
    """
    found = find_schedule(name)
    if found.generate is None:
        raise InputError(f"schedule {name} has no order of its own; expected one that the plan brings")
    if min(ranks, virtual_stages, micro_batches) < 1:
        raise InputError(
            f"schedule {name} of {ranks} ranks × {virtual_stages} stages, {micro_batches} micro-batches;"
            " expected at least 1 of each"
        )
    faults = schedule_faults(name, ranks, virtual_stages, micro_batches)
    if faults:
        raise InputError(faults)
    shape = PipelineShape(
        ranks=ranks,
        virtual_stages=virtual_stages,
        micro_batches=micro_batches,
        times=times if found.arranged_by_times else None,
    )
    return _orders(found, shape)


@lru_cache(maxsize=64)
def _orders(schedule: Schedule, shape: PipelineShape) -> Orders:
    """Kept, since a search asks for the same one again and again."""
    assert schedule.generate is not None
    return schedule.generate(shape)


def schedule_faults(name: str, ranks: int, virtual_stages: int, micro_batches: int) -> list[Fault]:
    """Every rule of the schedule ``name`` that these sizes break."""
    found = find_schedule(name)
    shape = PipelineShape(ranks=ranks, virtual_stages=virtual_stages, micro_batches=micro_batches)
    faults = [] if found.virtual_stages in (None, virtual_stages) else [_stages_fault(found, virtual_stages)]
    return [*faults, *found.rules(shape)]


def _stages_fault(schedule: Schedule, virtual_stages: int) -> Fault:
    free = [one.name for one in schedules() if one.virtual_stages is None and one.generate]
    listed = " and ".join([", ".join(free[:-1]), free[-1]] if len(free) > 1 else free)
    return Fault(
        path="strategy.vp",
        found=str(virtual_stages),
        expected=f"{schedule.virtual_stages} with schedule {schedule.name}",
        hint=f"{listed} take any number" if schedule.virtual_stages == 1 and free else "",
    )


def stage_rank(name: str, stage: int, ranks: int) -> int:
    """The pipeline rank that holds ``stage`` under the schedule ``name``."""
    return find_schedule(name).stage_rank(stage, ranks)


def rank_stages(name: str, rank: int, ranks: int, virtual_stages: int) -> tuple[int, ...]:
    """The stages that pipeline rank ``rank`` holds, in order."""
    holder = find_schedule(name).stage_rank
    return tuple(stage for stage in range(ranks * virtual_stages) if holder(stage, ranks) == rank)
