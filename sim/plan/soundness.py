"""Is a Plan sound? Checked before anything runs, with the fault shown on the rank × time grid.

The actions are played in unit time: an action can run once what it needs was done in an earlier tick.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from ..errors import Fault, InputError
from .action import Action, Actions, Kind
from .plan import Plan
from .step_counts import steps_played

_SENT_BY = {Kind.RECV_F: (Kind.SEND_F, -1), Kind.RECV_B: (Kind.SEND_B, +1)}
"""A receive's matching send, and the stage it comes from, relative."""

_GRADIENTS = (Kind.BACKWARD, Kind.INPUT_GRADIENT, Kind.WEIGHT_GRADIENT)
_PASSES = (Kind.FORWARD, *_GRADIENTS)
_OF_MICRO_BATCHES = (*_PASSES, Kind.OFFLOAD, Kind.FETCH)
_REPEATED = (Kind.UNSHARD, Kind.RESHARD, Kind.REDUCE_GRAD, Kind.REDUCE_TIED, Kind.STEP, Kind.AVERAGE)
"""Actions that a step may have several times."""

_OF_RANKS = (Kind.STEP, Kind.AVERAGE)
"""Actions of a pipeline rank, for all its stages."""

_SHOWN_TICKS = 24
"""Columns of the grid around the fault; a wider one does not fit a terminal."""


def validate(plan: Plan) -> None:
    """Raise InputError listing what is missing, doubled, out of order, or would wait for ever."""
    faults = [*_layer_faults(plan), *_count_faults(plan)]
    if faults:
        raise InputError(faults)
    _play(plan)


def _layer_faults(plan: Plan) -> list[Fault]:
    """Stages hold every layer exactly once, in order."""
    faults, expected = [], 0
    stages, ranks = plan.strategy.stages, plan.strategy.pp
    if len(plan.stages) != stages or len(plan.actions) != ranks:
        found = f"{len(plan.stages)} stages, {len(plan.actions)} lists of actions"
        wanted = f"pp × vp = {stages} stages, pp = {ranks} lists"
        faults.append(Fault(path="stages", found=found, expected=wanted))
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
    """Every stage is one rank's, has one F and one B (or I and W) for every micro-batch, nothing else."""
    faults = []
    micro_batches = plan.micro_batches * steps_played(plan.strategy, plan.job)
    holders: dict[int, int] = {}
    for rank, actions in enumerate(plan.actions):
        parts = [part for action in actions for part in action.passes]
        counts = Counter(parts)
        parts_of_stages = [part for part in parts if part.kind not in _OF_RANKS]
        strange = _foreign_faults(rank, parts, holders, plan.stage_ranks)
        faults += strange
        if strange:
            continue
        for stage in sorted({part.stage for part in parts_of_stages}):
            for index in range(micro_batches):
                faults += _micro_batch_faults(rank, stage, index, counts)
        faults += [*_surplus_faults(rank, counts, micro_batches), *_offload_faults(rank, counts)]
    missing = sorted(set(range(len(plan.stages))) - set(holders))
    if missing and not faults:
        faults.append(Fault(path="actions", found=f"no actions of stages {missing}", expected="all stages"))
    return faults


def _foreign_faults(
    rank: int, parts: list[Action], holders: dict[int, int], ranks: tuple[int, ...]
) -> list[Fault]:
    """Actions of stages that do not exist or belong to another rank; fills ``holders``."""
    faults = []
    for part in parts:
        if part.kind in _OF_RANKS:
            if part.rank != rank:
                expected = f"{rank}{part.kind}, of the rank itself"
                faults.append(Fault(path=f"actions[{rank}]", found=str(part), expected=expected))
        elif not 0 <= part.stage < len(ranks):
            expected = f"an action of stages 0 to {len(ranks) - 1}"
            faults.append(Fault(path=f"actions[{rank}]", found=str(part), expected=expected))
        elif ranks[part.stage] != rank or holders.setdefault(part.stage, rank) != rank:
            expected = f"no action of stage {part.stage}, which rank {ranks[part.stage]} holds"
            faults.append(Fault(path=f"actions[{rank}]", found=str(part), expected=expected))
    return faults


def _surplus_faults(rank: int, counts: Counter[Action], micro_batches: int) -> list[Fault]:
    faults = []
    for action, count in counts.items():
        if count > 1 and action.kind not in _REPEATED:
            faults.append(Fault(path=f"actions[{rank}]", found=f"{action} {count} times", expected="once"))
        if action.kind in _OF_MICRO_BATCHES and not 0 <= action.micro_batch < micro_batches:
            expected = f"micro-batches 0 to {micro_batches - 1}"
            faults.append(Fault(path=f"actions[{rank}]", found=str(action), expected=expected))
    return faults


def _offload_faults(rank: int, counts: Counter[Action]) -> list[Fault]:
    """What goes to the host comes back, and nothing else does."""
    twins = {Kind.OFFLOAD: Kind.FETCH, Kind.FETCH: Kind.OFFLOAD}
    wanted = [(action, replace(action, kind=twins[action.kind])) for action in counts if action.kind in twins]
    return [
        Fault(path=f"actions[{rank}]", found=f"{action} without {twin}", expected="both or none")
        for action, twin in wanted
        if twin not in counts
    ]


