"""Zero-bubble orders that arrange themselves by the seconds of the passes, within a limit of memory.

The heuristic of Qi et al., "Zero Bubble Pipeline Parallelism" (ICLR 2024), section 3.1, as their repository
has it (sail-sg/zero-bubble-pipeline-parallelism, scheduler/zb.py): as many forwards ahead as memory and
time allow, then for every micro-batch a forward and a backward on all stages, weight gradients where there
is a gap or memory runs out. Three choices are tried both ways, and the quickest of the eight is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from ..action import Action, Actions, Kind
from ..pass_times import PassTimes

_F, _I, _W = range(3)
_KINDS = (Kind.FORWARD, Kind.INPUT_GRADIENT, Kind.WEIGHT_GRADIENT)
_ROUNDING = 1e-9


def arrange(stages: int, micro_batches: int, times: PassTimes, *, limit: int) -> tuple[Actions, ...]:
    """The quickest of the heuristic's schedules with at most ``limit`` micro-batches in flight on a stage.

    A micro-batch is in flight whole from its forward to its input gradient, and with ``times.kept_share``
    of what it keeps from there to its weight gradient. ``times`` are by stage.
    """
    best = None
    for choices in product((True, False), repeat=3):
        tried = _Arrangement(stages, micro_batches, times, limit, _Choices(*choices))
        tried.arrange()
        if best is None or tried.longest_s < best.longest_s:
            best = tried
    assert best is not None
    return tuple(
        tuple(Action(stage, _KINDS[kind], index) for kind, index in own)
        for stage, own in enumerate(best.orders)
    )


@dataclass(frozen=True, slots=True)
class _Choices:
    """What the heuristic cannot know beforehand."""

    wait_less: bool
    """Warm-up stops before a forward that would keep the first backward waiting, not after it."""
    backward_first: bool
    """A forward that would hold up the next backward is put off, where the stage can afford the gap."""
    fill_all: bool
    """A gap shorter than a weight gradient is filled on every stage, not just where gaps add up most."""


class _Arrangement:
    """The passes placed so far, with the moment each ended."""

    def __init__(
        self, stages: int, micro_batches: int, times: PassTimes, limit: int, choices: _Choices
    ) -> None:
        self.stages, self.micro_batches, self.limit, self.choices = stages, micro_batches, limit, choices
        self.seconds = (times.forward_s, times.input_gradient_s, times.weight_gradient_s)
        self.transfer_s, self.kept_share = times.transfer_s, times.kept_share
        self.orders: list[list[tuple[int, int]]] = [[] for _ in range(stages)]
        self.done = [[0] * stages for _ in _KINDS]
        """By kind and stage: passes placed, of which the next has that index."""
        self.ends: list[list[list[float]]] = [[[] for _ in range(stages)] for _ in _KINDS]
        self.now = [0.0] * stages
        self.gaps = [0.0] * stages
        """Idle seconds of each stage since its first forward."""

    @property
    def longest_s(self) -> float:
        """From the first forward to the last pass on the stage where that takes longest."""
        starts = (ends[0] - s for ends, s in zip(self.ends[_F], self.seconds[_F], strict=True))
        return max(end - start for end, start in zip(self.now, starts, strict=True))

    def arrange(self) -> None:
        self._warm_up()
        for _ in range(1, self.micro_batches):
            self._forwards()
            for stage in reversed(range(self.stages)):
                self._backward(stage)
        for stage in range(self.stages):
            while self.done[_W][stage] < self.micro_batches:
                self._put(stage, _W)

    def _put(self, stage: int, kind: int) -> None:
        index = self.done[kind][stage]
        free = self.now[stage]
        start = max(free, self._arrival(stage, kind))
        if self.done[_F][stage]:
            self.gaps[stage] += start - free
        self.now[stage] = start + self.seconds[kind][stage]
        self.ends[kind][stage].append(self.now[stage])
        self.orders[stage].append((kind, index))
        self.done[kind][stage] = index + 1

    def _arrival(self, stage: int, kind: int) -> float:
        """When what the next pass of ``kind`` needs from the neighbour is there."""
        source = stage + (-1, 1, 0)[kind]
        if source == stage or not 0 <= source < self.stages:
            return 0.0
        return self.ends[kind][source][self.done[kind][stage]] + self.transfer_s

    def _is_full(self, stage: int, *, weights: int = 0) -> bool:
        """Whether one forward more would be too much, after ``weights`` weight gradients.

        Counted anew from whole numbers each time, so that no rounding adds up.
        """
        forwards, inputs, done = (self.done[kind][stage] for kind in (_F, _I, _W))
        kept = forwards - inputs + (inputs - done - weights) * self.kept_share
        return kept + 1 > self.limit + _ROUNDING

    def _may_put_weight(self, stage: int) -> bool:
        return self.done[_W][stage] < self.done[_I][stage]

    def _warm_up(self) -> None:
        """The first forward of all stages, as many more as fit before the first backward, and that."""
        for stage in range(self.stages):
            self._put(stage, _F)
        ahead = self._ahead()
        for stage in range(1, self.stages):
            # No more forwards than the stage before can have sent by then.
            while ahead[stage] > 0 and ahead[stage] >= ahead[stage - 1]:
                ahead[stage] -= 1
        for stage, count in enumerate(ahead):
            for _ in range(count):
                self._put(stage, _F)
        for stage in reversed(range(self.stages)):
            self._put(stage, _I)

    def _ahead(self) -> list[int]:
        """Forwards after the first for which there is memory and time before the first backward."""
        ahead = [0] * self.stages
        last = self.stages - 1
        backward_end = self.now[last] + self.seconds[_I][last]
        for stage in reversed(range(last)):
            forward_s, end = self.seconds[_F][stage], self.now[stage]
            room = min(self.limit, self.micro_batches) - 1
            arrival = backward_end + self.transfer_s
            while ahead[stage] < room and self._fits_before(end, forward_s, arrival):
                end += forward_s
                ahead[stage] += 1
            backward_end = max(end, arrival) + self.seconds[_I][stage]
        return ahead

    def _fits_before(self, end: float, forward_s: float, arrival: float) -> bool:
        return end + forward_s <= arrival if self.choices.wait_less else end < arrival

    def _forwards(self) -> None:
        """One forward more on each stage that wants one, if the stages behind it take one too."""
        wanted = [self._wants_forward(stage) for stage in range(self.stages)]
        for stage in reversed(range(self.stages - 1)):
            wanted[stage] = wanted[stage] and wanted[stage + 1]
        for stage in range(self.stages):
            if wanted[stage]:
                while self._is_full(stage):
                    self._put(stage, _W)
                self._fill(stage, self._arrival(stage, _F))
                self._put(stage, _F)

    def _wants_forward(self, stage: int) -> bool:
        """Whether a forward now does not keep the next backward waiting, or is needed all the same."""
        done = self.done[_F]
        if done[stage] >= self.micro_batches:
            return False
        behind = stage + 1
        if not self.choices.backward_first or behind == self.stages or done[stage] < done[behind] + 2:
            return True
        next_backward = (
            self.now[behind] + self.seconds[_F][behind] + self.seconds[_I][behind] + self.transfer_s
        )
        if self.now[stage] >= next_backward:
            return False
        if self.now[stage] + self.seconds[_F][stage] + self._room_s(stage) <= next_backward:
            return True
        return next_backward - self.now[stage] > max(self.gaps) - self.gaps[stage]

    def _room_s(self, stage: int) -> float:
        """Seconds of the weight gradients that must come first for memory."""
        due, needed = self.done[_I][stage] - self.done[_W][stage], 0
        while needed < due and self._is_full(stage, weights=needed):
            needed += 1
        return needed * self.seconds[_W][stage]

    def _backward(self, stage: int) -> None:
        self._fill(stage, self._arrival(stage, _I))
        if stage == 0 and self.done[_F][0] == self.micro_batches:
            while self._may_put_weight(0):
                self._put(0, _W)
        self._put(stage, _I)

    def _fill(self, stage: int, until: float) -> None:
        """Weight gradients up to the moment ``until``; a last one beyond it where the gap would cost more."""
        weight_s = self.seconds[_W][stage]
        while self._may_put_weight(stage) and self.now[stage] + weight_s <= until:
            self._put(stage, _W)
        if self._may_put_weight(stage) and self.now[stage] < until:
            affordable = until - self.now[stage] <= max(self.gaps) - self.gaps[stage]
            if self.choices.fill_all or not affordable:
                self._put(stage, _W)
