"""What one rank does, as `2F0`: stage 2, forward, micro-batch 0.

The text form is that of `torch.distributed.pipelining` (`2F0`, `1SEND_F4`), extended by the actions of
parameter servers, and round-trips.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from ..errors import InputError


class Kind(StrEnum):
    """What an action does; the values are the tokens of the text form."""

    FORWARD = "F"
    BACKWARD = "B"
    INPUT_GRADIENT = "I"
    WEIGHT_GRADIENT = "W"
    SEND_F = "SEND_F"
    RECV_F = "RECV_F"
    SEND_B = "SEND_B"
    RECV_B = "RECV_B"
    OVERLAP = "OVERLAP_F_B"
    """A forward and a backward side by side, as `(0F3;7B1)OVERLAP_F_B` (DualPipe)."""
    UNSHARD = "UNSHARD"
    """Gather a stage's parameters, block after block, ahead of the passes that need them (FSDP)."""
    RESHARD = "RESHARD"
    """Drop the gathered parameters."""
    REDUCE_GRAD = "REDUCE_GRAD"
    """Sum a bucket of gradients over the replicas: each keeps all of them, or, sharded, its own part."""
    REDUCE_TIED = "REDUCE_TIED"
    """Sum the gradients of tied embeddings over the first and the last stage (Megatron-LM)."""
    PUSH = "PUSH"
    """Gradients from a worker to the parameter servers; on a server the index is the worker."""
    PULL = "PULL"
    """Parameters from the servers to a worker; on a server the index is the worker."""
    STEP = "STEP"
    """Optimizer step."""
    AVERAGE = "AVERAGE"
    """Average the parameters over the replicas (local SGD)."""


BACKWARDS = (Kind.BACKWARD, Kind.WEIGHT_GRADIENT)
"""What completes the gradients of a micro-batch, and frees its activations."""

_ACTION = re.compile(r"(\d+)([A-Z](?:[A-Z_]*[A-Z])?)(\d*)\Z")
_OVERLAP = re.compile(r"\((\w+);(\w+)\)OVERLAP_F_B\Z")


@dataclass(frozen=True, slots=True, order=True)
class Action:
    """One step of one rank, as `2F0`: stage 2, forward, micro-batch 0."""

    stage: int
    kind: Kind
    index: int = -1
    """Micro-batch; for REDUCE_GRAD the bucket; for PUSH and PULL on a server the worker; -1 is none."""

    parts: tuple[Action, ...] = ()
    """Of an OVERLAP_F_B, the two passes; its own stage and index are those of the first."""

    @classmethod
    def overlap(cls, forward: Action, backward: Action) -> Action:
        """``forward`` and ``backward`` side by side on one rank."""
        return cls(forward.stage, Kind.OVERLAP, forward.index, (forward, backward))

    @property
    def passes(self) -> tuple[Action, ...]:
        """The action itself, or the passes that an overlap is made of."""
        return self.parts or (self,)

    def __str__(self) -> str:
        if self.parts:
            return f"({';'.join(map(str, self.parts))}){self.kind.value}"
        return f"{self.stage}{self.kind.value}{'' if self.index < 0 else self.index}"

    @classmethod
    def parse(cls, text: str) -> Action:
        """Read the text form. Raises InputError for anything else."""
        together = _OVERLAP.match(text.strip())
        if together is not None:
            return cls.overlap(cls.parse(together[1]), cls.parse(together[2]))
        match = _ACTION.match(text.strip())
        if match is None or match[2] not in Kind._value2member_map_ or match[2] == Kind.OVERLAP:
            raise InputError(
                f"{text!r} is not an action; expected a stage, one of {' '.join(Kind)}, an index"
            )
        return cls(int(match[1]), Kind(match[2]), int(match[3]) if match[3] else -1)


Actions = tuple[Action, ...]


def parse_actions(text: str | Sequence[str]) -> Actions:
    """Read a list of actions, as one text separated by blanks or as one text each."""
    tokens = text.split() if isinstance(text, str) else text
    return tuple(Action.parse(token) for token in tokens)
