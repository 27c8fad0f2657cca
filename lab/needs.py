"""What must be measured of a machine to predict the plans that are to be run on it, and nothing else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from ..executor.calibrate.needs import (
    LayerNeed,
    MemoryNeed,
    Needs,
    OptimizerNeed,
    TransportNeed,
    thinned,
)
from ..sim.costs.traffic import layer_collectives
from ..sim.kernels.profile_keys import shard_of
from ..sim.model.layer import MOE_BLOCK
from ..sim.model.model import Model
from ..sim.network.transport import SEND_RECV, SHIFT
from ..sim.plan.action import Kind
from ..sim.plan.job import OPTIMIZER_STATES
from ..sim.plan.plan import Plan
from ..sim.plan.rank_groups import Groups
from ..sim.plan.traffic import Collective

USUAL_OPERATIONS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", SHIFT)
"""What ranks may communicate, measured where nobody says which plans will be run."""
USUAL_RANKS = (2, 4)
USUAL_MEMORY_BATCHES = 4
"""Micro-batches of a step in which gradients are added up, where nobody says how many."""


def needs(plans: Iterable[Plan]) -> Needs:
    """What ``plans``, of decoders, need: every division of their layers at every micro-batch that occurs,
    every communication at the sizes that occur, their optimizers, and as many ranks at once as they have."""
    own = [plan for plan in plans if plan.job.model.network is None]
    return Needs(
        layers=_layers(own),
        transports=_transports(own),
        optimizers=tuple(
            dict.fromkeys(
                OptimizerNeed(decoder=plan.job.model.decoder, optimizer=plan.job.optimizer) for plan in own
            )
        ),
        memories=_memories(own),
        ranks=tuple(sorted({plan.world_size for plan in own} - {1})),
    )


def usual_needs(
    models: Sequence[Model], seq_len: int, micro_batches: Sequence[int], ranks: Sequence[int] = USUAL_RANKS
) -> Needs:
    """What most plans of ``models`` need: whole layers, and all that ranks may say to each other."""
    decoders = [model.decoder for model in models]
    sizes = sorted(set(micro_batches))
    batches = sorted({1, USUAL_MEMORY_BATCHES})
    return Needs(
        layers=tuple(
            LayerNeed(decoder=decoder, seq_len=seq_len, micro_batch=size)
            for decoder in decoders
            for size in sizes
        ),
        transports=tuple(
            TransportNeed(operation=operation, ranks=count)
            for count in sorted(set(ranks))
            for operation in (*USUAL_OPERATIONS, *([SEND_RECV] if count == 2 else []))
        ),
        optimizers=tuple(
            OptimizerNeed(decoder=decoder, optimizer=name)
            for decoder in decoders
            for name in OPTIMIZER_STATES
        ),
        memories=tuple(
            MemoryNeed(decoder=decoder, seq_len=seq_len, micro_batch=sizes[-1], micro_batches=count)
            for decoder in decoders
            for count in batches
        ),
        ranks=tuple(sorted(set(ranks))),
    )


def _layers(plans: Sequence[Plan]) -> tuple[LayerNeed, ...]:
    """Without repetition, the whole layers of each model first."""
    found: dict[LayerNeed, bool] = {}
    for plan in plans:
        need = _layer_need(plan)
        found[need] = found.get(need, False) or _splits_backward(plan)
    ordered = sorted(found.items(), key=lambda item: item[0].tp * item[0].cp * item[0].ep > 1)
    return tuple(replace(need, splits_backward=splits) for need, splits in ordered)


def _layer_need(plan: Plan) -> LayerNeed:
    strategy, decoder = plan.strategy, plan.job.model.decoder
    tp, sequence_parallel, cp, exchange, ep = shard_of(strategy, MOE_BLOCK)
    return LayerNeed(
        decoder=decoder,
        seq_len=plan.job.seq_len,
        micro_batch=strategy.micro_batch,
        tp=tp,
        sequence_parallel=sequence_parallel,
        cp=cp,
        cp_exchange=exchange,
        ep=ep,
    )


def _splits_backward(plan: Plan) -> bool:
    halves = (Kind.INPUT_GRADIENT, Kind.WEIGHT_GRADIENT)
    return any(part.kind in halves for actions in plan.actions for a in actions for part in a.passes)


def _transports(plans: Sequence[Plan]) -> tuple[TransportNeed, ...]:
    sizes: dict[tuple[str, int], set[float]] = defaultdict(set)
    for plan in plans:
        groups = Groups(plan.strategy)
        for collective in _collectives(plan):
            count = groups[collective.group].size
            if count > 1:
                name = SHIFT if collective.operation == SEND_RECV else collective.operation
                sizes[name, count].add(collective.size_bytes)
        sizes[SEND_RECV, 2].update((*plan.sizes.messages, *plan.sizes.shards))
        if plan.has_copied_embedding:
            sizes["all_reduce", 2].add(_tied_bytes(plan))
    return tuple(
        TransportNeed(operation=operation, ranks=count, sizes=thinned(own))
        for (operation, count), own in sorted(sizes.items())
        if own
    )


def _tied_bytes(plan: Plan) -> float:
    decoder = plan.job.model.decoder
    return 4.0 * decoder.vocab * decoder.hidden / plan.strategy.tp


def _collectives(plan: Plan) -> Iterable[Collective]:
    """Everything that the ranks of ``plan`` do together, each kind of it at least once."""
    for kind in {layer.kind for layer in plan.job.model.layers}:
        for backward in (False, True):
            yield from layer_collectives(plan.job, plan.strategy, kind, backward=backward)
    for stage in plan.stages:
        for bucket in range(len(stage.buckets)):
            yield from plan.reductions(stage.index, bucket)
    for action in {a for actions in plan.actions for a in actions}:
        if action.kind is Kind.UNSHARD:
            layers = plan.stages[action.stage].layer_indices
            for several in [layers] if action.ahead < 0 else [[layer] for layer in layers]:
                yield from plan.gatherings(several)
        elif action.kind is Kind.AVERAGE:
            for stage in plan.rank_stages(action.rank):
                yield from plan.averages(stage.index)


def _memories(plans: Sequence[Plan]) -> tuple[MemoryNeed, ...]:
    """Of each model the largest micro-batch, once by itself and once with others before it."""
    largest: dict[tuple, MemoryNeed] = {}
    for plan in plans:
        several = plan.micro_batches > 1
        need = MemoryNeed(
            decoder=plan.job.model.decoder,
            seq_len=plan.job.seq_len,
            micro_batch=plan.strategy.micro_batch,
            micro_batches=min(plan.micro_batches, USUAL_MEMORY_BATCHES),
        )
        key = (need.decoder, need.seq_len, several)
        if key not in largest or largest[key].micro_batch < need.micro_batch:
            largest[key] = need
    return tuple(largest.values())
