"""The seconds of a stage: what its layers add up to, in one place for all who ask.

Whoever builds a program, bounds a step, arranges a schedule, compares accelerators or simulates parameter
servers sums the layers of a stage here. Layers of one kind cost the same, so each kind is asked once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..model.layer import Layer
from ..plan.action import Kind
from ..plan.joined_backward import joins_halves
from ..plan.rank_parameters import split_parameters
from ..plan.sharding import gathers_parameters, reduces_every_micro_batch
from .costs import Costs
from .rank_flops import backward_flops, forward_flops

OVERLAP_SLOWDOWN = 0.189
"""How much longer compute takes while a collective runs next to it, which takes multiprocessors and memory
bandwidth from it: mean over models and devices (Lee et al. 2025, "Characterizing Compute-Communication
Overlap in GPU-Accelerated Distributed Deep Learning", arXiv:2507.03114)."""


class StageCosts:
    """One micro-batch through some layers on one rank; or one optimizer step of them."""

    def __init__(self, costs: Costs):
        self.costs = costs
        # What runs plans on this machine differentiates checkpointed stages in one go.
        self._joins_halves = costs.is_executed and joins_halves(costs.strategy)

    def compute_s(self, layers: Sequence[Layer], *kinds: Kind) -> float:
        """Seconds of the passes ``kinds`` of each of ``layers``, with the device to themselves."""
        return _total(layers, lambda layer: sum(self._layer_s(kind, layer) for kind in kinds))

    def pass_s(self, layers: Sequence[Layer], kind: Kind) -> float:
        """The same of one pass, slower where parameters are gathered and gradients scattered meanwhile."""
        return _total(layers, lambda layer: self._next_to_traffic_s(kind, layer))

    def exchanges_s(self, layers: Sequence[Layer], *, backward: bool) -> float:
        """Seconds that the compute of a pass waits for what its layers communicate."""
        return _total(layers, lambda layer: self.costs.exchanges.seconds(layer, backward=backward))

    def sharding_s(self, layers: Sequence[Layer], *, gatherings: int, reductions: int) -> float:
        """Seconds of so many gatherings of the layers' parameters and reductions of their gradients."""
        one = self.costs.communication
        return _total(
            layers,
            lambda layer: gatherings * one.gathering_s(layer) + reductions * one.reduction_s(layer),
        )

    def step_s(self, layers: Sequence[Layer], copied: float = 0.0) -> float:
        """Seconds of one optimizer step; ``copied`` are dense parameters that are held besides."""
        dense, experts = split_parameters(layers, self.costs.strategy)
        return self.costs.optimizer.step_s(dense + copied, experts)

    def flops(self, layers: Sequence[Layer], kind: Kind) -> float:
        """FLOPs of one pass, as papers count them."""
        return _total(layers, lambda layer: self._layer_flops(kind, layer))

    def _layer_s(self, kind: Kind, layer: Layer) -> float:
        compute = self.costs.compute
        if kind is Kind.FORWARD:
            return compute.forward_s(layer)
        if kind is Kind.BACKWARD:
            return compute.backward_s(layer)
        if self._joins_halves:
            return compute.backward_s(layer) if kind is Kind.INPUT_GRADIENT else 0.0
        if kind is Kind.INPUT_GRADIENT:
            return compute.input_gradient_s(layer)
        return compute.weight_gradient_s(layer)

    def _next_to_traffic_s(self, kind: Kind, layer: Layer) -> float:
        """A processor that moves the bytes itself overlaps nothing, so nothing is slowed."""
        seconds, strategy = self._layer_s(kind, layer), self.costs.strategy
        if not gathers_parameters(strategy) or self.costs.cluster.host is not None:
            return seconds
        traffic_s = 0.0
        if kind is Kind.FORWARD or strategy.reshard_after_forward:
            traffic_s += self.costs.communication.gathering_s(layer)
        if kind is not Kind.FORWARD and reduces_every_micro_batch(strategy):
            traffic_s += self.costs.communication.reduction_s(layer)
        return seconds + OVERLAP_SLOWDOWN * min(seconds, traffic_s)

    def _layer_flops(self, kind: Kind, layer: Layer) -> float:
        """The gradients of weights take as many as the forward, those of inputs the rest of the backward."""
        job, strategy = self.costs.job, self.costs.strategy
        if kind is Kind.BACKWARD or (self._joins_halves and kind is Kind.INPUT_GRADIENT):
            return backward_flops(job, strategy, layer)
        if self._joins_halves and kind is Kind.WEIGHT_GRADIENT:
            return 0.0
        forward = forward_flops(job, strategy, layer)
        if kind is Kind.INPUT_GRADIENT:
            return backward_flops(job, strategy, layer) - forward
        return forward


def _total(layers: Sequence[Layer], cost: Callable[[Layer], float]) -> float:
    """The sum of ``cost`` over ``layers``, in their order."""
    known: dict[str, float] = {}
    for layer in layers:
        if layer.kind not in known:
            known[layer.kind] = cost(layer)
    return sum([known[layer.kind] for layer in layers])
