"""How many parameters of a layer one rank holds, before any sharding."""

from __future__ import annotations

from collections.abc import Iterable

from ..model.layer import Layer
from .strategy import Strategy


def held_parameters(layer: Layer, strategy: Strategy) -> float:
    """Parameters of a layer on one rank, before any sharding: tp divides all but what is whole everywhere, ep
    the experts'."""
    experts, whole = layer.expert_parameters, layer.whole_parameters
    return whole + (layer.parameters - experts - whole + experts / strategy.ep) / strategy.tp


def split_parameters(layers: Iterable[Layer], strategy: Strategy) -> tuple[float, float]:
    """Dense and expert parameters of ``layers`` on one rank, before sharding."""
    dense = experts = 0.0
    for layer in layers:
        experts += layer.expert_parameters / (strategy.ep * strategy.tp)
        whole = layer.whole_parameters
        dense += whole + (layer.parameters - layer.expert_parameters - whole) / strategy.tp
    return dense, experts
