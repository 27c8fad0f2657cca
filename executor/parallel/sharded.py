"""Sharded states: zero1, zero2, fsdp and hsdp, as the plan gathers and reduces them.

One `Sharding` serves all stages of a rank. The trainer

- gives `parameters()` to the optimizer: fp32 parts, one tensor for each bucket, instead of the modules' own,
- calls `begin_pass` and `end_pass` around each pass (each of the two of an overlap),
- has `handlers` for UNSHARD, RESHARD and REDUCE_GRAD in its table,
- calls `finish()` before it looks at the gradients of the parts or steps.

What a pass gathers and drops by layers, and the buckets that are whole in the middle of a backward, are told
by hooks on the layers: before a layer's forward, and when the gradient of its output is there, by which time
all gradients behind it are. All ranks of a group pass these in the same order, so their collectives match.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd.graph import register_multi_grad_hook

from ...sim.plan.action import Action, Kind
from ...sim.plan.mixed_precision import bytes_per_gradient
from ...sim.plan.plan import Plan, Stage
from ...sim.plan.sharding import gathers_parameters
from ..model.decoder import COMPILED, Layers
from ..model.dtypes import DTYPES
from ..model.embedding import Embedding
from ..model.norm import LayerNorm, RmsNorm
from .gathers import PassGathers, pass_gathers
from .rank_context import RankContext
from .shard import Shard
from .surroundings import Surroundings


def refusals(plan: Plan, surroundings: Surroundings) -> list[str]:
    """What of the sharding of ``plan`` cannot be run, with the reason."""
    strategy = plan.strategy
    if strategy.sharding == "ddp" or strategy.replicas == 1:
        return []
    found = []
    vocab = plan.job.model.decoder.vocab
    if plan.job.model.network is None and vocab % strategy.tp:
        found.append(
            f"sharding {strategy.sharding} with tp {strategy.tp} of a vocabulary of {vocab} (tensor-parallel "
            "ranks then have unequal rows, and share out unlike parts)"
        )
    if plan.job.model.network is not None and _drops_before_weights(plan):
        found.append(
            f"sharding {strategy.sharding} of {plan.job.model.name} under schedule {strategy.schedule} "
            "(gradients of its norms' weights are made when the weights are dropped again); run zero1, zero2 "
            "or whole backwards"
        )
    ranks = plan.stage_ranks
    if plan.job.model.decoder.tied_embeddings and len(ranks) > 1 and ranks[0] == ranks[-1]:
        found.append(
            f"sharding {strategy.sharding} of tied embeddings under {strategy.schedule} (its first and its "
            "last stage lie on one rank, and would share out the one matrix twice)"
        )
    return found


def apply(stages: Mapping[int, Layers], here: RankContext) -> Sharding | None:
    """Share out the layers of the ``stages`` of a rank, by their numbers; None where the plan shares nothing
    out."""
    strategy = here.plan.strategy
    if strategy.sharding == "ddp" or strategy.replicas == 1:
        return None
    if _drops_before_weights(here.plan):
        for norm in (module for layers in stages.values() for module in layers.modules()):
            if isinstance(norm, RmsNorm | LayerNorm):
                norm.apart = True
    return Sharding(stages, here)


def _drops_before_weights(plan: Plan) -> bool:
    """Whether parameters are dropped behind the first half of a backward, before the second."""
    halved = any(part.kind is Kind.WEIGHT_GRADIENT for own in plan.actions for a in own for part in a.passes)
    return halved and gathers_parameters(plan.strategy) and plan.strategy.reshard_after_forward


class StageShards:
    """The parameters and gradients of one stage, bucket by bucket."""

    def __init__(self, layers: Layers, planned: Stage, here: RankContext):
        self.planned, self._here = planned, here
        held, experts = layers.layer_parameters(), layers.expert_parameters()
        self.buckets: list[list[Shard]] = []
        self.of_layer: dict[int, list[Shard]] = {index: [] for index in planned.layer_indices}
        """What a layer computes with and drops, by its index."""
        self.tied = _copied_table(layers, planned, here.plan)
        """The matrix that the first and the last stage both have, as a shard of its own, so that the parts of
        both are alike; None where this is neither."""
        for indices in planned.buckets:
            own = [p for index in indices for p in held[index]]
            dense = [p for p in own if p not in experts and p is not self.tied]
            found = [
                self._shard([p for p in own if p is self.tied], "shards"),
                self._shard(dense, "shards"),
                self._shard([p for p in own if p in experts], "expert_replicas"),
            ]
            self.buckets.append([shard for shard in found if shard is not None])
            for index in indices:
                self.of_layer[index] += self.buckets[-1]
        self.borrowed = _borrowed(layers, self.of_layer)
        """By layer: the shards of other layers that it computes with too, as a tied head the embedding's."""
        self._started = 0
        """Buckets whose reduction has begun in this backward."""
        self.is_armed = False

    def _shard(self, parameters: list[nn.Parameter], group: str) -> Shard | None:
        if not parameters:
            return None
        plan = self._here.plan
        half = bytes_per_gradient(plan.job.precision, plan.strategy.software) < torch.float32.itemsize
        dtype = DTYPES[plan.job.precision]
        hybrid = plan.strategy.sharding == "hsdp" and group == "shards"
        return Shard(
            parameters,
            self._here.wire(group),
            dtype=dtype,
            reduced=dtype if half else torch.float32,
            stays=not gathers_parameters(plan.strategy),
            replicas=self._here.wire("shard_replicas") if hybrid else None,
        )

    def parameters(self) -> list[nn.Parameter]:
        """What the optimizer steps."""
        return [shard.part for bucket in self.buckets for shard in bucket]

    def arm(self) -> None:
        """The backward that follows completes the gradients: each bucket is reduced when it is whole."""
        self.is_armed = True

    def made_above(self, layer: int) -> None:
        """The gradients of all layers above ``layer`` are there."""
        while self.is_armed and self._started < len(self.buckets):
            if min(self.planned.buckets[self._started]) <= layer:
                return
            self._start(self._started)

    def made(self, number: int) -> None:
        """The gradients of bucket ``number`` are there, and of those before it: begin what has not begun."""
        while self._started <= number:
            self._start(self._started)

    def reduce(self, number: int) -> None:
        """Begin to reduce bucket ``number``, and those before it, unless backward has."""
        self.made(number)
        if number == len(self.buckets) - 1:
            self._started, self.is_armed = 0, False

    def _start(self, number: int) -> None:
        """One bucket is under way at a time, as in `fully_shard`, whose gradients then stand once more."""
        self._started = number + 1
        for shard in self._shards():
            shard.go_on()
        for shard in self.buckets[number]:
            shard.reduce(Action(self.planned.index, Kind.REDUCE_GRAD, bucket=number))

    def finish(self) -> None:
        """Wait for all sums, which then are the gradients of `parameters`."""
        for shard in self._shards():
            shard.finish()

    def tied_gradient(self) -> Tensor:
        """This rank's part of the tied matrix' gradient, after `finish`."""
        (shard,) = (one for one in self._shards() if one.parameters[0] is self.tied)
        assert shard.part.grad is not None
        return shard.part.grad

    def gradients_of(self, wanted: Collection[nn.Parameter]) -> list[Tensor]:
        """What this rank has of the summed gradients of ``wanted``, after `finish`, as views in one order."""
        return [part for shard in self._shards() for part in shard.gradients_of(wanted)]

    def keep_gradients(self) -> None:
        """A backward is over, whose gradients are reduced later."""
        for shard in self._shards():
            shard.keep_gradients()

    def gather(self) -> None:
        """Gather all parameters at once, as after an optimizer step, and wait for them."""
        action = Action(self.planned.index, Kind.UNSHARD)
        wires = {}
        for shard in self._shards():
            pair = shard.place()
            if shard.wire.size > 1:
                wires.setdefault(shard.wire.name, (shard.wire, []))[1].append(pair)
        for pending in [wire.gather_into(pairs, action) for wire, pairs in wires.values()]:
            pending.wait()

    def drop(self) -> None:
        """Drop the gathered parameters."""
        for shard in self._shards():
            shard.drop()

    def values(self) -> dict[nn.Parameter, Tensor]:
        """All parameters in fp32, whole; called by all ranks alike, between steps."""
        return {p: value for shard in self._shards() for p, value in shard.values().items()}

    def gradients(self) -> dict[nn.Parameter, Tensor]:
        """All summed gradients, whole, after `finish`; called by all ranks alike."""
        return {p: value for shard in self._shards() for p, value in shard.gradients().items()}

    def _shards(self) -> Iterable[Shard]:
        return (shard for bucket in self.buckets for shard in bucket)


