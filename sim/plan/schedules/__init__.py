"""Pipeline schedules: the order of passes on each pipeline rank, compute only.

A schedule is data: for every rank a tuple of Actions (forward F; backward B, or its halves I and W; a
forward and a backward side by side). Sends, receives and gradient exchange are added by the passes of
`lowering.py`. The orders of gpipe, 1f1b, interleaved, loopedbfs, zbv and dualpipev are those that
`torch.distributed.pipelining` generates.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from ...errors import Fault, InputError
from ..action import Actions
from ..pass_times import PassTimes
from ..stage_placement import rank_stages, stage_rank
from .automatic import zb_1p, zb_2p
from .dualpipev import dualpipev
from .looped import interleaved, looped_bfs
from .rules import schedule_faults
from .single import gpipe, one_f_one_b
from .zbv import zbv
from .zero_bubble import zb_h1, zb_h2

__all__ = ["GENERATED", "gpipe", "one_f_one_b", "rank_stages", "schedule", "schedule_faults", "stage_rank"]

Orders = tuple[Actions, ...]

_ONE_STAGE: dict[str, Callable[[int, int], Orders]] = {
    "gpipe": gpipe,
    "1f1b": one_f_one_b,
    "zb-h1": zb_h1,
    "zb-h2": zb_h2,
}
_TWO_STAGES: dict[str, Callable[[int, int], Orders]] = {"zbv": zbv, "dualpipev": dualpipev}
_ANY_STAGES: dict[str, Callable[[int, int, int], Orders]] = {
    "interleaved": interleaved,
    "loopedbfs": looped_bfs,
}
_ARRANGED: dict[str, Callable[[int, int, PassTimes], Orders]] = {"zb-1p": zb_1p, "zb-2p": zb_2p}

GENERATED = (
    "gpipe", "1f1b", "interleaved", "loopedbfs", "zb-h1", "zb-h2", "zb-1p", "zb-2p", "zbv", "dualpipev",
)  # fmt: skip
"""Names that `schedule` knows."""


def schedule(
    name: str, ranks: int, virtual_stages: int, micro_batches: int, times: PassTimes | None = None
) -> Orders:
    """The passes of each of ``ranks`` pipeline ranks, which hold ``virtual_stages`` stages each.

    ``times`` are the seconds of the passes by stage; only zb-1p and zb-2p arrange themselves by them, and
    take all passes for equal without.

    Raises:
        InputError: the name is none, or the schedule does not exist at these sizes.
    """
    if name not in GENERATED:
        raise InputError(f"schedule {name!r} is unknown; expected {' | '.join(GENERATED)}")
    if min(ranks, virtual_stages, micro_batches) < 1:
        raise InputError(
            f"schedule {name} of {ranks} ranks × {virtual_stages} stages, {micro_batches} micro-batches;"
            " expected at least 1 of each"
        )
    faults: list[Fault] = schedule_faults(name, ranks, virtual_stages, micro_batches)
    if faults:
        raise InputError(faults)
    return _schedule(name, ranks, virtual_stages, micro_batches, times if name in _ARRANGED else None)


@lru_cache(maxsize=64)
def _schedule(name: str, ranks: int, virtual: int, micro_batches: int, times: PassTimes | None) -> Orders:
    """Kept, since a search asks for the same one again and again."""
    if name in _ARRANGED:
        return _ARRANGED[name](ranks, micro_batches, times or PassTimes.alike(ranks))
    if name in _ANY_STAGES:
        return _ANY_STAGES[name](ranks, virtual, micro_batches)
    return {**_ONE_STAGE, **_TWO_STAGES}[name](ranks, micro_batches)
