"""The stages of a rank, built: layers, made parallel in the order that torchtitan's are."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ...sim.plan.action import Action, Kind
from ...sim.plan.joined_backward import has_halves
from ...sim.plan.plan import Plan
from ...sim.plan.plan import Stage as PlannedStage
from ...sim.plan.step_counts import is_unflushed
from ..model.decoder import COMPILED, Layers
from ..model.dtypes import DTYPES
from ..parallel import context, expert, precision, tensor
from ..parallel.data import Buckets
from ..parallel.offload import ActivationOffload
from ..parallel.rank_context import RankContext
from ..parallel.sharded import Sharding, StageShards, tied_matrix
from ..parallel.tensor import whole_parameters
from .stage import Stage


class HeldStage:
    """One stage of a rank: its layers, its passes, and what gathers, sends away and reduces."""

    def __init__(self, planned: PlannedStage, here: RankContext):
        self.planned, self.here = planned, here
        self.layers = _build(planned, here)
        is_halved = has_halves([here.plan.actions[here.plan.stage_ranks[planned.index]]])
        self.stage = Stage(
            self.layers,
            lambda: [p for p in self.layers.parameters() if p.requires_grad],
            takes_inputs=planned.index == 0,
            split_after=self._after_first if planned.index == 0 and is_halved else None,
            stashes_weights=is_unflushed(here.plan.strategy),
        )

    def share(self, sharding: Sharding | None, activations: ActivationOffload | None) -> None:
        """Take part in what the rank's stages share: sharded states, activations in host memory."""
        self.sharding, self.activations = sharding, activations
        held = self.layers.layer_parameters()
        self._runs = [[p for index in bucket for p in held[index]] for bucket in self.planned.buckets]
        """By bucket: its parameters."""
        self.buckets: Buckets | StageShards = (
            Buckets(self.layers, self.planned, self.here)
            if sharding is None
            else sharding.stages[self.planned.index]
        )

    def begin_pass(self, part: Action, *, completes: bool = False) -> None:
        """``part`` is about to be computed; with ``completes`` its gradients are reduced."""
        if self.activations is not None:
            self.activations.begin_pass(part)
        if self.sharding is not None:
            self.sharding.begin_pass(part, completes=completes)
        elif completes and part.kind is Kind.BACKWARD and self.here.plan.strategy.overlap_gradients:
            self.buckets.arm()

    def backward_weight(self, part: Action, *, completes: bool) -> None:
        """The second half of a backward; one that ``completes`` gradients makes them bucket by bucket, and
        each bucket is reduced meanwhile."""
        overlaps = completes and self.here.plan.strategy.overlap_gradients
        self.stage.backward_weight(part.micro_batch, self._runs if overlaps else (), self.buckets.made)

    def end_pass(self, part: Action) -> None:
        """``part`` has been computed."""
        if self.sharding is not None:
            self.sharding.end_pass(part)
        if self.activations is not None:
            self.activations.end_pass(part)

    def gradients(self) -> dict[str, Tensor]:
        """The summed gradients by name (`Layers.named`), whole; called by all ranks alike."""
        if isinstance(self.buckets, StageShards):
            found = self.buckets.gradients()
            named = self.layers.named().items()
            return {name: found[p] for name, p in named if p in found and p.requires_grad}
        return {name: p.grad for name, p in self.layers.named().items() if p.grad is not None}

    def parameters(self) -> dict[str, Tensor]:
        """The parameters by name, whole, fp32; called by all ranks alike."""
        named = self.layers.named()
        if isinstance(self.buckets, StageShards):
            found = self.buckets.values()
            return {name: found[p] for name, p in named.items()}
        return {name: p.detach() for name, p in named.items()}

    def summands(self) -> list[Tensor]:
        """Gradients of what every tensor-parallel rank has whole, or this rank's parts of them: what they are
        to be summed of."""
        whole = whole_parameters(self.layers)
        if isinstance(self.buckets, StageShards):
            return self.buckets.gradients_of(whole)
        return [p.grad for p in whole if p.grad is not None]

    def tied_gradient(self) -> Tensor:
        """That of the matrix which embedding and head share, on the first or the last stage: this rank's
        part of it where states are sharded."""
        if isinstance(self.buckets, StageShards):
            return self.buckets.tied_gradient()
        gradient = tied_matrix(self.layers, self.planned.index).grad
        assert gradient is not None
        return gradient

    def _after_first(self, tokens: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        return self.layers.first(tokens), self.layers.rest


def share_table(layers: Mapping[int, Layers], plan: Plan) -> None:
    """Where one rank has both ends of a pipeline, tied embeddings are one matrix, which the first stage looks
    after. ``layers`` are those of a rank's stages, by their numbers."""
    last = len(plan.stages) - 1
    if plan.job.model.decoder.tied_embeddings and last > 0 and {0, last} <= layers.keys():
        table = tied_matrix(layers[0], 0)
        layers[last].layers[-1].output.weight = table  # type: ignore[union-attr]
        layers[last].elsewhere = frozenset({table})


def loss_scale(plan: Plan) -> float:
    """Of a micro-batch's mean: gradients are then sums over micro-batches and the replicas who share an
    update; none do where each makes steps of its own (local SGD)."""
    strategy = plan.strategy
    sharing = 1 if strategy.protocol[0] == "local" else strategy.replicas
    return 1.0 / (plan.micro_batches * sharing)


def boundaries(here: RankContext) -> dict[int, Tensor]:
    """By stage but the last: an empty tensor like what it passes on."""
    plan = here.plan
    dtype = DTYPES[plan.job.precision]

    def shape(stage: PlannedStage) -> tuple[int, ...]:
        whole = here.workload.boundary_shape(stage.end_layer - 1, plan.strategy.micro_batch)
        if plan.job.model.network is not None:
            return whole
        samples, tokens, *rest = whole
        parts = plan.strategy.cp * (plan.strategy.tp if plan.strategy.sequence_parallel else 1)
        return (samples, tokens // parts, *rest)

    return {
        stage.index: torch.empty(shape(stage), dtype=dtype, device=here.device) for stage in plan.stages[:-1]
    }


def _build(planned: PlannedStage, here: RankContext) -> Layers:
    strategy = here.plan.strategy
    layers = here.workload.layers(
        planned.layer_indices,
        recompute=strategy.recompute,
        recompute_blocks=strategy.recompute_blocks,
        device=here.device,
    )
    layers.boundary_dtype = DTYPES[here.plan.job.precision]
    layers.loss = here.workload.loss
    layers.set_loss_scale(loss_scale(here.plan))
    for parallelism in (tensor, context, expert, precision):
        parallelism.apply(layers, here)
    if strategy.stack == COMPILED:
        layers.compile_blocks()
    return layers
