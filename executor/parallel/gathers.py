"""When a rank gathers sharded parameters: the blocks of its passes, by the plan, and what is gathered as each
of them begins.

A block's parameters are gathered as many blocks of the rank before it as its UNSHARD says, across passes and
stages (`sim/plan/blocks.py`); where the plan reshards after the pass, they are dropped behind the block.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ...sim.plan.action import Action, Actions, Kind
from ...sim.plan.blocks import blocks_of
from ...sim.plan.plan import Plan


@dataclass(slots=True, kw_only=True)
class PassGathers:
    """One pass through one stage."""

    part: Action
    blocks: tuple[tuple[int, ...], ...]
    """Layers, block by block in the order of the pass."""
    drops: bool
    """Whether the pass gathered its parameters for itself, and drops them behind each block."""
    begins: list[list[tuple[int, int]]] = field(default_factory=list)
    """By block: what is gathered as it begins, as (stage, layer)."""

    def block_of(self, layer: int) -> int:
        """The number of the block that ``layer`` is in."""
        return next(number for number, layers in enumerate(self.blocks) if layer in layers)


def pass_gathers(plan: Plan, pipeline_rank: int) -> dict[Action, PassGathers]:
    """By pass of the ranks of a pipeline stage; those of an overlap are two, which it gathers for at once."""
    actions = plan.actions[pipeline_rank]
    found: dict[Action, PassGathers] = {}
    begun: list[list[tuple[int, int]]] = []
    for place, blocks in enumerate(blocks_of(plan, pipeline_rank)):
        if not blocks:
            continue
        parts = actions[place].passes
        gathered = any(block.ahead >= 0 for block in blocks)
        for number, part in enumerate(parts):
            found[part] = PassGathers(
                part=part,
                blocks=tuple(block.layers[number] for block in blocks),
                drops=gathered and _is_resharded(actions, place, part.stage),
                begins=[[] for _ in blocks],
            )
        for number, block in enumerate(blocks):
            begun.append(found[parts[0]].begins[number])
            if block.ahead >= 0:
                issued = begun[max(0, len(begun) - 1 - block.ahead)]
                for part, layers in zip(parts, block.layers, strict=True):
                    issued += [(part.stage, layer) for layer in layers]
    return found


def _is_resharded(actions: Actions, place: int, stage: int) -> bool:
    """Whether the parameters of ``stage`` are dropped between the pass at ``place`` and the next."""
    for action in actions[place + 1 :]:
        if action.kind is Kind.RESHARD and action.stage == stage:
            return True
        if action.passes[0].micro_batch >= 0 and action.kind not in (Kind.SEND_F, Kind.SEND_B):
            return False
    return False
