"""How the passes of a rank are cut into blocks: where parameters are gathered, or gradients become whole.

A block is what the simulator plays, and what a process waits for, as one: some layers of a pass. A pass whose
parameters are there and whose gradients are not reduced yet is one block.
"""

from __future__ import annotations

from dataclasses import dataclass

from .action import BACKWARDS, Action, Actions, Kind
from .plan import Plan

PASSES = (Kind.FORWARD, Kind.BACKWARD, Kind.INPUT_GRADIENT, Kind.WEIGHT_GRADIENT, Kind.OVERLAP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Layers of a pass that are computed without a break."""

    layers: tuple[tuple[int, ...], ...]
    """Those of each pass of the action: of one, or of the two of an overlap."""
    bucket: int = -1
    """The bucket of gradients that is whole after it; -1 is none, or all of the pass."""
    ahead: int = -1
    """Blocks of the rank before it, at the beginning of which its parameters are gathered; -1 if they are
    there."""


def blocks_of(plan: Plan, pipeline_rank: int) -> list[tuple[Block, ...]]:
    """By place in a pipeline rank's list: the blocks of a pass; none of anything else."""
    actions = plan.actions[pipeline_rank]
    reducing = reduced_backwards(actions) if plan.strategy.overlap_gradients else set()
    to_gather: dict[int, int] = {}
    found: list[tuple[Block, ...]] = []
    for place, action in enumerate(actions):
        found.append(())
        if action.kind is Kind.UNSHARD and action.ahead >= 0:
            to_gather[action.stage] = action.ahead
        elif action.kind is Kind.RESHARD:
            to_gather.pop(action.stage, None)
        elif action.kind in PASSES:
            found[-1] = _cut(plan, action, place in reducing, to_gather)
            if action.kind is not Kind.WEIGHT_GRADIENT:
                for part in action.passes:
                    to_gather.pop(part.stage, None)
    return found


def _cut(plan: Plan, action: Action, is_reduced: bool, to_gather: dict[int, int]) -> tuple[Block, ...]:
    """``to_gather`` says how far ahead the parameters of a stage are gathered that are not there."""
    needs = [part.stage for part in action.passes if part.stage in to_gather]
    ahead = to_gather[needs[0]] if needs and action.kind is not Kind.WEIGHT_GRADIENT else -1
    if action.kind is Kind.OVERLAP:
        layers = tuple(tuple(plan.stages[part.stage].layer_indices) for part in action.passes)
        return (Block(layers=layers, ahead=ahead),)
    stage = plan.stages[action.stage]
    if is_reduced and stage.buckets:
        return tuple(
            Block(layers=(bucket,), bucket=number, ahead=ahead) for number, bucket in enumerate(stage.buckets)
        )
    layers = tuple(stage.layer_indices)
    if ahead >= 0:
        ordered = layers if action.kind is Kind.FORWARD else layers[::-1]
        return tuple(Block(layers=((layer,),), ahead=ahead) for layer in ordered)
    return (Block(layers=(layers,)),)


def reduced_backwards(actions: Actions) -> set[int]:
    """Places of the backwards after which gradients are reduced."""
    last: dict[int, int] = {}
    found: set[int] = set()
    for place, action in enumerate(actions):
        for part in action.passes:
            if part.kind in BACKWARDS:
                last[part.stage] = place
        if action.kind is Kind.REDUCE_GRAD:
            found.add(last[action.stage])
    return found
