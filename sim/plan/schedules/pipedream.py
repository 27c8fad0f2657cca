"""PipeDream: 1F1B that never drains; a stage stashes the weights of every micro-batch in flight.

Narayanan et al. 2019, section 3.3: a backward uses the weights of its own forward, and weights are updated
after each.
"""

from __future__ import annotations

from .descriptor import Schedule, Unflushed
from .one_f_one_b import one_f_one_b, one_f_one_b_arrays


def _in_flight(rank: int, ranks: int) -> int:
    return ranks - rank


SCHEDULE = Schedule(
    name="pipedream",
    place=110,
    generate=one_f_one_b,
    order_arrays=one_f_one_b_arrays,
    unflushed=Unflushed(weight_versions=_in_flight, updates_every_micro_batch=True),
)
