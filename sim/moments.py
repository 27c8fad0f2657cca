"""What is kept between forward and backward on one pipeline rank, pass by pass, and where that is most.

A forward keeps what its stage needs for backward, a backward (or its half that makes the gradients of
weights) frees it. While a pass is at work more stands beside that: a block that is computed again, gradients
of activations, the loss's own tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .plan import BACKWARDS, Actions, Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class StageBytes:
    """Bytes of one micro-batch on one stage."""

    kept: float
    """Activations, from forward to backward."""
    recomputed: float = 0.0
    """Of the block that backward has computed again, beyond what was kept of it."""
    gradients: float = 0.0
    """Gradients of activations while backward is at work."""
    loss_kept: float = 0.0
    """Logits and loss, from forward to backward; 0 but on the last stage."""
    loss_work: float = 0.0
    """Logits and loss at work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What stands while one pass is at work, in bytes."""

    number: int
    """Of the pass among those of its rank."""
    stage: int
    is_forward: bool
    activations_bytes: float
    logits_bytes: float
    workspace_bytes: float

    @property
    def total_bytes(self) -> float:
        return self.activations_bytes + self.logits_bytes + self.workspace_bytes


NOTHING = Moment(
    number=0, stage=0, is_forward=True, activations_bytes=0.0, logits_bytes=0.0, workspace_bytes=0.0
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
    """The stages of ``kept.actions`` in order, and +1 where a forward keeps, -1 where a backward frees."""
    stages, signs = [], []
    for action in kept.actions:
        for part in action.passes:
            if part.kind is Kind.FORWARD or part.kind in BACKWARDS:
                stages.append(part.stage)
                signs.append(1.0 if part.kind is Kind.FORWARD else -1.0)
    return np.array(stages, dtype=np.int64), np.array(signs)


def in_flight(actions: Actions) -> int:
    """The most micro-batches that are between forward and backward at any moment of ``actions``."""
    _, signs = _events(_Kept(actions))
    return max(0, int(np.cumsum(signs).max())) if len(signs) else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """Bytes at each pass of a rank, in order."""

    stages: np.ndarray
    signs: np.ndarray
    """+1 a forward, -1 a backward."""
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
            is_forward=bool(self.signs[number] > 0),
            activations_bytes=float(self.activations[number]),
            logits_bytes=float(self.logits[number]),
            workspace_bytes=float(self.workspace[number]),
        )


def walk(actions: Actions, sizes: Mapping[int, StageBytes], on_device: float = np.inf) -> Walk:
    """What stands at each forward and backward of ``actions``.

    ``sizes`` are those of the rank's stages; ``on_device`` is the most of the activations kept that is not
    offloaded (bytes).
    """
    stages, signs = _events(_Kept(actions))
    size = {name: np.zeros(max(sizes, default=0) + 1) for name in StageBytes.__slots__}
    for stage, own in sizes.items():
        for name, values in size.items():
            values[stage] = getattr(own, name)
    backward = signs < 0
    activations = np.minimum(_standing(signs, size["kept"][stages]), on_device)
    return Walk(
        stages=stages,
        signs=signs,
        activations=activations + np.where(backward, size["recomputed"][stages], 0.0),
        logits=_standing(signs, size["loss_kept"][stages]) + size["loss_work"][stages],
        workspace=np.where(backward, size["gradients"][stages], 0.0),
    )


def _standing(signs: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """What is kept at each pass: after a forward has kept its own, before a backward frees it."""
    after = np.cumsum(signs * sizes)
    return np.maximum(np.where(signs < 0, after + sizes, after), 0.0)
