"""A Strategy made concrete for a Job: the rank grid, the stages, and every rank's list of Actions.

The Plan knows no seconds and no hardware. Ranks that do the same share one list, so a plan stays small
at any scale: there is one list for each pipeline rank and one for each parameter server.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..display import Shown
from .action import Actions
from .job import Job
from .rank_parameters import split_parameters
from .schedules import CARRIED, find_schedule
from .strategy import Strategy
from .traffic import Collective, averaging, gathering, layers_gradient_bytes, message_bytes, reduction


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A run of layers on one pipeline rank: ``first_layer`` up to, not including, ``end_layer``."""

    index: int
    first_layer: int
    end_layer: int
    buckets: tuple[tuple[int, ...], ...] = ()
    """Layers whose gradients are reduced, or pushed to their server, together, in the order backward makes
    them."""

    @property
    def layer_indices(self) -> range:
        return range(self.first_layer, self.end_layer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Bytes of a plan's messages, as whoever runs it sends them."""

    messages: tuple[float, ...]
    """By stage but the last: one micro-batch's activations to the next stage; their gradients come back."""
    buckets: tuple[tuple[float, ...], ...]
    """By stage and bucket: the gradients that a rank has before they are reduced."""
    shards: tuple[float, ...]
    """By server: the gradients that a worker pushes; as much as it pulls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Portion:
    """What a server holds and exchanges by itself: some layers, with a version of their own."""

    server: int
    """Its number."""
    layers: tuple[int, ...]
    bucket: int
    """Number of the bucket that it is, as actions name it; -1 where it is all that the server holds."""
    size_bytes: float
    """Gradients that a worker pushes; as much as it pulls."""


@dataclass(frozen=True, kw_only=True)
class Plan(Shown):
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

    def __repr__(self) -> str:
        sizes = f"{self.world_size:,} ranks, {len(self.stages)} stages, {self.micro_batches:,} micro-batches"
        return f"Plan({self.job.model.name}: {self.strategy.label}, {sizes})"

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
        if self.strategy.schedule != CARRIED:
            rank_of, ranks = find_schedule(self.strategy.schedule).stage_rank, self.strategy.pp
            return tuple(rank_of(stage, ranks) for stage in range(len(self.stages)))
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

    @cached_property
    def portions(self) -> tuple[Portion, ...]:
        """What workers exchange with servers: the buckets in the order in which they are pushed, or, where
        there are none, each server's layers."""
        if not self.shards:
            return ()
        server_of = {layer: server for server, shard in enumerate(self.shards) for layer in shard}
        buckets, layers = self.stages[0].buckets, self.job.model.layers
        return tuple(
            Portion(
                server=server_of[own[0]] if buckets else number,
                layers=tuple(own),
                bucket=number if buckets else -1,
                size_bytes=layers_gradient_bytes(self.job, self.strategy, [layers[i] for i in own]),
            )
            for number, own in enumerate(buckets or self.shards)
        )

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

    @cached_property
    def sizes(self) -> Sizes:
        """Bytes of every message between stages, replicas and servers."""
        job, strategy, layers = self.job, self.strategy, self.job.model.layers
        reduced = [
            [
                sum(c.size_bytes for c in self.reductions(s.index, b) if c.group != "shard_replicas")
                for b in range(len(s.buckets))
            ]
            for s in self.stages
        ]
        return Sizes(
            messages=tuple(message_bytes(job, strategy, layers[s.end_layer - 1]) for s in self.stages[:-1]),
            buckets=tuple(map(tuple, reduced)),
            shards=tuple(layers_gradient_bytes(job, strategy, [layers[i] for i in s]) for s in self.shards),
        )

    def reductions(self, stage: int, bucket: int) -> tuple[Collective, ...]:
        """What sums a bucket of gradients over the replicas, one after the other."""
        return reduction(self.job, self.strategy, *self._held(self.stages[stage].buckets[bucket]))

    def gatherings(self, layers: Iterable[int]) -> tuple[Collective, ...]:
        """What gathers the parameters of ``layers`` from their shards."""
        return gathering(self.job, self.strategy, *self._held(layers))

    def averages(self, stage: int) -> tuple[Collective, ...]:
        """What averages a stage's parameters over the replicas."""
        return averaging(self.job, *self._held(self.stages[stage].layer_indices))

    def _held(self, layers: Iterable[int]) -> tuple[float, float]:
        """Dense and expert parameters of ``layers`` on one rank, before sharding."""
        return split_parameters((self.job.model.layers[i] for i in layers), self.strategy)

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
