"""What a rank's compute waits for, as operations: exchanges inside layers, and sums before a step."""

from __future__ import annotations

from ..costs.pass_costs import Exchange
from ..plan.action import Action
from .build_context import BuildContext, span_label
from .placement import COMPUTE
from .rank_state import RankState


def add_exchange(
    context: BuildContext,
    rank: RankState,
    action: Action,
    exchange: Exchange,
    after: list[tuple[int, float]] | None = None,
) -> int:
    """Add ``exchange`` of ``action`` once ``after`` is over, and return its last operation: the core waits,
    then does its part of moving the bytes."""
    program, group = context.program, context.costs.groups[exchange.group]
    op = program.add(
        exchange.wire_s,
        (program.stream(rank.number, COMPUTE),),
        after=after,
        spans=(span_label(rank.number, action, exchange.dimension),),
        size_bytes=exchange.size_bytes,
        rank=context.slowness.collective_row(group, rank.number),
        sync=group.sync if program.axes else (),
        # The gathering and the scattering of a layer add up to whole rings.
        pattern=context.patterns.get("all_reduce", "") if exchange.dimension == "tp" else "",
    )
    if not exchange.cpu_s:
        return op
    return context.placement.compute(rank.number, exchange.cpu_s, [], parent=op)
