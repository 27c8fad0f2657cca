"""What must be measured of a machine to predict the plans that are to be run on it, and nothing else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..executor.calibrate.needs import (
    LayerNeed,
    MemoryNeed,
    Needs,
    OptimizerNeed,
    TransportNeed,
    thinned,
)
from ..executor.calibrate.trained import trained_text
from ..sim.calibration.needs import MESSAGE, OPERATIONS, communicated, division
from ..sim.model.model import Model
from ..sim.plan.job import OPTIMIZER_STATES
from ..sim.plan.joined_backward import has_halves
from ..sim.plan.plan import Plan

USUAL_RANKS = (2, 4)
USUAL_MEMORY_BATCHES = 4
"""Micro-batches of a step in which gradients are added up, where nobody says how many."""


def needs(plans: Iterable[Plan]) -> Needs:
    """What ``plans`` need: every division of their layers at every micro-batch that occurs, every
    communication at the sizes that occur, their optimizers, and as many ranks at once as they have. Code of
    the user's own that they name is found in the current directory."""
    own = list(plans)
    return Needs(
        layers=_layers(own),
        transports=_transports(own),
        optimizers=tuple(
            dict.fromkeys(OptimizerNeed(**_model(plan), optimizer=plan.job.optimizer) for plan in own)
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
    several = USUAL_MEMORY_BATCHES
    return Needs(
        layers=tuple(
            LayerNeed(decoder=decoder, seq_len=seq_len, micro_batch=size)
            for decoder in decoders
            for size in sizes
        ),
        transports=tuple(
            TransportNeed(operation=operation, ranks=count)
            for count in sorted(set(ranks))
            for operation in (*OPERATIONS, *([MESSAGE] if count == 2 else []))
        ),
        optimizers=tuple(
            OptimizerNeed(decoder=decoder, optimizer=name)
            for decoder in decoders
            for name in OPTIMIZER_STATES
        ),
        memories=tuple(
            MemoryNeed(decoder=decoder, seq_len=seq_len, micro_batch=size, micro_batches=count)
            for decoder in decoders
            for size, count in dict.fromkeys([(sizes[-1], 1), (sizes[-1], several), (sizes[0], several)])
        ),
        ranks=tuple(sorted(set(ranks))),
    )


def _layers(plans: Sequence[Plan]) -> tuple[LayerNeed, ...]:
    """Without repetition, the whole layers of each model first."""
    found: dict[LayerNeed, bool] = {}
    for plan in plans:
        need = _layer_need(plan)
        found[need] = found.get(need, False) or (not need.trained and has_halves(plan.actions))
    ordered = sorted(found.items(), key=lambda item: item[0].tp * item[0].cp * item[0].ep > 1)
    return tuple(replace(need, splits_backward=splits) for need, splits in ordered)


def _layer_need(plan: Plan) -> LayerNeed:
    tp, sequence_parallel, cp, exchange, ep = division(plan)
    return LayerNeed(
        **_model(plan),
        seq_len=plan.job.seq_len,
        micro_batch=plan.strategy.micro_batch,
        tp=tp,
        sequence_parallel=sequence_parallel,
        cp=cp,
        cp_exchange=exchange,
        ep=ep,
    )


def _model(plan: Plan) -> dict[str, Any]:
    """Which layers are meant: those of a decoder, or of any other model with what it is trained on."""
    if plan.job.model.network is None:
        return {"decoder": plan.job.model.decoder}
    return {"trained": trained_text(plan.job, str(Path.cwd()))}


def _transports(plans: Sequence[Plan]) -> tuple[TransportNeed, ...]:
    sizes: dict[tuple[str, int], set[float]] = defaultdict(set)
    for plan in plans:
        for place, own in communicated(plan).items():
            sizes[place] |= own
    return tuple(
        TransportNeed(operation=operation, ranks=count, sizes=thinned(own))
        for (operation, count), own in sorted(sizes.items())
        if own
    )


def _memories(plans: Sequence[Plan]) -> tuple[MemoryNeed, ...]:
    """Of each model the largest micro-batch by itself, and with others before it the largest and the
    smallest."""
    found: dict[tuple, list[MemoryNeed]] = defaultdict(list)
    for plan in plans:
        need = MemoryNeed(
            **_model(plan),
            seq_len=plan.job.seq_len,
            micro_batch=plan.strategy.micro_batch,
            micro_batches=min(plan.micro_batches, USUAL_MEMORY_BATCHES),
        )
        found[need.decoder, need.trained, need.seq_len, need.micro_batches > 1].append(need)
    chosen = []
    for (*_, several), own in found.items():
        ordered = sorted(own, key=lambda need: need.micro_batch)
        chosen += [ordered[-1], *([ordered[0]] if several else [])]
    return tuple(dict.fromkeys(chosen))
