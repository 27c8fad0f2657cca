"""Any other order, which the plan carries: `csv`, after the files that people write it in.

Nothing is known of it but its actions, so bounds take it for the least regular.
"""

from __future__ import annotations

from .descriptor import Schedule

CARRIED = "csv"

SCHEDULE = Schedule(
    name=CARRIED, place=10_000, generate=None, virtual_stages=None, splits_backward=True, overlaps=True
)
