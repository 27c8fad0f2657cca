"""What lowering passes share: lists of actions by pipeline rank, and walks over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ..action import Action, Actions, Kind
from ..schedules import Orders

PASSES = (Kind.FORWARD, Kind.BACKWARD, Kind.INPUT_GRADIENT, Kind.WEIGHT_GRADIENT)


def expand(actions: Orders, around: Callable[[Action], list[Action]]) -> Orders:
    """The lists with every action replaced by those that ``around`` puts in its place."""
    return tuple(tuple(new for action in own for new in around(action)) for own in actions)


def is_pass(action: Action) -> bool:
    """Whether it computes."""
    return action.kind in PASSES


def stage_ranks(actions: Sequence[Actions]) -> dict[int, int]:
    """By stage: the pipeline rank whose list runs it."""
    return {
        part.stage: rank
        for rank, own in enumerate(actions)
        for action in own
        for part in action.passes
        if part.stage >= 0
    }


def repeat_steps(actions: Orders, steps: int, micro_batches: int) -> Orders:
    """The same step ``steps`` times, micro-batches numbered on."""

    def numbered(action: Action, offset: int) -> Action:
        parts = tuple(numbered(part, offset) for part in action.parts)
        return replace(action, micro_batch=action.micro_batch + offset, parts=parts)

    return tuple(
        tuple(numbered(action, step * micro_batches) for step in range(steps) for action in own)
        for own in actions
    )
