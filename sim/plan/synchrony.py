"""Which strategies may be compared by the time of a step: those whose steps are the same progress."""

from __future__ import annotations

from .step_counts import is_unflushed
from .strategy import Strategy


def is_synchronous(strategy: Strategy) -> bool:
    """Whether a step is one update with the gradients of the whole batch, taken at the newest parameters.

    Not so where parameter servers do not wait for all workers, where replicas average now and then, and in
    pipelines that are never drained: what is updated there is not worth a synchronous step.
    """
    name, _ = strategy.protocol
    return name == "sync" and not is_unflushed(strategy)