class Sharding:
    """The sharded stages of one rank."""

    def __init__(self, stages: Mapping[int, Layers], here: RankContext):
        plan = here.plan
        pipeline_rank = plan.coordinates(here.rank)[0]
        self._keeps = not (gathers_parameters(plan.strategy) and plan.strategy.reshard_after_forward)
        self._overlaps = plan.strategy.overlap_gradients
        self.stages = {
            index: StageShards(layers, plan.stages[index], here) for index, layers in stages.items()
        }
        self._passes = pass_gathers(plan, pipeline_rank)
        self._at: PassGathers | None = None
        self._block = self._ended = 0
        """Of the pass: the block at work, and the first that is not over."""
        # A compiled block would trace its hooks; only then is torch's compiler loaded to keep it from that.
        shield = torch._disable_dynamo if plan.strategy.stack == COMPILED else lambda hook: hook  # type: ignore[reportPrivateImportUsage]
        for index, layers in stages.items():
            _widen_embedding(layers, DTYPES[plan.job.precision])
            for layer_index, layer in zip(layers.indices, layers.layers, strict=True):
                self._watch(index, layer_index, layer, shield)

    @property
    def handlers(self) -> dict[Kind, Callable[[Action], None]]:
        """By kind of action: what does it."""
        return {Kind.UNSHARD: self._unshard, Kind.RESHARD: self._reshard, Kind.REDUCE_GRAD: self._reduce}

    def parameters(self) -> list[nn.Parameter]:
        """What the optimizer steps: this rank's parts, fp32."""
        return [p for stage in self.stages.values() for p in stage.parameters()]

    def begin_pass(self, part: Action, *, completes: bool = False) -> None:
        """``part`` is about to be computed; with ``completes`` its gradients are reduced."""
        self._at, self._block, self._ended = self._passes[part], 0, 0
        self._gather_at(0)
        if completes and part.kind is Kind.BACKWARD and self._overlaps:
            self.stages[part.stage].arm()

    def end_pass(self, part: Action) -> None:
        """``part`` has been computed."""
        at, stage = self._passes[part], self.stages[part.stage]
        self._begin_to(len(at.blocks) - 1)
        self._end_to(len(at.blocks))
        self._at = None
        if part.kind is Kind.FORWARD:
            return
        if stage.is_armed and part.kind is Kind.BACKWARD:
            stage.made_above(-1)
        else:
            stage.keep_gradients()

    def finish(self) -> None:
        """Wait for all reductions: the gradients of `parameters()` are there."""
        for stage in self.stages.values():
            stage.finish()

    def values(self) -> dict[nn.Parameter, Tensor]:
        """All parameters of the stages in fp32, whole, by the modules' own; called by all ranks alike."""
        return {p: value for stage in self.stages.values() for p, value in stage.values().items()}

    def gradients(self) -> dict[nn.Parameter, Tensor]:
        """All summed gradients, whole, after `finish`; called by all ranks alike."""
        return {p: value for stage in self.stages.values() for p, value in stage.gradients().items()}

    def _unshard(self, action: Action) -> None:
        """Passes gather by blocks; without a number of blocks ahead everything is gathered here."""
        if action.ahead < 0:
            self.stages[action.stage].gather()

    def _reshard(self, action: Action) -> None:
        """Passes that gather for themselves have dropped by blocks."""
        if self._keeps:
            self.stages[action.stage].drop()

    def _reduce(self, action: Action) -> None:
        stage = self.stages[action.stage]
        stage.reduce(action.bucket)
        if not self._overlaps:
            stage.finish()

    # What the hooks on layers tell

    def _watch(self, stage: int, index: int, layer: nn.Module, shield: Callable) -> None:
        ahead = shield(partial(self._before_layer, stage, index))
        behind = shield(partial(self._behind_layers, stage, index))

        def before_forward(module: nn.Module, inputs: tuple) -> None:
            behind(Kind.FORWARD)
            ahead()

        def before_backward(*_: object) -> None:
            behind(Kind.BACKWARD)
            ahead()

        def behind_forward(module: nn.Module, inputs: tuple, out: object) -> None:
            every = out if isinstance(out, tuple) else (out,)
            differentiated = [x for x in every if isinstance(x, Tensor) and x.requires_grad]
            if len(differentiated) == 1:
                differentiated[0].register_hook(before_backward)
            elif differentiated:
                # Parameters are needed for the first of them; all behind is made when the last is there.
                register_multi_grad_hook(differentiated, lambda _: ahead(), mode="any")
                register_multi_grad_hook(differentiated, lambda _: behind(Kind.BACKWARD))

        layer.register_forward_pre_hook(shield(before_forward))
        layer.register_forward_hook(shield(behind_forward))

    def _before_layer(self, stage: int, index: int) -> None:
        """A pass comes to a layer: its parameters have to be there."""
        at, shards = self._at, self.stages[stage]
        if at is None or at.part.kind is Kind.WEIGHT_GRADIENT:
            return
        self._begin_to(at.block_of(index))
        for shard in (*shards.of_layer[index], *shards.borrowed.get(index, ())):
            shard.ready()

    def _behind_layers(self, stage: int, index: int, kind: Kind) -> None:
        """A pass is through with the layers that it goes through before layer ``index``."""
        at = self._at
        if at is None or at.part.kind is Kind.WEIGHT_GRADIENT:
            return
        if kind is Kind.BACKWARD:
            self.stages[stage].made_above(index)
        self._end_to(at.block_of(index))

    def _begin_to(self, block: int) -> None:
        while self._block < block:
            self._block += 1
            self._gather_at(self._block)

    def _gather_at(self, block: int) -> None:
        assert self._at is not None
        for stage, layer in self._at.begins[block]:
            for shard in self.stages[stage].of_layer[layer]:
                shard.gather(Action(stage, Kind.UNSHARD))

    def _end_to(self, block: int) -> None:
        while self._ended < block:
            self._end(self._ended)
            self._ended += 1

    def _end(self, block: int) -> None:
        """Drop what the block gathered; what another layer borrows, once that has been through backward."""
        at = self._at
        if at is None or not at.drops:
            return
        shards, forward = self.stages[at.part.stage], at.part.kind is Kind.FORWARD
        lent = {id(shard) for own in shards.borrowed.values() for shard in own}
        for layer in at.blocks[block]:
            for shard in shards.of_layer[layer]:
                if not (forward and id(shard) in lent):
                    shard.release()
            if not forward:
                for shard in shards.borrowed.get(layer, ()):
                    shard.release()


