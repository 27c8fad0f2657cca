"""The families of strategies: what tells one way to train from another, whatever its degrees and batches."""

from __future__ import annotations

from .strategy import Strategy


def family(strategy: Strategy) -> str:
    """The name of its family: what shares the work out, in the order of the strategy's label.

    >>> from traincast.sim.plan.strategy import Strategy
    >>> family(Strategy(dp=2, pp=2, micro_batch=4)), family(Strategy(dp=4, sharding="fsdp"))
    ('ddp × 1f1b', 'fsdp')
    """
    return " × ".join(family_parts(strategy)) or "one process"


def family_parts(strategy: Strategy) -> list[str]:
    """The words of its name: each thing that shares the work out, in order; none of one process."""
    parts = []
    name, _ = strategy.protocol
    if strategy.servers:
        parts.append(f"parameter server {name}")
    elif name == "local":
        parts.append("local SGD")
    elif strategy.dp > 1 and not strategy.ep > 1:
        parts.append(strategy.sharding)
    if strategy.tp > 1:
        parts.append("sequence parallel" if strategy.sequence_parallel else "tensor parallel")
    if strategy.cp > 1:
        parts.append(f"context parallel {strategy.cp_exchange}")
    if strategy.ep > 1:
        parts.append("expert parallel")
    if strategy.pp > 1:
        parts.append(strategy.schedule)
    if strategy.recompute != "none":
        parts.append(f"recompute {strategy.recompute}")
    return parts
