"""At which sizes a schedule exists."""

from __future__ import annotations

from ...errors import Fault

_STAGES_OF_A_RANK = {
    "gpipe": 1,
    "1f1b": 1,
    "zb-h1": 1,
    "zb-h2": 1,
    "zb-1p": 1,
    "zb-2p": 1,
    "zbv": 2,
    "dualpipev": 2,
}
"""Stages that each rank holds, where the schedule does not leave it open."""


def micro_batches_per_round(ranks: int, micro_batches: int) -> int:
    """Micro-batches that interleaved schedules send through one stage of a rank before its next stage.

    About as many as there are ranks, as torch's ScheduleInterleaved1F1B has it.
    """
    return micro_batches // max(1, micro_batches // ranks)


def schedule_faults(name: str, ranks: int, virtual_stages: int, micro_batches: int) -> list[Fault]:
    """Every rule of the schedule ``name`` that these sizes break; none for a name without rules."""
    found = []
    stages = _STAGES_OF_A_RANK.get(name, virtual_stages)
    if virtual_stages != stages:
        hint = "interleaved and loopedbfs take any number" if stages == 1 else ""
        found.append(
            Fault(
                path="strategy.vp",
                found=str(virtual_stages),
                expected=f"{stages} with schedule {name}",
                hint=hint,
            )
        )
    if name == "interleaved":
        found += _interleaved_faults(ranks, micro_batches)
    if name == "dualpipev" and micro_batches < 2 * ranks:
        expected = f"at least {2 * ranks} with schedule dualpipev, two for each of {ranks} ranks"
        found.append(_micro_batch_fault(micro_batches, expected))
    return found


def _interleaved_faults(ranks: int, micro_batches: int) -> list[Fault]:
    """Rounds of equal length, as torch's ScheduleInterleaved1F1B demands them."""
    rounds = max(1, micro_batches // max(1, ranks))
    if micro_batches % rounds == 0:
        return []
    expected = f"a multiple of {rounds} (rounds of the {ranks} ranks) with schedule interleaved"
    return [_micro_batch_fault(micro_batches, expected)]


def _micro_batch_fault(micro_batches: int, expected: str) -> Fault:
    return Fault(path="job.global_batch", found=f"{micro_batches} micro-batches", expected=expected)
