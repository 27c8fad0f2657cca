"""All schedules there are: those of the files in this folder, and those that were registered."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from ...errors import InputError
from .check import check_schedule
from .descriptor import Schedule

_registered: dict[str, Schedule] = {}
"""By name: those that are no file of this package."""


@cache
def _of_files() -> dict[str, Schedule]:
    """By name: what the files of this package define as `SCHEDULE`."""
    known: dict[str, Schedule] = {}
    for name, schedule in _definitions():
        if schedule.name in known:
            raise InputError(f"{name} defines the schedule {schedule.name!r}, which another file defines too")
        known[schedule.name] = schedule
    return known


def _definitions() -> Iterator[tuple[str, Schedule]]:
    """Modules of this package with their schedules; those without one are helpers."""
    assert __package__
    for module in iter_modules(import_module(__package__).__path__, prefix=f"{__package__}."):
        schedule = getattr(import_module(module.name), "SCHEDULE", None)
        if isinstance(schedule, Schedule):
            yield module.name, schedule


def schedules() -> tuple[Schedule, ...]:
    """All of them, in the order of their places."""
    known = {**_of_files(), **_registered}
    return tuple(sorted(known.values(), key=lambda schedule: (schedule.place, schedule.name)))


def schedule_names() -> tuple[str, ...]:
    """Their names, in the order of their places."""
    return tuple(schedule.name for schedule in schedules())


def find_schedule(name: str) -> Schedule:
    """The schedule called ``name``. Raises InputError where there is none."""
    schedule = _of_files().get(name) or _registered.get(name)
    if schedule is None:
        raise InputError(f"schedule {name!r} is unknown; expected {' | '.join(schedule_names())}")
    return schedule


def register(schedule: Schedule) -> None:
    """Make ``schedule`` known to the whole program for as long as this process runs.

    One that was registered under the same name is replaced. Other processes, such as the ranks that a run
    starts, know the schedules of this package's files only.

    Raises:
        InputError: the name is a file's, or the orders are not sound or not what the descriptor says.
    """
    if schedule.name in _of_files():
        raise InputError(f"schedule {schedule.name!r} is there already; expected another name")
    check_schedule(schedule)
    _registered[schedule.name] = schedule


def unregister(name: str) -> None:
    """Forget the schedule that was registered as ``name``. Raises InputError where there is none."""
    if name not in _registered:
        raise InputError(f"schedule {name!r} was not registered; expected one of {sorted(_registered)}")
    del _registered[name]


def is_registered(name: str) -> bool:
    """Whether the schedule called ``name`` is known to this process alone."""
    return name in _registered
