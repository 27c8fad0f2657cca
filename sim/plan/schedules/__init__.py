"""Pipeline schedules: the order of passes on each pipeline rank, and what there is to know of each.

An order is data: for every rank a tuple of Actions, compute only (forward F; backward B, or its halves I
and W; a forward and a backward side by side). Sends, receives and gradient exchange are added when a plan
is made.

Every schedule is one file here with its descriptor (`descriptor.py`), which all others ask. The orders of
gpipe, 1f1b, interleaved, loopedbfs, zbv and dualpipev are those that `torch.distributed.pipelining`
generates.
"""

from .carried import CARRIED
from .descriptor import Orders, PipelineShape, Schedule, Unflushed
from .orders import generated_names, rank_stages, schedule, schedule_faults, stage_rank
from .registry import find_schedule, is_registered, register, schedule_names, schedules, unregister

__all__ = [
    "CARRIED",
    "Orders",
    "PipelineShape",
    "Schedule",
    "Unflushed",
    "find_schedule",
    "generated_names",
    "is_registered",
    "rank_stages",
    "register",
    "schedule",
    "schedule_faults",
    "schedule_names",
    "schedules",
    "stage_rank",
    "unregister",
]
