"""All schedules there are: those of the files in this folder, and those that were registered."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from ...errors import InputError
from .check import check_schedule
from .descriptor import Schedule


@cache
def _known() -> dict[str, Schedule]:
    """By name; filled at first use."""
    known: dict[str, Schedule] = {}
    for schedule in _of_files():
        if schedule.name in known:
            raise InputError(f"two files in {__package__} define a schedule {schedule.name!r}")
        known[schedule.name] = schedule
    return known


def _of_files() -> Iterator[Schedule]:
    """What the files of this package define as `SCHEDULE`."""
    assert __package__
    for module in iter_modules(import_module(__package__).__path__):
        schedule = getattr(import_module(f"{__package__}.{module.name}"), "SCHEDULE", None)
        if isinstance(schedule, Schedule):
            yield schedule


def schedules() -> tuple[Schedule, ...]:
    """All of them, in the order of their places."""
    return tuple(sorted(_known().values(), key=lambda schedule: (schedule.place, schedule.name)))


def schedule_names() -> tuple[str, ...]:
    """Their names, in the order of their places."""
    return tuple(schedule.name for schedule in schedules())


def find_schedule(name: str) -> Schedule:
    """The schedule called ``name``. Raises InputError where there is none."""
    schedule = _known().get(name)
    if schedule is None:
        raise InputError(f"schedule {name!r} is unknown; expected {' | '.join(schedule_names())}")
    return schedule


def register(schedule: Schedule) -> None:
    """Make ``schedule`` known to the whole program, as long as this process runs.

    Raises:
        InputError: the name is taken, or the orders are not what the descriptor says of them.
    """
    if schedule.name in _known():
        raise InputError(f"schedule {schedule.name!r} is there already; expected another name")
    check_schedule(schedule)
    _known()[schedule.name] = schedule


def unregister(name: str) -> None:
    """Forget the schedule called ``name``. Raises InputError where there is none."""
    find_schedule(name)
    del _known()[name]
