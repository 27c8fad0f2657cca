"""What a run with parameter servers comes to: the time of a step, when each step began, losses and staleness.

A step's time is that of `sim/updates/record.py`. Where gradients are put together, it is from one update to
the next, of the portion that is last; between averages of local steps, that over their number. Else it is the
time in which as many gradients are applied as there are workers, until the first worker has made its last
update, so that nobody runs alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from ...sim.plan.plan import Plan
from ...sim.trace.trace import Span
from .ledger import puts_together
from .replay import mean_losses


class MeasuredRounds:
    """The parts of all ranks of a run, of which the first ``warmup`` steps do not count.

    A part has what `ServerRank.part` gives, and `ends`: when the rank began, and when each step ended.
    """

    def __init__(self, plan: Plan, parts: list[dict[str, Any]], warmup: int):
        self.plan, self.parts, self.warmup = plan, parts, warmup
        self.joint = puts_together(plan.strategy)
        self.local_steps = max(1, plan.strategy.protocol[1]) if plan.strategy.protocol[0] == "local" else 1
        found = {int(number): own for part in parts for number, own in part["portions"].items()}
        self.portions = [found[number] for number in sorted(found)]
        self.workers = parts[: plan.strategy.dp]
        self.start = max(part["ends"][0] for part in parts)

    def step_times_s(self) -> list[float]:
        """Seconds of every step that counts."""
        if self.joint:
            ends = [self.start, *self._updates()]
            return [(now - before) / self.local_steps for before, now in pairwise(ends[self.warmup :])]
        return self._times_together(self._turns(), self.plan.strategy.dp)

    def _updates(self) -> list[float]:
        """By joint update: when the last portion had it."""
        return [max(moments) for moments in zip(*(own["applied_s"] for own in self.portions), strict=False)]

    def _turns(self) -> list[list[float]]:
        """By worker and turn: when the last portion had its gradient."""
        ends = [[self.start] * len(part["steps"]) for part in self.workers]
        for own in self.portions:
            for moment, members in zip(own["applied_s"], own["updates"], strict=True):
                for worker, turn in members:
                    ends[worker][turn] = max(ends[worker][turn], moment)
        return ends

    def _times_together(self, ends: list[list[float]], workers: int) -> list[float]:
        """The times between each update and the ``workers``-th after it, one such after the other, from when
        all workers have warmed up; of fewer updates, their mean."""
        begin = max(own[self.warmup - 1] for own in ends) if self.warmup else self.start
        stop, after = min(own[-1] for own in ends), sorted(m for own in ends for m in own if m > begin)
        moments = [begin, *([moment for moment in after if moment <= stop] or after)]
        times = [now - before for before, now in pairwise(moments[::workers])]
        return times or [(moments[-1] - begin) * workers / (len(moments) - 1)]

    def begins(self, spans: Iterable[Span]) -> dict[tuple[int, int], float]:
        """(step, rank) to the moment that its spans count from.

        Of joint updates, when the one before was made; what the step does earlier, as a pull of a portion
        that was updated first, counts from itself. Other workers count by themselves, and a server with the
        first.
        """
        first: dict[tuple[int, int], float] = {}
        for span in spans:
            for key in ((span.step, span.rank), (span.step, -1)):
                first[key] = min(span.start, first.get(key, span.start))
        ends = [self.start, *self._updates()] if self.joint else []
        found = {}
        for step, rank in first:
            if rank < 0:
                continue
            if self.joint:
                begin = min(first[step, -1], ends[step] if step < len(ends) else first[step, -1])
            elif self.plan.is_server(rank):
                begin = first[step, -1]
            else:
                begin = min(first[step, rank], self.workers[rank]["ends"][step])
            found[step, rank] = begin
        return found

    def metadata(self) -> dict[str, object]:
        """Losses by step, the staleness of the first portion's gradients, and the order of everything."""
        first = self.portions[0]
        steps = [part["steps"] for part in self.workers]
        return {
            "losses": mean_losses(steps, [part["losses"] for part in self.workers]),
            "staleness": first["staleness"],
            "dropped": first["dropped"],
            "rounds": [len(own) for own in steps],
            "applied_order": {
                str(number): {name: own[name] for name in ("rounds", "reads", "updates")}
                for number, own in enumerate(self.portions)
            },
        }
