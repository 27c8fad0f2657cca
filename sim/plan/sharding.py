"""Sharded states (ZeRO, FSDP): when parameters are gathered and gradients reduced."""

from __future__ import annotations

from .strategy_fields import StrategyFields


def gathers_parameters(strategy: StrategyFields) -> bool:
    """Whether parameters are gathered before they are used (fsdp, hsdp)."""
    return strategy.sharding in ("fsdp", "hsdp")


def reduces_every_micro_batch(strategy: StrategyFields) -> bool:
    """Whether each backward reduces its gradients, so that none are kept whole.

    Of sharded gradients, except in a pipeline, where each stage accumulates and reduces once (as torchtitan
    does with FSDP under pipeline parallelism).
    """
    return strategy.sharding in ("zero2", "fsdp", "hsdp") and strategy.pp == 1
