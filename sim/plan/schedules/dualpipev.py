"""DualPipeV: two stages a rank, laid out as a V, forwards and backwards of both side by side.

DeepSeek-AI 2024 (DeepSeek-V3, section 3.2.1) and its repository deepseek-ai/DualPipe, cut in half; the
order is that of torch's ScheduleDualPipeV, step by step as there.
"""

from __future__ import annotations

from collections import deque

from ...errors import Fault
from ..action import Action, Actions, Kind
from ..stage_placement import there_and_back
from .descriptor import Orders, PipelineShape, Schedule


def dualpipev(shape: PipelineShape) -> Orders:
    """By rank."""
    return tuple(_rank_actions(rank, shape.ranks, shape.micro_batches) for rank in range(shape.ranks))


class _Writer:
    """Appends passes of the rank's two stages, each kind in order of micro-batch."""

    def __init__(self, rank: int, ranks: int) -> None:
        self.stages = (rank, 2 * ranks - 1 - rank)
        self.actions: list[Action] = []
        self.forwards = [0, 0]
        self.backwards = [0, 0]
        self.due: deque[Action] = deque()
        """Weight gradients that were put off, oldest first."""

    def forward(self, chunk: int) -> None:
        self.actions.append(self._next_forward(chunk))

    def backward(self, chunk: int) -> None:
        self.actions.append(self._next_backward(chunk, Kind.BACKWARD))

    def both(self, chunk: int) -> None:
        """A forward of ``chunk`` overlapped with a backward of the other."""
        forward = self._next_forward(chunk)
        self.actions.append(Action.overlap(forward, self._next_backward(1 - chunk, Kind.BACKWARD)))

    def input_gradient(self, chunk: int) -> None:
        action = self._next_backward(chunk, Kind.INPUT_GRADIENT)
        self.actions.append(action)
        self.due.append(Action(action.stage, Kind.WEIGHT_GRADIENT, action.micro_batch))

    def weight_gradient(self) -> None:
        if self.due:
            self.actions.append(self.due.popleft())

    def _next_forward(self, chunk: int) -> Action:
        self.forwards[chunk] += 1
        return Action(self.stages[chunk], Kind.FORWARD, self.forwards[chunk] - 1)

    def _next_backward(self, chunk: int, kind: Kind) -> Action:
        self.backwards[chunk] += 1
        return Action(self.stages[chunk], kind, self.backwards[chunk] - 1)


def _rank_actions(rank: int, ranks: int, micro_batches: int) -> Actions:
    writer, behind = _Writer(rank, ranks), ranks - 1 - rank
    _warm_up(writer, rank, behind)
    _steady(writer, micro_batches - 2 * ranks + rank + 1, behind)
    _cool_down(writer, rank, behind)
    return tuple(writer.actions)


def _warm_up(writer: _Writer, rank: int, behind: int) -> None:
    """Steps 1 to 3: forwards, then backwards of the second stage as they become possible."""
    for _ in range(2 * behind):
        writer.forward(0)
    for _ in range(rank + 1):
        writer.forward(0)
        writer.forward(1)
    for _ in range(behind):
        writer.input_gradient(1)
        writer.weight_gradient()
        writer.forward(1)


def _steady(writer: _Writer, rounds: int, behind: int) -> None:
    """Steps 4 and 5: forwards and backwards side by side."""
    for i in range(rounds):
        if i == 0 and behind == 0:
            # Where the V turns, the first pair one after the other makes a smaller bubble.
            writer.forward(0)
            writer.backward(1)
        else:
            writer.both(0)
        writer.both(1)
    for _ in range(behind):
        writer.backward(1)
        writer.both(1)


def _cool_down(writer: _Writer, rank: int, behind: int) -> None:
    """Steps 6 to 8: the second half of the last backwards puts its weight gradients off."""
    half, halves = (rank + 1) // 2, False
    for i in range(rank + 1):
        for chunk in (1, 0):
            halves = halves or (i == half and rank % 2 == chunk)
            (writer.input_gradient if halves else writer.backward)(chunk)
    for _ in range(behind):
        writer.weight_gradient()
        (writer.input_gradient if halves else writer.backward)(0)
    for _ in range(rank + 1):
        writer.weight_gradient()


def rules(shape: PipelineShape) -> list[Fault]:
    """Two micro-batches for each rank, which the first steps send in."""
    least = 2 * shape.ranks
    if shape.micro_batches >= least:
        return []
    expected = f"at least {least} with schedule dualpipev, two for each of {shape.ranks} ranks"
    return [shape.micro_batch_fault(expected)]


SCHEDULE = Schedule(
    name="dualpipev",
    place=100,
    generate=dualpipev,
    virtual_stages=2,
    stage_rank=there_and_back,
    splits_backward=True,
    overlaps=True,
    rules=rules,
)
