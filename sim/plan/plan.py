"""A Strategy made concrete for a Job: the rank grid, the stages, and every rank's list of Actions.

The Plan knows no seconds and no hardware. Ranks that do the same share one list, so a plan stays small
at any scale: there is one list for each pipeline rank and one for each parameter server. Its text form
is that of `torch.distributed.pipelining` (`2F0`, `1SEND_F4`), extended by the actions of parameter
servers, and round-trips.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

import numpy as np

from ..errors import InputError
from .job import Job
from .stage_placement import stage_rank
from .strategy import Strategy


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A run of layers on one pipeline rank: ``first_layer`` up to, not including, ``end_layer``."""

    index: int
    first_layer: int
    end_layer: int
    buckets: tuple[tuple[int, ...], ...] = ()
    """Layers whose gradients are reduced together, in the order backward makes them."""

    @property
    def layer_indices(self) -> range:
        return range(self.first_layer, self.end_layer)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One step of training for every rank, ready to be simulated or executed."""

    job: Job
    strategy: Strategy
    stages: tuple[Stage, ...]
    actions: tuple[Actions, ...]
    """By pipeline rank: what each of its ranks does, in order of issue, in `strategy.steps` steps."""
    server_actions: tuple[Actions, ...] = ()
    """By server. Synchronous servers do them in order; asynchronous ones serve each worker's as they come."""
    shards: tuple[tuple[int, ...], ...] = ()
    """By server: the layers whose parameters it holds."""
    cluster: dict[str, object] = field(default_factory=dict)
    """What the plan was made for: name, accelerator, kind, accelerators; empty for any machine."""

    @property
    def world_size(self) -> int:
        return self.strategy.world_size

    @property
    def micro_batches(self) -> int:
        """Micro-batches of one replica in one step."""
        return self.strategy.micro_batches(self.job)

    @cached_property
    def grid(self) -> np.ndarray:
        """Worker ranks as an array [pp, dp, cp, tp]: tensor-parallel ranks are neighbours (Megatron-LM)."""
        s = self.strategy
        return np.arange(s.workers).reshape(s.pp, s.dp, s.cp, s.tp)

    @cached_property
    def stage_ranks(self) -> tuple[int, ...]:
        """By stage: the pipeline rank that holds it; where the schedule is a file's, the one that runs it."""
        if self.strategy.schedule != "csv":
            name, ranks = self.strategy.schedule, self.strategy.pp
            return tuple(stage_rank(name, stage, ranks) for stage in range(len(self.stages)))
        found = {
            part.stage: rank
            for rank, actions in enumerate(self.actions)
            for action in actions
            for part in action.passes
        }
        return tuple(found.get(stage.index, 0) for stage in self.stages)

    def rank_stages(self, pipeline_rank: int) -> list[Stage]:
        """The stages that a pipeline rank holds."""
        return [
            stage for stage, rank in zip(self.stages, self.stage_ranks, strict=True) if rank == pipeline_rank
        ]

    @property
    def server_ranks(self) -> range:
        """Servers come after the workers, or on the first of them."""
        first = 0 if self.strategy.servers_colocated else self.strategy.workers
        return range(first, first + self.strategy.servers)

    def is_server(self, rank: int) -> bool:
        """Whether ``rank`` is nothing but a server."""
        return rank >= self.strategy.workers

    def coordinates(self, rank: int) -> tuple[int, int, int, int]:
        """A worker's (pp, dp, cp, tp) indices."""
        pp, dp, cp, tp = np.unravel_index(rank, self.grid.shape)
        return int(pp), int(dp), int(cp), int(tp)

    def rank_actions(self, rank: int) -> Actions:
        """What ``rank`` does in one step."""
        if self.is_server(rank):
            return self.server_actions[rank - self.strategy.workers]
        return self.actions[self.coordinates(rank)[0]]

    @property
    def has_copied_embedding(self) -> bool:
        """Whether a tied head lies on another pipeline rank than the embedding, so has its own matrix."""
        return self.job.model.decoder.tied_embeddings and self.stage_ranks[0] != self.stage_ranks[-1]

    def stage_parameters(self, stage: int) -> int:
        """Parameters of a stage over all its tensor- and expert-parallel ranks, with a copied embedding."""
        decoder, layers = self.job.model.decoder, self.job.model.layers
        count = sum(layers[i].parameters for i in self.stages[stage].layer_indices)
        copied = self.has_copied_embedding and stage == len(self.stages) - 1
        return count + (decoder.vocab * decoder.hidden if copied else 0)

    def stage_expert_parameters(self, stage: int) -> int:
        """Those of them that belong to experts."""
        layers = self.job.model.layers
        return sum(layers[i].expert_parameters for i in self.stages[stage].layer_indices)