def _micro_batch_faults(rank: int, stage: int, index: int, counts: Counter[Action]) -> list[Fault]:
    path = f"actions[{rank}]"
    faults = []
    forward, backward, inputs, weights = (Action(stage, kind, index) for kind in (Kind.FORWARD, *_GRADIENTS))
    if not counts[forward]:
        faults.append(Fault(path=path, found="nothing", expected=str(forward)))
    if not counts[backward] and not (counts[inputs] and counts[weights]):
        faults.append(Fault(path=path, found="nothing", expected=str(backward)))
    return faults


def _play(plan: Plan) -> None:
    """Play all ranks in unit time; raise InputError with the grid where they wait for each other."""
    actions, ranks = plan.actions, plan.stage_ranks
    cursors = [0] * len(actions)
    done: dict[Action, int] = {}
    grid: list[list[str]] = [[] for _ in actions]
    tick = 0
    while any(cursor < len(own) for cursor, own in zip(cursors, actions, strict=True)):
        ran = [
            rank
            for rank, own in enumerate(actions)
            if cursors[rank] < len(own) and _ready(own[cursors[rank]], done, tick, ranks)
        ]
        if not ran:
            raise InputError(_deadlock(plan, cursors, grid))
        for rank, row in enumerate(grid):
            row.append(str(actions[rank][cursors[rank]]) if rank in ran else "")
        for rank in ran:
            for part in actions[rank][cursors[rank]].passes:
                done[_output(part)] = tick
            cursors[rank] += 1
        tick += 1


def _output(action: Action) -> Action:
    """Either way of making the gradient of a stage's input counts as its backward."""
    if action.kind is Kind.INPUT_GRADIENT:
        return Action(action.stage, Kind.BACKWARD, action.micro_batch)
    return action


def _ready(action: Action, done: dict[Action, int], tick: int, ranks: tuple[int, ...]) -> bool:
    return all(done.get(need, tick) < tick for need in _needs(action, ranks))


def _needs(action: Action, ranks: tuple[int, ...]) -> list[Action]:
    """What must have been done before ``action``; ``ranks`` is the rank of each stage."""
    if action.parts:
        return [need for part in action.parts for need in _needs(part, ranks)]
    stage, kind, index = action.stage, action.kind, action.micro_batch
    if kind in _SENT_BY:
        sent, offset = _SENT_BY[kind]
        return [Action(stage + offset, sent, index)]
    if kind is Kind.FORWARD:
        return _input(stage, stage - 1, Kind.RECV_F, Kind.FORWARD, index, ranks)
    if kind in (Kind.BACKWARD, Kind.INPUT_GRADIENT):
        gradient = _input(stage, stage + 1, Kind.RECV_B, Kind.BACKWARD, index, ranks)
        return [Action(stage, Kind.FORWARD, index), *gradient]
    if kind in (Kind.WEIGHT_GRADIENT, Kind.SEND_B):
        return [Action(stage, Kind.BACKWARD, index)]
    if kind is Kind.FETCH:
        return [Action(stage, Kind.OFFLOAD, index)]
    return [Action(stage, Kind.FORWARD, index)] if kind in (Kind.SEND_F, Kind.OFFLOAD) else []


def _input(
    stage: int, source: int, receive: Kind, made_by: Kind, index: int, ranks: tuple[int, ...]
) -> list[Action]:
    """What brings a pass its input: a message, or the other stage's pass on the same rank."""
    if not 0 <= source < len(ranks):
        return []
    here = ranks[source] == ranks[stage]
    return [Action(source, made_by, index) if here else Action(stage, receive, index)]


def _deadlock(plan: Plan, cursors: list[int], grid: list[list[str]]) -> Fault:
    waits = []
    for rank, own in enumerate(plan.actions):
        if cursors[rank] < len(own):
            action = own[cursors[rank]]
            needs = " and ".join(map(str, _needs(action, plan.stage_ranks)))
            waits.append(f"rank {rank} waits at {action} for {needs}")
    return Fault(
        path="actions",
        found="ranks wait for each other: " + "; ".join(waits),
        expected="an order in which every receive has an earlier send\n"
        + _render(plan.actions, cursors, grid),
    )


def _render(actions: tuple[Actions, ...], cursors: list[int], grid: list[list[str]]) -> str:
    width = max((len(cell) for row in grid for cell in row), default=4) + 1
    first = max(0, len(grid[0]) - _SHOWN_TICKS)
    lines = ["time     " + "".join(f"{t:<{width}}" for t in range(first, len(grid[0])))]
    for rank, row in enumerate(grid):
        cells = "".join(f"{cell or '.':<{width}}" for cell in row[first:])
        waits = cursors[rank] < len(actions[rank])
        stuck = f"{actions[rank][cursors[rank]]} <-- ERROR HERE" if waits else ""
        lines.append(f"rank {rank:<4}{cells}{stuck}")
    return "\n".join(lines)
