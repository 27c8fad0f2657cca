"""Seconds that compute takes on one rank: a layer's forward and backward, and what is computed again.

A layer takes what was profiled on the accelerator, else what the roofline says of its kernels.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..hardware.cluster import Cluster
from ..hardware.curves import interpolate
from ..kernels.kernel import Kernel
from ..kernels.layer_kernels import layer_kernels, network_choices
from ..kernels.layer_profiles import correction, profiled_exchange_s, profiled_s
from ..kernels.network_kernels import fastest
from ..kernels.recompute import repeated_blocks, repeated_parts
from ..kernels.roofline import kernel_s, kernels_s
from ..model.layer import BLOCK, EMBEDDING, HEAD, Layer
from ..plan.job import Job
from ..plan.strategy import Strategy
from .eager import eager_recomputation
from .remembered import Remembered


def concurrency_factor(cluster: Cluster, active_ranks: int) -> float:
    """Factor on compute while ``active_ranks`` of a node compute, beyond a fair share of its cores; with what
    runs have corrected."""
    host, corrected = cluster.host, cluster.corrected("compute")
    if host is None or not host.concurrency:
        return corrected
    return interpolate(host.concurrency, active_ranks) * corrected


def probe_s(cluster: Cluster, active_ranks: int) -> float:
    """Seconds of the speed probe while ``active_ranks`` of a host take it, as calibrated; 0 where unknown."""
    host = cluster.host
    if host is None:
        return 0.0
    return host.probe_s * (interpolate(host.concurrency, active_ranks) if host.concurrency else 1.0)


class ComputeCosts:
    """Seconds of one micro-batch through a layer; results are remembered by the layer's kind."""

    def __init__(self, cluster: Cluster, job: Job, strategy: Strategy, remembered: Remembered):
        self.cluster, self.job, self.strategy = cluster, job, strategy
        self._remembered = remembered
        s = strategy
        self._shape = (
            s.micro_batch,
            s.tp,
            s.cp,
            s.ep,
            s.sequence_parallel,
            s.recompute,
            s.recompute_blocks,
            s.attention,
            s.stack,
            s.micro_batches(job) if s.software.autocast else 0,
        )
        """What of a strategy decides the compute of a layer."""

    def forward_s(self, layer: Layer) -> float:
        """Seconds of one micro-batch's forward through ``layer``."""
        return self._remembered.of(
            ("forward", layer.kind, self._shape), lambda: self.layer_s(layer.kind, backward=False)
        )

    def backward_s(self, layer: Layer) -> float:
        """Seconds of one micro-batch's backward, with what `strategy.recompute` computes again."""
        return self._remembered.of(("backward", layer.kind, self._shape), lambda: self._backward_s(layer))

    def weight_gradient_s(self, layer: Layer) -> float:
        """Seconds of the part of the backward that makes the gradients of weights."""
        return self._remembered.of(
            ("weights", layer.kind, self._shape), lambda: self._weight_gradient_s(layer.kind)
        )

    def input_gradient_s(self, layer: Layer) -> float:
        """Seconds of the rest of the backward, recomputation included."""
        measured = self._profiled_s(layer.kind, "input_gradient")
        if measured is not None:
            return measured + self._recompute_s(layer)
        return max(0.0, self.backward_s(layer) - self.weight_gradient_s(layer))

    def layer_s(self, kind: str, *, backward: bool) -> float:
        """As profiled on this accelerator where it was, else by the roofline."""
        key = ("layer", kind, backward, self._shape)
        return self._remembered.of(key, lambda: self._own_layer_s(kind, backward=backward))

    def exchange_s(self, kind: str, direction: str) -> tuple[float, float] | None:
        """Seconds that exchanges add to a layer's `forward` or `backward`, waiting and at work, as profiled
        on this accelerator; None where they were not."""
        return profiled_exchange_s(self.cluster.accelerator, self.job, self.strategy, kind, direction)

    def attention_share(self, kind: str) -> float:
        """Attention's part of a layer's forward."""
        return self._remembered.of(("attention", kind, self._shape), lambda: self._own_attention_share(kind))

    def gemms_s(self, part: str) -> tuple[float, ...]:
        """Seconds of a dense block's GEMMs in ``part`` of its passes, but those of attention."""
        return self._remembered.of((part, self._shape), lambda: self._own_gemms_s(part))

    def _backward_s(self, layer: Layer) -> float:
        if self.strategy.software.autocast and self.job.model.network is None:
            return self._eager_backward_s(layer)
        return self.layer_s(layer.kind, backward=True) + self._recompute_s(layer)

    def _eager_backward_s(self, layer: Layer) -> float:
        again = eager_recomputation(self.cluster.accelerator, self.job, self.strategy, layer.kind)
        own = self._kernels(layer.kind, "backward")
        parts = [*([1.0] * len(own)), *again.parts]
        host_s = again.host_s + self._host_s(own, [1.0] * len(own), backward=True)
        host_s += self._host_s(again.kernels, again.parts)
        seconds = max(self._device_s((*own, *again.kernels), parts), host_s)
        return seconds * self._correction(layer.kind, backward=True)

    def _weight_gradient_s(self, kind: str) -> float:
        """As profiled, else the backward's share as the roofline divides it."""
        measured = self._profiled_s(kind, "weight_gradient")
        if measured is not None:
            return measured
        weights, whole = (self._roofline_s(kind, part) for part in ("weight_gradient", "backward"))
        return self.layer_s(kind, backward=True) * weights / whole if whole else 0.0

    def _own_layer_s(self, kind: str, *, backward: bool) -> float:
        part = "backward" if backward else "forward"
        seconds = self._profiled_s(kind, part)
        if seconds is not None:
            return seconds
        return self._roofline_s(kind, part) * self._correction(kind, backward=backward)

    def _correction(self, kind: str, *, backward: bool) -> float:
        return correction(self.cluster.accelerator, self.job, self.strategy, kind, backward=backward)

    def _own_attention_share(self, kind: str) -> float:
        accelerator, precision = self.cluster.accelerator, self.job.precision
        own = self._kernels(kind, "forward")
        attention = sum(kernel_s(accelerator, k, precision) for k in own if k.attention)
        whole = sum(kernel_s(accelerator, k, precision) for k in own)
        return attention / whole if whole else 0.0

    def _own_gemms_s(self, part: str) -> tuple[float, ...]:
        accelerator, precision = self.cluster.accelerator, self.job.precision
        own = layer_kernels(self.job, self.strategy, BLOCK, part)
        return tuple(kernel_s(accelerator, k, precision) for k in own if k.kind == "gemm" and not k.attention)

    def _profiled_s(self, kind: str, part: str) -> float | None:
        return profiled_s(self.cluster.accelerator, self.job, self.strategy, kind, part)

    def _roofline_s(self, kind: str, part: str) -> float:
        own = self._kernels(kind, part)
        host_launch_s = self._host_launch_s(backward=part != "forward")
        return kernels_s(self.cluster.accelerator, own, self.job.precision, host_launch_s)

    def _host_launch_s(self, *, backward: bool = False) -> float:
        """As measured where it was, else as the stack says. An accelerator that is the host's own processor
        has its launches in its `framework_factor`."""
        accelerator, stack = self.cluster.accelerator, self.strategy.software
        if accelerator.kind == "cpu":
            return 0.0
        measured = accelerator if accelerator.host_launch_s else stack
        return (backward and measured.host_backward_launch_s) or measured.host_launch_s

    def _kernels(self, kind: str, part: str) -> tuple[Kernel, ...]:
        """Of a network, by the algorithms that are fastest here."""
        if self.job.model.network is None:
            return layer_kernels(self.job, self.strategy, kind, part)
        accelerator, precision = self.cluster.accelerator, self.job.precision
        choices = network_choices(self.job, self.strategy, kind, part)
        return fastest(choices, lambda kernel: kernel_s(accelerator, kernel, precision))

    def _recompute_s(self, layer: Layer) -> float:
        """What the policy repeats of the forward, in the mean over all blocks: its part of the kernels, or of
        a profiled forward. On processors it is the executor that trains, whatever the stack."""
        if layer.kind in (EMBEDDING, HEAD) or self.strategy.recompute == "none":
            return 0.0
        blocks = repeated_blocks(self.job, self.strategy)
        policy, is_executor = self.strategy.recompute, self.cluster.accelerator.kind == "cpu"
        stops_early = self.strategy.software.recompute_stops_early or is_executor
        if policy == "full" and not (stops_early and layer.kind == BLOCK):
            return blocks * self.forward_s(layer)
        own = self._kernels(layer.kind, "forward")
        parts = repeated_parts(
            self.job.model.decoder, layer.kind, policy, own, stops_early=stops_early, fused=is_executor
        )
        again = self._weighted_s(own, parts)
        if self._profiled_s(layer.kind, "forward") is not None:
            again *= self.forward_s(layer) / self._weighted_s(own, [1.0] * len(own))
        return blocks * again

    def _weighted_s(self, kernels: Sequence[Kernel], parts: Sequence[float]) -> float:
        """Seconds of so much of each of a forward's ``kernels``."""
        return max(self._device_s(kernels, parts), self._host_s(kernels, parts))

    def _device_s(self, kernels: Sequence[Kernel], parts: Sequence[float]) -> float:
        """Seconds of the device for so much of each of ``kernels``."""
        accelerator, precision = self.cluster.accelerator, self.job.precision
        pairs = [(kernel, part) for kernel, part in zip(kernels, parts, strict=True) if part]
        seconds = sum(part * kernel_s(accelerator, kernel, precision) for kernel, part in pairs)
        return accelerator.framework_factor * seconds

    def _host_s(self, kernels: Sequence[Kernel], parts: Sequence[float], *, backward: bool = False) -> float:
        """Seconds of the host to launch so much of each of ``kernels``."""
        launches = sum(part * kernel.launches for kernel, part in zip(kernels, parts, strict=True))
        return self._host_launch_s(backward=backward) * launches
