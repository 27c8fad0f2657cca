"""What is kept between forward and backward on one pipeline rank, pass by pass, and where that is most.

A forward keeps what its stage needs for backward, a backward frees it. Where backward is split (Qi et al.
2023, Zero Bubble, section 2), its first half leaves what the gradients of weights need, its second frees
that. While a pass is at work more is there: a block that is computed again, gradients of activations,
the loss's own tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..plan.action import Actions, Kind
from ..plan.action_table import KINDS, ActionList

FORWARD, BACKWARD, INPUTS, WEIGHTS = range(4)
PASSES = {
    Kind.FORWARD: FORWARD,
    Kind.BACKWARD: BACKWARD,
    Kind.INPUT_GRADIENT: INPUTS,
    Kind.WEIGHT_GRADIENT: WEIGHTS,
}
"""What keeps or frees activations."""
_BY_CODE = np.array([PASSES.get(kind, -1) for kind in KINDS])
NAMES = ("forward", "backward", "gradients of inputs", "gradients of weights")


@dataclass(frozen=True, slots=True, kw_only=True)
class StageBytes:
    """Bytes of one micro-batch on one stage."""

    kept: float
    """Activations, from forward to backward."""
    for_weights: float = 0.0
    """What the gradients of weights need, from a backward's first half to its second."""
    recomputed: float = 0.0
    """Of the block that backward has computed again, beyond what was kept of it."""
    gradients: float = 0.0
    """Gradients of activations while backward is at work."""
    loss_kept: float = 0.0
    """Logits and loss, from forward to backward or its first half; 0 but on the last stage."""
    loss_work: float = 0.0
    """Logits and loss at work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What stands while one pass, or the optimizer, is at work, in bytes."""

    number: int
    """Of the pass among those of its rank."""
    stage: int
    at: str
    """One of `NAMES`, or `optimizer step`."""
    activations_bytes: float
    logits_bytes: float
    workspace_bytes: float

    @property
    def total_bytes(self) -> float:
        return self.activations_bytes + self.logits_bytes + self.workspace_bytes


NOTHING = Moment(
    number=0, stage=0, at=NAMES[FORWARD], activations_bytes=0.0, logits_bytes=0.0, workspace_bytes=0.0
)
"""Of a rank without passes."""


class _Kept:
    """A list of actions that is known by its identity, which a search asks for again and again."""

    def __init__(self, actions: Actions):
        self.actions = actions

    def __hash__(self) -> int:
        return id(self.actions)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Kept) and other.actions is self.actions


@lru_cache(maxsize=1024)
def _events(kept: _Kept) -> tuple[np.ndarray, np.ndarray]:
    """The stages of the passes of ``kept.actions`` in order, and which passes they are."""
    if isinstance(kept.actions, ActionList):
        own = _BY_CODE[kept.actions.column("kind")]
        return kept.actions.column("stage")[own >= 0], own[own >= 0]
    parts = [part for action in kept.actions for part in action.passes if part.kind in PASSES]
    stages = np.array([part.stage for part in parts], dtype=np.int64)
    return stages, np.array([PASSES[part.kind] for part in parts], dtype=np.int64)


def in_flight(actions: Actions) -> int:
    """The most micro-batches that are between forward and backward at any moment of ``actions``."""
    _, passes = _events(_Kept(actions))
    flying = np.cumsum(np.array([1, -1, 0, -1])[passes])
    return max(0, int(flying.max())) if len(flying) else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """Bytes at each pass of a rank, in order."""

    stages: np.ndarray
    passes: np.ndarray
    """`FORWARD`, `BACKWARD`, `INPUTS` or `WEIGHTS`."""
    activations: np.ndarray
    logits: np.ndarray
    workspace: np.ndarray

    @property
    def peak(self) -> Moment:
        """The moment when most stands; the first of several."""
        if not len(self.stages):
            return NOTHING
        return self.moment(int(np.argmax(self.activations + self.logits + self.workspace)))

    def moment(self, number: int) -> Moment:
        """What stands while pass ``number`` is at work."""
        return Moment(
            number=number,
            stage=int(self.stages[number]),
            at=NAMES[self.passes[number]],
            activations_bytes=float(self.activations[number]),
            logits_bytes=float(self.logits[number]),
            workspace_bytes=float(self.workspace[number]),
        )


def walk(actions: Actions, sizes: Mapping[int, StageBytes], on_device: float = np.inf) -> Walk:
    """What stands at each forward and backward of ``actions``.

    ``sizes`` are those of the rank's stages; ``on_device`` is the most of the activations kept that is not
    offloaded (bytes).
    """
    stages, passes = _events(_Kept(actions))
    size = {name: np.zeros(max(sizes, default=0) + 1) for name in StageBytes.__slots__}
    for stage, own in sizes.items():
        for name, values in size.items():
            values[stage] = getattr(own, name)
    at = {name: values[stages] for name, values in size.items()}
    nothing = np.zeros(len(stages))
    left = at["for_weights"]
    kept = _standing(passes, at["kept"], -at["kept"], left - at["kept"], -left)
    loss = _standing(passes, at["loss_kept"], -at["loss_kept"], -at["loss_kept"], nothing)
    differentiates = (passes == BACKWARD) | (passes == INPUTS)
    return Walk(
        stages=stages,
        passes=passes,
        activations=np.minimum(kept, on_device) + np.where(differentiates, at["recomputed"], 0.0),
        logits=loss + np.where(passes == WEIGHTS, 0.0, at["loss_work"]),
        workspace=np.where(differentiates, at["gradients"], 0.0),
    )


def _standing(passes: np.ndarray, *changes: np.ndarray) -> np.ndarray:
    """What is kept at each pass, where ``changes`` are what each kind of pass adds: the more of before and
    after it."""
    after = np.cumsum(np.choose(passes, changes)) if len(passes) else np.zeros(0)
    before = np.concatenate(([0.0], after[:-1]))
    return np.maximum(np.maximum(before, after), 0.0)
