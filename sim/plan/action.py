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
    OFFLOAD = "OFFLOAD"
    """A micro-batch's activations of a stage to host memory."""
    FETCH = "FETCH"
    """The same back."""
    REDUCE_GRAD = "REDUCE_GRAD"
    """Sum a bucket of gradients over the replicas: each keeps all of them, or, sharded, its own part."""
    REDUCE_TIED = "REDUCE_TIED"
    """Sum the gradients of tied embeddings over the first and the last stage (Megatron-LM)."""
    PUSH = "PUSH"
    """Gradients to the parameter servers: a worker's to all of them (`0PUSH`), or what one server takes from
    one worker (`1PUSH0`: server 1, worker 0); of one bucket only, `0PUSH.3` and `1PUSH0.3`."""
    PULL = "PULL"
    """Parameters from the servers: a worker's from all of them (`0PULL`), or what one server sends to one
    worker (`1PULL0`: server 1, worker 0); of one bucket only, `0PULL.3` and `1PULL0.3`."""
    APPLY = "APPLY"
    """A server's optimizer step: with all workers' gradients (`1APPLY`), or one's (`1APPLY0`: worker 0); of
    one bucket only, `1APPLY.3` and `1APPLY0.3`. Where they average local steps, the average."""
    STEP = "STEP"
    """A worker's optimizer step."""
    AVERAGE = "AVERAGE"
    """Average the parameters over the replicas (local SGD)."""


BACKWARDS = (Kind.BACKWARD, Kind.WEIGHT_GRADIENT)
"""What completes the gradients of a micro-batch, and frees its activations."""

_PASS = ("stage", "micro_batch")
_OF_SERVER = ("server", "worker")
_NUMBERS: dict[Kind, tuple[str, str]] = {
    **dict.fromkeys((Kind.FORWARD, Kind.BACKWARD, Kind.INPUT_GRADIENT, Kind.WEIGHT_GRADIENT), _PASS),
    **dict.fromkeys((Kind.SEND_F, Kind.RECV_F, Kind.SEND_B, Kind.RECV_B, Kind.OVERLAP), _PASS),
    **dict.fromkeys((Kind.OFFLOAD, Kind.FETCH), _PASS),
    **dict.fromkeys((Kind.RESHARD, Kind.REDUCE_TIED, Kind.PUSH, Kind.PULL), ("stage", "")),
    Kind.UNSHARD: ("stage", "ahead"),
    Kind.REDUCE_GRAD: ("stage", "bucket"),
    Kind.APPLY: _OF_SERVER,
    **dict.fromkeys((Kind.STEP, Kind.AVERAGE), ("rank", "")),
}
"""By kind: what the numbers before and after it stand for in the text form; empty is none."""
_SERVED = (Kind.PUSH, Kind.PULL)
"""Kinds that are a worker's without a second number, and a server's with one."""
_OF_BUCKETS = (Kind.PUSH, Kind.PULL, Kind.APPLY)
"""Kinds whose bucket, where they have one, follows a point."""

_ACTION = re.compile(r"(\d+)([A-Z](?:[A-Z_]*[A-Z])?)(\d*)(?:\.(\d+))?\Z")
_OVERLAP = re.compile(r"\(([\w.]+);([\w.]+)\)OVERLAP_F_B\Z")


@dataclass(frozen=True, slots=True, order=True)
class Action:
    """One step of one rank, as `2F0`: stage 2, forward, micro-batch 0.

    What does not apply to its kind is -1; the text form shows the numbers that do (`_NUMBERS`).
    """

    stage: int
    kind: Kind
    micro_batch: int = -1
    bucket: int = -1
    """Of a REDUCE_GRAD: a bucket of the stage's gradients. Of what passes between workers and servers: a
    bucket of the only stage's; -1 is all that a server holds."""
    ahead: int = -1
    """Of an UNSHARD: how many blocks of a pass ahead each block is gathered; -1 is all of them at once."""
    worker: int = -1
    """Of what a server does: the worker that it is done for; -1 is all."""
    server: int = -1
    """Of what a server does: its number."""
    rank: int = -1
    """Of a STEP or an AVERAGE: the pipeline rank, which does it for all its stages."""
    parts: tuple[Action, ...] = ()
    """Of an OVERLAP_F_B, the two passes; its own stage and micro-batch are those of the first."""

    @classmethod
    def of(
        cls,
        kind: Kind,
        *,
        stage: int = -1,
        micro_batch: int = -1,
        bucket: int = -1,
        ahead: int = -1,
        worker: int = -1,
        server: int = -1,
        rank: int = -1,
    ) -> Action:
        """The action of ``kind`` with the numbers named, as ``of(Kind.STEP, rank=1)``."""
        return cls(stage, kind, micro_batch, bucket, ahead, worker, server, rank)

    @classmethod
    def overlap(cls, forward: Action, backward: Action) -> Action:
        """``forward`` and ``backward`` side by side on one rank."""
        return cls(forward.stage, Kind.OVERLAP, forward.micro_batch, parts=(forward, backward))

    @property
    def passes(self) -> tuple[Action, ...]:
        """The action itself, or the passes that an overlap is made of."""
        return self.parts or (self,)

    @property
    def numbers(self) -> tuple[int, int]:
        """The numbers before and after the kind in the text form; -1 is none."""
        if self.server >= 0:
            return self.server, self.worker
        first, second = _NUMBERS[self.kind]
        return getattr(self, first), getattr(self, second) if second else -1

    def __str__(self) -> str:
        if self.parts:
            return f"({';'.join(map(str, self.parts))}){self.kind.value}"
        first, second = self.numbers
        bucket = f".{self.bucket}" if self.bucket >= 0 and self.kind in _OF_BUCKETS else ""
        return f"{first}{self.kind.value}{'' if second < 0 else second}{bucket}"

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
        kind = Kind(match[2])
        first, second = _OF_SERVER if kind in _SERVED and match[3] else _NUMBERS[kind]
        if match[3] and not second:
            raise InputError(
                f"{text!r} is not an action; expected nothing after {kind}, as in {match[1]}{kind}"
            )
        if match[4] and kind not in _OF_BUCKETS:
            raise InputError(
                f"{text!r} is not an action; expected .{match[4]} of {' '.join(_OF_BUCKETS)} only"
            )
        numbers = {first: match[1], second: match[3]} | ({"bucket": match[4]} if match[4] else {})
        return cls.of(kind, **{name: int(number) for name, number in numbers.items() if number})


Actions = Sequence[Action]
"""What one rank does, in order: a tuple, or an `ActionList` of a table of columns."""


def parse_actions(text: str | Sequence[str]) -> Actions:
    """Read a list of actions, as one text separated by blanks or as one text each."""
    tokens = text.split() if isinstance(text, str) else text
    return tuple(Action.parse(token) for token in tokens)
