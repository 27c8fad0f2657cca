"""PipeDream-2BW: 1F1B that never drains, with two versions of the weights.

Narayanan et al. 2021, "Memory-Efficient Pipeline-Parallel DNN Training", section 3.1.
"""

from __future__ import annotations

from .descriptor import Schedule, Unflushed
from .one_f_one_b import one_f_one_b, one_f_one_b_arrays


def _two(_rank: int, _ranks: int) -> int:
    return 2


SCHEDULE = Schedule(
    name="pipedream-2bw",
    place=120,
    generate=one_f_one_b,
    order_arrays=one_f_one_b_arrays,
    unflushed=Unflushed(weight_versions=_two, updates_every_micro_batch=False),
)
