"""Seconds and bytes of everything a Plan's actions do, for one job with one strategy on one cluster.

All values are those of one rank, in seconds, without contention for cores: whoever builds the program
applies `concurrency_factor` and places operations on shared cores and links.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..errors import InputError
from ..hardware.cluster import Cluster
from ..hardware.curves import interpolate
from ..kernels import flops
from ..kernels.kernel import Kernel
from ..kernels.layer_kernels import layer_kernels, network_choices
from ..kernels.layer_profiles import profiled_s
from ..kernels.network_kernels import fastest
from ..kernels.optimizer_step import MASTER_BYTES, update_bytes
from ..kernels.recompute import repeated_blocks, repeated_parts
from ..kernels.roofline import kernel_s, kernels_s
from ..model.layer import BLOCK, EMBEDDING, HEAD, Layer
from ..network import transport as network
from ..plan.job import OPTIMIZER_STATES, Job
from ..plan.partition import held_parameters
from ..plan.rank_groups import Groups
from ..plan.strategy import Strategy
from . import tensor_overlap as overlap
from .traffic import Collective, gathering, layer_collectives, reduction, split_parameters


class Costs:
    """What a layer, an optimizer step, a message or a collective takes. Results are remembered.

    ``memory`` shares what is remembered among strategies of one job on one cluster.
    """

    def __init__(
        self, cluster: Cluster, job: Job, strategy: Strategy, memory: dict[tuple, Any] | None = None
    ):
        self.cluster, self.job, self.strategy = cluster, job, strategy
        self.groups = Groups(strategy)
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
        )
        """What of a strategy decides the compute of a layer."""
        self._remembered: dict[tuple, Any] = {} if memory is None else memory
        self._exchanges: dict[tuple, tuple[tuple[Collective, float], ...]] = {}
        self._sums: dict[tuple, float] = {}

    # Compute

    def forward_s(self, layer: Layer) -> float:
        """Seconds of one micro-batch's forward through ``layer``."""
        return self._remember(
            ("forward", layer.kind, self._shape), lambda: self._layer_s(layer.kind, backward=False)
        )

    def backward_s(self, layer: Layer) -> float:
        """Seconds of one micro-batch's backward, with what `strategy.recompute` computes again."""
        return self._remember(("backward", layer.kind, self._shape), lambda: self._backward_s(layer))

    def _backward_s(self, layer: Layer) -> float:
        return self._layer_s(layer.kind, backward=True) + self._recompute_s(layer)

    def weight_gradient_s(self, layer: Layer) -> float:
        """Seconds of the part of the backward that makes the gradients of weights."""
        return self._remember(
            ("weights", layer.kind, self._shape), lambda: self._weight_gradient_s(layer.kind)
        )

    def input_gradient_s(self, layer: Layer) -> float:
        """Seconds of the rest of the backward, recomputation included."""
        return max(0.0, self.backward_s(layer) - self.weight_gradient_s(layer))

    def _weight_gradient_s(self, kind: str) -> float:
        """The backward's share as the roofline divides it."""
        weights, whole = (self._roofline_s(kind, part) for part in ("weight_gradient", "backward"))
        return self._layer_s(kind, backward=True) * weights / whole if whole else 0.0

    def _layer_s(self, kind: str, *, backward: bool) -> float:
        """As profiled on this accelerator where it was, else by the roofline."""
        key = ("layer", kind, backward, self._shape)
        return self._remember(key, lambda: self._own_layer_s(kind, backward=backward))

    def _own_layer_s(self, kind: str, *, backward: bool) -> float:
        seconds = self._profiled_s(kind, backward=backward)
        return self._roofline_s(kind, "backward" if backward else "forward") if seconds is None else seconds

    def _profiled_s(self, kind: str, *, backward: bool) -> float | None:
        return profiled_s(self.cluster.accelerator, self.job, self.strategy, kind, backward=backward)

    def _roofline_s(self, kind: str, part: str) -> float:
        own = self._kernels(kind, part)
        return kernels_s(self.cluster.accelerator, own, self.job.precision, self._host_launch_s)

    @property
    def _host_launch_s(self) -> float:
        """An accelerator that is the host's own processor has its launches in its `framework_factor`."""
        return 0.0 if self.cluster.accelerator.kind == "cpu" else self.strategy.software.host_launch_s

    def _kernels(self, kind: str, part: str) -> tuple[Kernel, ...]:
        """Of a network, by the algorithms that are fastest here."""
        if self.job.model.network is None:
            return layer_kernels(self.job, self.strategy, kind, part)
        accelerator, precision = self.cluster.accelerator, self.job.precision
        choices = network_choices(self.job, self.strategy, kind, part)
        return fastest(choices, lambda kernel: kernel_s(accelerator, kernel, precision))

    def _attention_share(self, kind: str) -> float:
        """Attention's part of a layer's forward."""
        return self._remember(("attention", kind, self._shape), lambda: self._own_attention_share(kind))

    def _own_attention_share(self, kind: str) -> float:
        accelerator, precision = self.cluster.accelerator, self.job.precision
        own = self._kernels(kind, "forward")
        attention = sum(kernel_s(accelerator, k, precision) for k in own if k.attention)
        whole = sum(kernel_s(accelerator, k, precision) for k in own)
        return attention / whole if whole else 0.0

    def _recompute_s(self, layer: Layer) -> float:
        """What the policy repeats of the forward, in the mean over all blocks: its part of the kernels, or of
        a profiled forward."""
        if layer.kind in (EMBEDDING, HEAD) or self.strategy.recompute == "none":
            return 0.0
        blocks = repeated_blocks(self.job, self.strategy)
        policy, stops_early = self.strategy.recompute, self.strategy.software.recompute_stops_early
        if policy == "full" and not (stops_early and layer.kind == BLOCK):
            return blocks * self.forward_s(layer)
        own = self._kernels(layer.kind, "forward")
        parts = repeated_parts(self.job.model.decoder, layer.kind, policy, own, stops_early=stops_early)
        again = self._weighted_s(own, parts)
        if self._profiled_s(layer.kind, backward=False) is not None:
            again *= self.forward_s(layer) / self._weighted_s(own, [1.0] * len(own))
        return blocks * again

    def _weighted_s(self, kernels: Sequence[Kernel], parts: Sequence[float]) -> float:
        """Seconds of so much of each of ``kernels``."""
        accelerator, precision = self.cluster.accelerator, self.job.precision
        pairs = [(kernel, part) for kernel, part in zip(kernels, parts, strict=True) if part]
        device_s = sum(part * kernel_s(accelerator, kernel, precision) for kernel, part in pairs)
        host_s = self._host_launch_s * sum(part * kernel.launches for kernel, part in pairs)
        return max(accelerator.framework_factor * device_s, host_s)

    def concurrency_factor(self, active_ranks: int) -> float:
        """Factor on compute while ``active_ranks`` of a node compute, beyond a fair share of its cores."""
        host = self.cluster.host
        if host is None or not host.concurrency:
            return 1.0
        return interpolate(host.concurrency, active_ranks)

    # FLOPs, as papers count them (`flops.layer_flops`), on one tensor-parallel rank

    @property
    def tokens(self) -> float:
        """Tokens of one micro-batch on one rank."""
        return self.strategy.micro_batch * self.job.seq_len / self.strategy.cp

    def forward_flops(self, layer: Layer) -> float:
        """FLOPs of one micro-batch's forward on one rank."""
        whole = flops.model_layer_flops(
            self.job.model, layer.kind, tokens=self.tokens, seq_len=self.job.seq_len
        )
        return whole / self.strategy.tp

    def backward_flops(self, layer: Layer) -> float:
        """FLOPs of one micro-batch's backward on one rank, recomputed ones included."""
        again = repeated_blocks(self.job, self.strategy) * self._recompute_flops(layer)
        return 2.0 * self.forward_flops(layer) + again

    def _recompute_flops(self, layer: Layer) -> float:
        if layer.kind in (EMBEDDING, HEAD) or self.strategy.recompute == "none":
            return 0.0
        if self.strategy.recompute == "full":
            return self.forward_flops(layer)
        if self.strategy.recompute == "selective_op":
            return (
                self.tokens * flops.selective_op_flops(self.job.model.decoder, layer.kind) / self.strategy.tp
            )
        model, seq_len = self.job.model, self.job.seq_len
        whole = flops.layer_attention_flops(model, layer.kind, tokens=self.tokens, seq_len=seq_len)
        return whole / self.strategy.tp

    # Communication inside a layer

    def exchanges(self, layer: Layer, *, backward: bool) -> tuple[tuple[Collective, float], ...]:
        """What one micro-batch's pass through ``layer`` communicates, with the seconds it makes compute
        wait on every rank."""
        key = ("exchanges", layer.kind, backward)
        if key not in self._exchanges:
            found = layer_collectives(self.job, self.strategy, layer.kind, backward=backward)
            self._exchanges[key] = tuple((one, self._exposed_s(one, layer, backward)) for one in found)
        return self._exchanges[key]

    def _exposed_s(self, collective: Collective, layer: Layer, backward: bool) -> float:
        """Behind attention, only what is longer than attention on the keys that are there already."""
        one = self.group_s(collective)
        if collective.dimension == "tp" and layer.kind == BLOCK:
            return overlap.exposed_s(one, collective, self.strategy, self._products_s, backward=backward)
        if collective.dimension == "ep" and self.strategy.overlap_experts:
            beside = self._layer_s(layer.kind, backward=not backward)
            return max(0.0, one * collective.count - beside) * collective.share
        if not collective.behind_attention:
            return one * collective.count * collective.share
        whole = self._layer_s(layer.kind, backward=backward)
        attention = whole * self._attention_share(layer.kind) / self.strategy.cp
        return max(0.0, one - attention) * collective.count * collective.share

    def _products_s(self, part: str) -> tuple[float, ...]:
        """Seconds of a dense block's products in ``part`` of its passes, but those of attention."""
        return self._remember((part, self._shape), lambda: self._own_products_s(part))

    def _own_products_s(self, part: str) -> tuple[float, ...]:
        accelerator, precision = self.cluster.accelerator, self.job.precision
        own = layer_kernels(self.job, self.strategy, BLOCK, part)
        return tuple(kernel_s(accelerator, k, precision) for k in own if k.kind == "gemm" and not k.attention)

    def group_s(self, collective: Collective, first: int = 0) -> float:
        """Seconds of one such collective in the group that begins at rank ``first``."""
        ranks = self.groups[collective.group].ranks(first)
        if collective.operation == network.SEND_RECV:
            ranks = ranks[:2]
        if collective.dimension == "ep" and self.strategy.expert_dispatch == "per_node":
            return self._dispatched_per_node_s(collective, ranks)
        return self.collective_s(collective.operation, collective.size_bytes, ranks)

    def _dispatched_per_node_s(self, collective: Collective, ranks: Sequence[int]) -> float:
        """A token of k experts goes to n (1 - (1 - 1/n)^k) of n nodes in the mean, where routing is even, and
        inside a node to each expert; the slower of the two, which run side by side (DeepSeek-AI 2024,
        DeepSeek-V3, section 3.2.2)."""
        members = network.nodes_of(self.cluster, ranks)
        nodes, copies = len(members), self.job.model.decoder.experts_per_token
        inside = self.collective_s(
            collective.operation, collective.size_bytes, ranks[: next(iter(members.values()))]
        )
        if nodes == 1:
            return inside
        share = nodes * (1.0 - (1.0 - 1.0 / nodes) ** copies) / copies
        return max(inside, self.collective_s(collective.operation, share * collective.size_bytes, ranks))

    def gathering_s(self, layer: Layer) -> float:
        """Seconds to gather the parameters of ``layer`` from their shards."""
        return self._together_s(("gathering", layer.kind), gathering, layer)

    def reduction_s(self, layer: Layer) -> float:
        """Seconds to sum the gradients of ``layer`` over the replicas."""
        return self._together_s(("reduction", layer.kind), reduction, layer)

    def _together_s(self, key: tuple, collectives: Callable, layer: Layer) -> float:
        if key not in self._sums:
            dense, experts = split_parameters([layer], self.strategy)
            found = collectives(self.job, self.strategy, dense, experts)
            self._sums[key] = sum(self.group_s(one) * one.count for one in found)
        return self._sums[key]

    # Optimizer and gradients

    def optimizer_s(self, parameters: float) -> float:
        """Seconds to step ``parameters`` parameters of one rank, that is after the division by tp.

        Measured where the accelerator says so; else bound by memory: gradient, fp32 weight and states are
        read, weight and states written (and the weight as computed with).
        """
        accelerator = self.cluster.accelerator
        measured = accelerator.optimizer_costs.get(self.job.optimizer)
        if measured is not None:
            return measured.overhead_s + measured.per_parameter_s * parameters
        if parameters <= 0:
            return 0.0
        update = Kernel(kind="memory", flops=0.0, bytes=parameters * update_bytes(self.job, self.strategy))
        return kernels_s(accelerator, [update], self.job.precision)

    def layer_gradient_bytes(self, layer: Layer) -> float:
        """Bytes of one layer's gradients on one rank."""
        return self.gradient_bytes(held_parameters(layer, self.strategy))

    def gradient_bytes(self, parameters: float) -> float:
        """Bytes of the gradients of so many parameters, as accumulated and reduced."""
        return parameters * self.strategy.gradient_bytes(self.job)

    def step_s(self, dense: float, experts: float) -> float:
        """Seconds to step a rank's share of so many parameters, held whole before sharding.

        Offloaded states stream from host memory and back while the step computes.
        """
        shards = self.strategy.shards
        own = dense / shards + experts / max(1, shards // self.strategy.ep)
        seconds = self.optimizer_s(own)
        if self.strategy.offload in ("optimizer", "both"):
            states = own * (OPTIMIZER_STATES[self.job.optimizer] * 4 + MASTER_BYTES[self.job.precision])
            seconds = max(seconds, self.host_s(states))
        return seconds

    # Communication

    def host_s(self, size_bytes: float) -> float:
        """Seconds to move so much between an accelerator and the host's memory, one way.

        Raises:
            InputError: the cluster has no link that joins an accelerator to its host.
        """
        link = self.cluster.link("host")
        if link is None:
            raise InputError(
                f"cluster {self.cluster.name} has no link that joins host; offload needs one (joins: host)"
            )
        return link.latency + size_bytes / link.bandwidth

    def transfer_s(self, size_bytes: float, source_rank: int, target_rank: int) -> float:
        """Seconds of one message.

        Ranks of the source's stage send at once, so they share a link that is the node's.
        """
        pair = (source_rank, target_rank)
        sharing = self._node_ranks(self.strategy.replicas * self.strategy.tp)
        if self.strategy.gradient_exchange == "parameter_server":
            sharing = 1
        return self._remember(
            ("transfer", size_bytes, sharing, *self._placed(pair)),
            lambda: network.transport(self.cluster, network.SEND_RECV, pair, size_bytes, sharing=sharing),
        )

    def transfer_cpu_s(self, size_bytes: float) -> float:
        """Processor seconds that a host-staged message costs each of its two sides; 0 otherwise."""
        return network.processor_s(self.cluster, network.SEND_RECV, (0, 1), size_bytes)

    def collective_s(self, operation: str, size_bytes: float, ranks: Sequence[int]) -> float:
        """Seconds of a collective by the strategy's algorithm, once all of ``ranks`` are there.

        All ranks of a node are taken to be in such collectives at once, so the groups that cross a link
        that is the node's share it.
        """
        ranks = ranks if isinstance(ranks, range) else tuple(ranks)
        how = (self.strategy.collective_algorithm, self._node_ranks(self.strategy.world_size))
        return self._remember(
            (operation, size_bytes, ranks, how), lambda: self._collective_s(operation, size_bytes, ranks)
        )

    def _collective_s(self, operation: str, size_bytes: float, ranks: Sequence[int]) -> float:
        members = network.nodes_of(self.cluster, ranks)
        groups = self._node_ranks(self.strategy.world_size) // max(1, min(members.values(), default=1))
        return self._remember(
            (operation, size_bytes, self.strategy.collective_algorithm, groups, *self._placed(ranks)),
            lambda: network.transport(
                self.cluster,
                operation,
                ranks,
                size_bytes,
                algorithm=self.strategy.collective_algorithm,
                sharing=max(1, groups),
            ),
        )

    def _node_ranks(self, ranks: int) -> int:
        """How many of ``ranks`` consecutive ranks are on one node."""
        return min(ranks, self.cluster.accelerators_per_node)

    def _placed(self, ranks: Sequence[int]) -> tuple:
        """What of ``ranks`` decides their path: on a fabric all, on wires the nodes, else how many each."""
        if self.cluster.fabric is not None:
            return tuple(ranks)
        members = network.nodes_of(self.cluster, ranks)
        if self.cluster.wires:
            return tuple(members.items())
        return tuple(sorted(members.values()))

    def _remember(self, key: tuple, compute: Callable[[], Any]) -> Any:
        if key not in self._remembered:
            self._remembered[key] = compute()
        return self._remembered[key]