def _borrowed(layers: Layers, of_layer: dict[int, list[Shard]]) -> dict[int, list[Shard]]:
    """By layer: the shards of other layers that hold a parameter of it."""
    found = {}
    for index, layer in zip(layers.indices, layers.layers, strict=True):
        own = {id(p) for p in layer.parameters()}
        others = [shard for other, shards in of_layer.items() if other != index for shard in shards]
        used = [shard for shard in others if any(id(p) in own for p in shard.parameters)]
        used = [shard for shard in used if shard not in of_layer[index]]
        if used:
            found[index] = used
    return found


def _copied_table(layers: Layers, planned: Stage, plan: Plan) -> nn.Parameter | None:
    """The matrix of tied embeddings in a first or last stage that lies on another rank than its fellow."""
    if not plan.has_copied_embedding or planned.index not in (0, len(plan.stages) - 1):
        return None
    return tied_matrix(layers, planned.index)


def tied_matrix(layers: Layers, stage: int) -> nn.Parameter:
    """The matrix of tied embeddings in the first stage, or in the last."""
    if stage == 0:
        return layers.layers[0].tokens.weight  # type: ignore[union-attr, return-value]
    return layers.layers[-1].output.weight  # type: ignore[union-attr, return-value]


def _widen_embedding(layers: Layers, dtype: torch.dtype) -> None:
    """The residual stream is fp32 whatever the embedding's table is gathered in."""
    if dtype is not torch.float32 and isinstance(layers.layers[0], Embedding):
        layers.layers[0].register_forward_hook(lambda module, inputs, out: out.float())
