"""What layers communicate inside their passes, and the seconds that their compute waits for it."""

from __future__ import annotations

from ..model.layer import BLOCK, Layer
from ..plan.traffic import Collective
from .communication import CommunicationCosts
from .compute import ComputeCosts
from .tensor_overlap import exposed_s
from .traffic import layer_collectives


class ExchangeCosts:
    """By kind of layer and direction; results are remembered."""

    def __init__(self, compute: ComputeCosts, communication: CommunicationCosts):
        self._compute, self._communication = compute, communication
        self._known: dict[tuple[str, bool], tuple[tuple[Collective, float], ...]] = {}

    def of(self, layer: Layer, *, backward: bool) -> tuple[tuple[Collective, float], ...]:
        """What one micro-batch's pass through ``layer`` communicates, with the seconds it makes compute
        wait on every rank."""
        key = (layer.kind, backward)
        if key not in self._known:
            job, strategy = self._compute.job, self._compute.strategy
            found = layer_collectives(job, strategy, layer.kind, backward=backward)
            self._known[key] = tuple((one, self._exposed_s(one, layer, backward)) for one in found)
        return self._known[key]

    def seconds(self, layer: Layer, *, backward: bool) -> float:
        """All that a pass through ``layer`` waits for."""
        return sum(seconds for _, seconds in self.of(layer, backward=backward))

    def _exposed_s(self, collective: Collective, layer: Layer, backward: bool) -> float:
        """Behind attention, only what is longer than attention on the keys that are there already."""
        compute, strategy = self._compute, self._compute.strategy
        one = self._communication.group_s(collective)
        if collective.dimension == "tp" and layer.kind == BLOCK:
            return exposed_s(one, collective, strategy, compute.gemms_s, backward=backward)
        if collective.dimension == "ep" and strategy.overlap_experts:
            hiding = compute.layer_s(layer.kind, backward=not backward)
            return max(0.0, one * collective.count - hiding) * collective.share
        if not collective.behind_attention:
            return one * collective.count * collective.share
        whole = compute.layer_s(layer.kind, backward=backward)
        attention = whole * compute.attention_share(layer.kind) / strategy.cp
        return max(0.0, one - attention) * collective.count * collective.share
