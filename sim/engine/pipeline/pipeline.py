"""Orders of passes with seconds: a pipeline alone, as a Program, and its bubble.

This is the cost model that papers on schedules use: passes take the seconds given, messages between ranks
travel beside them, and nothing else costs time. `build.py` makes the Program of a whole Plan.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ...errors import InputError
from ...plan.action import Action, Actions, Kind
from ...plan.pass_times import PassTimes
from ...program.program import Program, SpanLabel

_GRADIENTS = (Kind.BACKWARD, Kind.INPUT_GRADIENT)
"""What makes the gradient that the stage before waits for."""
_FREEING = (Kind.BACKWARD, Kind.WEIGHT_GRADIENT)
"""After which nothing of a micro-batch is kept."""

Needs = tuple[int, bool, int]
"""(stage, whether forward, micro-batch) of a pass that others wait for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """When every pass of a pipeline starts and ends, in seconds."""

    orders: tuple[Actions, ...]
    starts: tuple[tuple[float, ...], ...]
    """By rank and place in its order."""
    ends: tuple[tuple[float, ...], ...]

    times: PassTimes

    @property
    def makespan_s(self) -> float:
        """From the first start of all to the last end of all."""
        return max(own[-1] for own in self.ends)

    @property
    def step_time_s(self) -> float:
        """The longest time from a rank's first start to its last end.

        In steady training a rank goes on with the next step while others end this one, unless something
        makes them wait for each other; Qi et al. 2024 call this the cost of a schedule (section 2.3).
        """
        return max(end[-1] - start[0] for start, end in zip(self.starts, self.ends, strict=True))

    @property
    def busy_s(self) -> tuple[float, ...]:
        """By rank: seconds of its passes."""
        return tuple(
            sum(end - start for start, end in zip(starts, ends, strict=True))
            for starts, ends in zip(self.starts, self.ends, strict=True)
        )

    @property
    def bubble_rate(self) -> float:
        """Share of the step time in which a rank has nothing to do, mean over ranks (Qi et al. 2024)."""
        return max(0.0, 1 - sum(self.busy_s) / (len(self.orders) * self.step_time_s))

    def passes(self, rank: int) -> Iterator[tuple[Action, float, float]]:
        """Every pass of ``rank`` with its start and end; of an overlap one after the other."""
        for action, start, end in zip(self.orders[rank], self.starts[rank], self.ends[rank], strict=True):
            middle = start
            for part in action.parts[:-1]:
                begin, middle = middle, middle + pass_s(part, self.times)
                yield part, begin, middle
            yield action.passes[-1], middle, end


def pipeline_timeline(orders: Sequence[Actions], times: PassTimes) -> Timeline:
    """When the passes of ``orders`` (by rank) happen, each as soon as it can.

    Raises:
        InputError: passes wait for each other or for one that is not there, or ``times`` lacks a stage.
    """
    from ..compiled import run

    program = pipeline_program(orders, times)
    starts, ends = run(program)
    bounds = [0]
    for own in orders:
        bounds.append(bounds[-1] + len(own))
    pieces = list(pairwise(bounds))
    return Timeline(
        orders=tuple(orders),
        starts=tuple(tuple(starts[a:b]) for a, b in pieces),
        ends=tuple(tuple(ends[a:b]) for a, b in pieces),
        times=times,
    )


def bubble_rate(orders: Sequence[Actions], times: PassTimes) -> float:
    """Share of the step in which ranks have nothing to do; see `Timeline.bubble_rate`."""
    return pipeline_timeline(orders, times).bubble_rate


def pipeline_program(orders: Sequence[Actions], times: PassTimes) -> Program:
    """The passes of ``orders`` (by rank) on each rank's compute stream, with the messages between ranks.

    Passes come first, rank by rank in order. A message takes ``times.transfer_s`` on a stream of its own
    (one for each sender, receiver and direction) after its pass; stages of one rank pass data on at once.
    An overlap lasts as long as its two passes one after the other, begins when both can and sends when
    both are done.

    Raises:
        InputError: a pass waits for one that is not there, or ``times`` lacks a stage.
    """
    _refuse_missing_stages(orders, times)
    program = Program()
    made: dict[Needs, tuple[int, int]] = {}
    """(operation, rank) of each pass that another waits for"""
    for rank, own in enumerate(orders):
        stream = program.stream(rank, "compute")
        for action in own:
            label = SpanLabel(rank, "compute", str(action), action.stage, action.micro_batch)
            seconds = sum(pass_s(part, times) for part in action.passes)
            op = program.add(seconds, (stream,), spans=(label,), rank=rank)
            for part in action.passes:
                if part.kind is Kind.FORWARD or part.kind in _GRADIENTS:
                    made[part.stage, part.kind is Kind.FORWARD, part.micro_batch] = (op, rank)
    _connect(program, orders, made, times)
    return program


