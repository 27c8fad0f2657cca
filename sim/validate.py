"""Is a Plan sound? Checked before anything runs, with the fault shown on the rank × time grid.

The actions are played in unit time: an action can run once what it needs was done in an earlier tick.
"""

from __future__ import annotations

from collections import Counter

from .errors import Fault, InputError
from .plan import Action, Actions, Kind, Plan

_SENT_BY = {Kind.RECV_F: (Kind.SEND_F, -1), Kind.RECV_B: (Kind.SEND_B, +1)}
"""A receive's matching send, and the stage it comes from, relative."""

_SHOWN_TICKS = 24
"""Columns of the grid around the fault; a wider one does not fit a terminal."""


def validate(plan: Plan) -> None:
    """Raise InputError listing what is missing, doubled, out of order, or would wait for ever."""
    faults = [*_layer_faults(plan), *_count_faults(plan)]
    if faults:
        raise InputError(faults)
    _play(plan.actions)


def _layer_faults(plan: Plan) -> list[Fault]:
    """Stages hold every layer exactly once, in order."""
    faults, expected = [], 0
    if len(plan.stages) != plan.strategy.pp or len(plan.actions) != plan.strategy.pp:
        found = f"{len(plan.stages)} stages with {len(plan.actions)} lists of actions"
        faults.append(Fault(path="stages", found=found, expected=f"pp = {plan.strategy.pp} of each"))
    for stage in plan.stages:
        if stage.first_layer != expected or stage.end_layer <= stage.first_layer:
            found = f"layers {stage.first_layer} to {stage.end_layer}"
            faults.append(
                Fault(path=f"stages[{stage.index}]", found=found, expected=f"to begin at layer {expected}")
            )
        expected = stage.end_layer
    if expected != len(plan.job.model.layers):
        count = len(plan.job.model.layers)
        faults.append(Fault(path="stages", found=f"{expected} layers", expected=f"all {count} of the model"))
    return faults


def _count_faults(plan: Plan) -> list[Fault]:
    """Every micro-batch has one F and one B (or I and W) on every stage, and nothing is foreign."""
    faults = []
    micro_batches = plan.micro_batches
    for stage, actions in enumerate(plan.actions):
        counts = Counter((a.kind, a.index) for a in actions)
        for action in actions:
            if action.stage != stage:
                faults.append(
                    Fault(path=f"actions[{stage}]", found=str(action), expected=f"an action of stage {stage}")
                )
        for index in range(micro_batches):
            faults += _micro_batch_faults(stage, index, counts)
        for (kind, index), count in counts.items():
            if count > 1:
                text = str(Action(stage, kind, index))
                faults.append(Fault(path=f"actions[{stage}]", found=f"{text} {count} times", expected="once"))
            if kind in (Kind.FORWARD, Kind.BACKWARD) and index >= micro_batches:
                text = str(Action(stage, kind, index))
                faults.append(
                    Fault(
                        path=f"actions[{stage}]",
                        found=text,
                        expected=f"micro-batches 0 to {micro_batches - 1}",
                    )
                )
    return faults


def _micro_batch_faults(stage: int, index: int, counts: Counter) -> list[Fault]:
    path = f"actions[{stage}]"
    faults = []
    if not counts[Kind.FORWARD, index]:
        faults.append(Fault(path=path, found="nothing", expected=str(Action(stage, Kind.FORWARD, index))))
    split = counts[Kind.INPUT_GRADIENT, index] and counts[Kind.WEIGHT_GRADIENT, index]
    if not counts[Kind.BACKWARD, index] and not split:
        faults.append(Fault(path=path, found="nothing", expected=str(Action(stage, Kind.BACKWARD, index))))
    return faults


def _play(actions: tuple[Actions, ...]) -> None:
    """Play all stages in unit time; raise InputError with the grid where they wait for each other."""
    cursors = [0] * len(actions)
    done: dict[Action, int] = {}
    grid: list[list[str]] = [[] for _ in actions]
    tick = 0
    while any(cursor < len(own) for cursor, own in zip(cursors, actions, strict=True)):
        ran = [
            stage
            for stage, own in enumerate(actions)
            if cursors[stage] < len(own) and _ready(own[cursors[stage]], done, tick, len(actions))
        ]
        if not ran:
            raise InputError(_deadlock(actions, cursors, grid))
        for stage, row in enumerate(grid):
            row.append(str(actions[stage][cursors[stage]]) if stage in ran else "")
        for stage in ran:
            done[actions[stage][cursors[stage]]] = tick
            cursors[stage] += 1
        tick += 1


def _ready(action: Action, done: dict[Action, int], tick: int, stages: int) -> bool:
    return all(done.get(need, tick) < tick for need in _needs(action, stages))


def _needs(action: Action, stages: int) -> list[Action]:
    """What must have been done before ``action``."""
    stage, kind, index = action.stage, action.kind, action.index
    if kind in _SENT_BY:
        sent, offset = _SENT_BY[kind]
        return [Action(stage + offset, sent, index)]
    if kind is Kind.FORWARD:
        return [Action(stage, Kind.RECV_F, index)] if stage else []
    if kind in (Kind.BACKWARD, Kind.INPUT_GRADIENT):
        received = [Action(stage, Kind.RECV_B, index)] if stage < stages - 1 else []
        return [Action(stage, Kind.FORWARD, index), *received]
    if kind is Kind.WEIGHT_GRADIENT:
        return [Action(stage, Kind.INPUT_GRADIENT, index)]
    if kind is Kind.SEND_F:
        return [Action(stage, Kind.FORWARD, index)]
    return []


def _deadlock(actions: tuple[Actions, ...], cursors: list[int], grid: list[list[str]]) -> Fault:
    waits = []
    for stage, own in enumerate(actions):
        if cursors[stage] < len(own):
            action = own[cursors[stage]]
            needs = " and ".join(map(str, _needs(action, len(actions))))
            waits.append(f"stage {stage} waits at {action} for {needs}")
    return Fault(
        path="actions",
        found="stages wait for each other: " + "; ".join(waits),
        expected="an order in which every receive has an earlier send\n" + _render(actions, cursors, grid),
    )


def _render(actions: tuple[Actions, ...], cursors: list[int], grid: list[list[str]]) -> str:
    width = max((len(cell) for row in grid for cell in row), default=4) + 1
    first = max(0, len(grid[0]) - _SHOWN_TICKS)
    lines = ["time     " + "".join(f"{t:<{width}}" for t in range(first, len(grid[0])))]
    for stage, row in enumerate(grid):
        cells = "".join(f"{cell or '.':<{width}}" for cell in row[first:])
        stuck = (
            f"{actions[stage][cursors[stage]]} <-- ERROR HERE" if cursors[stage] < len(actions[stage]) else ""
        )
        lines.append(f"stage {stage:<3}{cells}{stuck}")
    return "\n".join(lines)
