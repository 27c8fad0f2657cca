"""What layers communicate inside their passes, and the seconds that their compute waits for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..model.layer import BLOCK, Layer
from ..network.transport import is_host_staged
from ..plan.traffic import Collective, tensor_summing
from .communication import CommunicationCosts
from .compute import ComputeCosts
from .tensor_overlap import exposed_s
from .traffic import layer_collectives


class Exposed(NamedTuple):
    """One kind of communication of a pass through a layer, and what of its seconds compute waits for."""

    collective: Collective
    wire_s: float
    """Seconds in which the rank's core is idle."""
    cpu_s: float
    """Seconds that a host's core moves bytes instead of computing."""

    @property
    def seconds(self) -> float:
        """Of a rank that has its core to itself."""
        return self.wire_s + self.cpu_s


class ExchangeCosts:
    """By kind of layer and direction; results are remembered."""

    def __init__(self, compute: ComputeCosts, communication: CommunicationCosts, *, is_executed: bool):
        """``is_executed`` as `Costs` says it."""
        self._compute, self._communication, self._is_executed = compute, communication, is_executed
        self._known: dict[tuple[str, bool], tuple[Exposed, ...]] = {}
        self._shares: dict[tuple[str, bool], tuple[float, float]] = {}

    def of(self, layer: Layer, *, backward: bool) -> tuple[Exposed, ...]:
        """What one micro-batch's pass through ``layer`` communicates, with the seconds it makes compute
        wait on every rank."""
        key = (layer.kind, backward)
        if key not in self._known:
            job, strategy = self._compute.job, self._compute.strategy
            found = layer_collectives(job, strategy, layer.kind, backward=backward)
            exposed = [self._exposed(one, layer, backward) for one in found]
            if is_host_staged(self._communication.cluster):
                exposed = [self._as_profiled(one, layer, backward) for one in exposed]
            self._known[key] = tuple(exposed)
        return self._known[key]

    def seconds(self, layer: Layer, *, backward: bool) -> float:
        """All that a pass through ``layer`` waits for."""
        return sum(one.seconds for one in self.of(layer, backward=backward))

    def before_step(self, layers: Sequence[Layer], first: int) -> Exposed | None:
        """What tensor-parallel ranks sum before an optimizer step of ``layers``, in the group that begins at
        rank ``first``; all of it shows."""
        job, strategy = self._compute.job, self._compute.strategy
        collective = tensor_summing(job, strategy, layers, executed=self._is_executed)
        if collective is None:
            return None
        return Exposed(collective, *self._communication.group_shares(collective, first))

    def _exposed(self, collective: Collective, layer: Layer, backward: bool) -> Exposed:
        if is_host_staged(self._communication.cluster):
            return self._exposed_on_host(collective, layer, backward)
        return Exposed(collective, self._exposed_s(collective, layer, backward), 0.0)

    def _exposed_on_host(self, collective: Collective, layer: Layer, backward: bool) -> Exposed:
        """A core that moves the bytes computes nothing meanwhile; what hides behind attention is the time
        in which it would wait. Nothing else is overlapped there."""
        shares = self._communication.group_shares(collective)
        times, wire = collective.count * collective.share, shares.wire_s
        if collective.behind_attention:
            wire = max(0.0, wire - self._hiding_attention_s(layer, backward) / collective.together)
        return Exposed(collective, wire * times, shares.cpu_s * times)

    def _as_profiled(self, exposed: Exposed, layer: Layer, backward: bool) -> Exposed:
        """Its part of what all exchanges of the pass were seen to take, by its part of what they take each by
        itself."""
        of_backward = backward and not exposed.collective.repeats_forward
        waiting, at_work = self._profiled_shares(layer, of_backward)
        if waiting + at_work == 0.0:
            return exposed
        return exposed._replace(wire_s=exposed.seconds * waiting, cpu_s=exposed.seconds * at_work)

    def _profiled_shares(self, layer: Layer, backward: bool) -> tuple[float, float]:
        """Seconds profiled, waiting and at work, for each second that the exchanges of a layer's forward or
        backward take by themselves; nothing where they were not profiled."""
        key = (layer.kind, backward)
        if key not in self._shares:
            compute = self._compute
            measured = compute.exchange_s(layer.kind, "backward" if backward else "forward")
            found = layer_collectives(compute.job, compute.strategy, layer.kind, backward=backward)
            own = [self._exposed(one, layer, backward) for one in found if not one.repeats_forward]
            whole = sum(one.seconds for one in own)
            waiting, at_work = measured if measured is not None and whole > 0.0 else (0.0, 0.0)
            self._shares[key] = (waiting / whole, at_work / whole) if whole else (0.0, 0.0)
        return self._shares[key]

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
        waits = max(0.0, one - self._hiding_attention_s(layer, backward) / collective.together)
        return waits * collective.count * collective.share

    def _hiding_attention_s(self, layer: Layer, backward: bool) -> float:
        """Seconds of attention on one rank's part of the keys."""
        whole = self._compute.layer_s(layer.kind, backward=backward)
        return whole * self._compute.attention_share(layer.kind) / self._compute.strategy.cp