def pass_s(action: Action, times: PassTimes) -> float:
    """Seconds of one forward, backward or half of a backward."""
    stage = action.stage
    if action.kind is Kind.FORWARD:
        return times.forward_s[stage]
    if action.kind is Kind.BACKWARD:
        return times.backward_s(stage)
    if action.kind is Kind.INPUT_GRADIENT:
        return times.input_gradient_s[stage]
    if action.kind is Kind.WEIGHT_GRADIENT:
        return times.weight_gradient_s[stage]
    raise InputError(f"{action} is no pass; expected F, B, I or W")


def _connect(
    program: Program, orders: Sequence[Actions], made: dict[Needs, tuple[int, int]], times: PassTimes
) -> None:
    """Let every pass come after what it needs; messages leave a rank in the order of its passes."""
    last = len(times.forward_s) - 1
    arrivals: dict[tuple[Needs, int], int] = {}
    op = -1
    for rank, own in enumerate(orders):
        for action in own:
            op += 1
            for part in action.passes:
                for needed, target in _sends(part, made, last):
                    arrivals[needed, target] = _message(program, part, op, (rank, target), times.transfer_s)
    op = -1
    for rank, own in enumerate(orders):
        for action in own:
            op += 1
            for part in action.passes:
                needed = _needs(part, last)
                if needed is None:
                    continue
                if needed not in made:
                    raise InputError(f"rank {rank}: {part} waits for a pass that no rank does")
                program.depend(op, arrivals.get((needed, rank), made[needed][0]))


def _needs(action: Action, last: int) -> Needs | None:
    """What a pass waits for, apart from the order of its rank."""
    if action.kind is Kind.FORWARD:
        return (action.stage - 1, True, action.micro_batch) if action.stage else None
    if action.kind is Kind.WEIGHT_GRADIENT:
        return (action.stage, False, action.micro_batch)
    if action.stage == last:
        return (action.stage, True, action.micro_batch)
    return (action.stage + 1, False, action.micro_batch)


def _sends(action: Action, made: dict[Needs, tuple[int, int]], last: int) -> list[tuple[Needs, int]]:
    """What a pass has to send, and the rank that it goes to: none within the rank."""
    forward = action.kind is Kind.FORWARD
    target = action.stage + (1 if forward else -1)
    if action.kind is Kind.WEIGHT_GRADIENT or not 0 <= target <= last:
        return []
    own = made[action.stage, forward, action.micro_batch]
    there = made.get((target, forward, action.micro_batch))
    if there is None or there[1] == own[1]:
        return []
    return [((action.stage, forward, action.micro_batch), there[1])]


def _message(program: Program, action: Action, after: int, route: tuple[int, int], seconds: float) -> int:
    """A message over ``route`` (sender and receiver); without seconds, its pass itself."""
    if seconds == 0:
        return after
    kind = Kind.SEND_F if action.kind is Kind.FORWARD else Kind.SEND_B
    sender, receiver = route
    label = SpanLabel(
        sender, "pp", str(Action(action.stage, kind, action.micro_batch)), action.stage, action.micro_batch
    )
    stream = program.stream(sender, f"{kind} {receiver}")
    return program.add(seconds, (stream,), after=[(after, 0.0)], spans=(label,))


def _refuse_missing_stages(orders: Sequence[Actions], times: PassTimes) -> None:
    stages = {part.stage for own in orders for action in own for part in action.passes}
    lengths = {len(times.forward_s), len(times.input_gradient_s), len(times.weight_gradient_s)}
    if not orders or any(not own for own in orders):
        raise InputError("a pipeline of ranks without passes; expected at least one on each")
    if lengths != {len(stages)} or stages != set(range(len(stages))):
        raise InputError(f"seconds of {max(lengths)} stages for passes of {len(stages)} stages")


def in_flight(own: Actions) -> int:
    """The most (stage, micro-batch) pairs that a rank keeps at once between forward and end of backward."""
    most = now = 0
    for action in own:
        now += sum(part.kind is Kind.FORWARD for part in action.passes)
        most = max(most, now)
        now -= sum(part.kind in _FREEING for part in action.passes)
    return most
