"""Which pipeline rank holds which stage: round and round (loop), or there and back (V)."""

from __future__ import annotations

V_SHAPED = ("zbv", "dualpipev")
"""Schedules in which the first rank holds the first and the last stage (Qi et al. 2024, section 6)."""


def stage_rank(name: str, stage: int, ranks: int) -> int:
    """The pipeline rank that holds ``stage`` under the schedule ``name``.

    Loop: stages go round the ranks (Narayanan et al. 2021, section 2.2). V: every second round goes back.
    """
    turn, place = divmod(stage, ranks)
    return ranks - 1 - place if name in V_SHAPED and turn % 2 else place


def rank_stages(name: str, rank: int, ranks: int, virtual_stages: int) -> tuple[int, ...]:
    """The stages that pipeline rank ``rank`` holds, in order."""
    return tuple(stage for stage in range(ranks * virtual_stages) if stage_rank(name, stage, ranks) == rank)
