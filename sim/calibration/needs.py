"""What of a plan decides which measurements predict it: how layers are divided, what ranks communicate."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from ..costs.traffic import layer_collectives
from ..hardware.layer_profile import Shard
from ..kernels.profile_keys import shard_of
from ..model.layer import MOE_BLOCK
from ..network.transport import SEND_RECV, SHIFT
from ..plan.action import Kind
from ..plan.plan import Plan
from ..plan.rank_groups import Groups
from ..plan.traffic import Collective, tensor_summing, tied_bytes

MESSAGE = SEND_RECV
"""Between two ranks."""
OPERATIONS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", SHIFT)
"""Of any number of ranks."""
LINK_BYTES = (4.0, float(2**20))
"""Sizes of messages that say what the link between ranks is, whatever a plan sends."""


def division(plan: Plan) -> Shard:
    """How ``plan`` divides the layers of its model."""
    return shard_of(plan.strategy, MOE_BLOCK)


def communicated(plan: Plan) -> dict[tuple[str, int], set[float]]:
    """Bytes of everything that ranks of ``plan`` say to each other, by operation and number of ranks."""
    sizes: dict[tuple[str, int], set[float]] = defaultdict(set)
    groups = Groups(plan.strategy)
    for collective in _collectives(plan):
        count = groups[collective.group].size
        if count > 1:
            name = SHIFT if collective.operation == SEND_RECV else collective.operation
            sizes[name, count].add(collective.size_bytes)
    if plan.world_size > 1:
        sizes[MESSAGE, 2].update((*LINK_BYTES, *plan.sizes.messages, *plan.sizes.shards))
    if plan.has_copied_embedding:
        sizes["all_reduce", 2].add(tied_bytes(plan.job, plan.strategy, executed=True))
    return dict(sizes)


def _collectives(plan: Plan) -> Iterable[Collective]:
    """Everything that ranks do together, each kind of it at least once."""
    for kind in {layer.kind for layer in plan.job.model.layers}:
        for backward in (False, True):
            yield from layer_collectives(plan.job, plan.strategy, kind, backward=backward)
    for stage in plan.stages:
        for bucket in range(len(stage.buckets)):
            yield from plan.reductions(stage.index, bucket)
    for rank in range(plan.strategy.pp):
        held = [plan.job.model.layers[i] for s in plan.rank_stages(rank) for i in s.layer_indices]
        summed = tensor_summing(plan.job, plan.strategy, held, executed=True)
        yield from [] if summed is None else [summed]
    for action in {a for actions in plan.actions for a in actions}:
        if action.kind is Kind.UNSHARD:
            layers = plan.stages[action.stage].layer_indices
            for several in [layers] if action.ahead < 0 else [[layer] for layer in layers]:
                yield from plan.gatherings(several)
        elif action.kind is Kind.AVERAGE:
            for stage in plan.rank_stages(action.rank):
                yield from plan.averages(stage.index)
