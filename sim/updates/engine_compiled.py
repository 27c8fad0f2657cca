"""The engine of update protocols that runs by default: the kernel, compiled where that pays."""

from __future__ import annotations

from functools import cache

from .. import jit as native
from . import cores, kernel
from .model import UpdateModel
from .record import UpdateRecord
from .tables import listed, make_record, make_tables

EVENTS_OF_A_ROUND = 6
"""Of one worker and one shard; further holders add to it."""

COMPILE_FROM = 500_000
"""Events from which numba pays though it must be loaded first, which takes about a second."""

COMPILE_FROM_LOADED = 10_000
"""Events from which it pays once it is loaded."""


def run(model: UpdateModel, *, compiled: bool | None = None) -> UpdateRecord:
    """The record of a checked model with servers.

    ``compiled`` says whether numba runs it; without it the number of events decides.
    """
    tables = make_tables(model)
    if compiled is None:
        events = EVENTS_OF_A_ROUND * tables.slots * tables.rounds
        compiled = native.worthwhile(kernel.run_kernel, events, COMPILE_FROM, COMPILE_FROM_LOADED)
    if compiled:
        _register()
        native.compiled(kernel.run_kernel)(tables)
    else:
        tables = listed(tables)
        kernel.run_kernel(tables)
    return make_record(tables)


@cache
def _register() -> None:
    """Let numba compile the functions that the kernel calls, which stay plain for CPython."""
    from numba.extending import register_jitable

    for function in {**vars(cores), **vars(kernel)}.values():
        own = getattr(function, "__module__", "") in (kernel.__name__, cores.__name__)
        if own and function is not kernel.run_kernel:
            register_jitable(function)
