"""Seconds and bytes of everything a Plan's actions do, for one job with one strategy on one cluster.

All values are those of one rank, in seconds, without contention for cores: whoever builds the program
applies `concurrency_factor` and places operations on shared cores and links.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

from . import kernels, network
from .cluster import Cluster
from .curves import interpolate
from .job import GRADIENT_BYTES, OPTIMIZER_STATES, Job
from .kernels import LOSS_BYTES, Kernel
from .model import BLOCK, EMBEDDING, Layer
from .profiles import profiled_s
from .roofline import kernel_s, kernels_s
from .strategy import Strategy

MASTER_BYTES = {"fp32": 0, "tf32": 0, "bf16": 4, "fp16": 8}
"""Bytes for one parameter that mixed precision adds: an fp32 copy of it, and of the fp16 gradient."""

BLOCK_ALL_REDUCES = 2
"""Tensor-parallel all-reduces of one block each direction (Shoeybi et al. 2019, figure 4)."""

LOSS_ALL_REDUCES = 3
"""Of one fp32 value a token in the vocabulary-parallel loss: maximum, own logit, sum (Megatron-LM)."""


class Costs:
    """What a layer, an optimizer step, a message or a collective takes. Results are remembered."""

    def __init__(self, cluster: Cluster, job: Job, strategy: Strategy):
        self.cluster, self.job, self.strategy = cluster, job, strategy
        self._remembered: dict[tuple, float] = {}

    # Compute

    def forward_s(self, layer: Layer) -> float:
        """Seconds of one micro-batch's forward through ``layer``."""
        return self._remember(("forward", layer.kind), lambda: self._layer_s(layer.kind, backward=False))

    def backward_s(self, layer: Layer) -> float:
        """Seconds of one micro-batch's backward, with what `strategy.recompute` computes again."""
        return self._remember(("backward", layer.kind), lambda: self._backward_s(layer))

    def _backward_s(self, layer: Layer) -> float:
        return self._layer_s(layer.kind, backward=True) + self._recompute_s(layer)

    def _layer_s(self, kind: str, *, backward: bool) -> float:
        """As profiled on this accelerator where it was, else by the roofline."""
        seconds = profiled_s(self.cluster.accelerator, self.job, self.strategy, kind, backward=backward)
        return self._roofline_s(kind, backward=backward) if seconds is None else seconds

    def _roofline_s(self, kind: str, *, backward: bool) -> float:
        return kernels_s(self.cluster.accelerator, self.kernels(kind, backward=backward), self.job.precision)

    def kernels(self, kind: str, *, backward: bool = False) -> tuple[Kernel, ...]:
        """The kernels of one layer of ``kind`` on one rank for one micro-batch, nothing recomputed."""
        make = kernels.backward_kernels if backward else kernels.forward_kernels
        return make(
            self.job.model.decoder,
            kind,
            micro_batch=self.strategy.micro_batch,
            seq_len=self.job.seq_len,
            tp=self.strategy.tp,
            bytes_per_value=self.job.bytes_per_value,
        )

    def _recompute_s(self, layer: Layer) -> float:
        """Selective recompute repeats attention's share of the forward, full the whole block's."""
        if layer.kind != BLOCK or self.strategy.recompute == "none":
            return 0.0
        if self.strategy.recompute == "full":
            return self.forward_s(layer)
        accelerator, precision = self.cluster.accelerator, self.job.precision
        own = self.kernels(BLOCK)
        attention = sum(kernel_s(accelerator, k, precision) for k in own if k.kind == "attention")
        whole = sum(kernel_s(accelerator, k, precision) for k in own)
        return self.forward_s(layer) * attention / whole

    def concurrency_factor(self, active_ranks: int) -> float:
        """Factor on compute while ``active_ranks`` of a node compute, beyond a fair share of its cores."""
        host = self.cluster.host
        if host is None or not host.concurrency:
            return 1.0
        return interpolate(host.concurrency, active_ranks)

    # FLOPs, as papers count them (`kernels.layer_flops`), on one tensor-parallel rank

    @property
    def tokens(self) -> int:
        """Tokens of one micro-batch."""
        return self.strategy.micro_batch * self.job.seq_len

    def forward_flops(self, layer: Layer) -> float:
        """FLOPs of one micro-batch's forward on one rank."""
        whole = kernels.layer_flops(
            self.job.model.decoder, layer.kind, tokens=self.tokens, seq_len=self.job.seq_len
        )
        return whole / self.strategy.tp

    def backward_flops(self, layer: Layer) -> float:
        """FLOPs of one micro-batch's backward on one rank, recomputed ones included."""
        return 2.0 * self.forward_flops(layer) + self._recompute_flops(layer)

    def _recompute_flops(self, layer: Layer) -> float:
        if layer.kind != BLOCK or self.strategy.recompute == "none":
            return 0.0
        if self.strategy.recompute == "full":
            return self.forward_flops(layer)
        decoder, seq_len = self.job.model.decoder, self.job.seq_len
        return kernels.attention_flops(decoder, tokens=self.tokens, seq_len=seq_len) / self.strategy.tp

    # Tensor parallelism

    def tensor_parallel_bytes(self, layer: Layer, *, backward: bool = False) -> float:
        """Bytes that one rank gives to all-reduces for one micro-batch in one direction."""
        return sum(self._all_reduces(layer, backward=backward))

    def tensor_parallel_forward_s(self, layer: Layer) -> float:
        """Seconds of the tensor-parallel all-reduces of one micro-batch's forward."""
        return self._tensor_parallel_s(layer, backward=False)

    def tensor_parallel_backward_s(self, layer: Layer) -> float:
        """The same for backward; full recompute repeats a block's forward ones."""
        return self._tensor_parallel_s(layer, backward=True)

    def _tensor_parallel_s(self, layer: Layer, *, backward: bool) -> float:
        ranks = range(self.strategy.tp)
        return self._remember(
            ("tensor parallel", layer.kind, backward),
            lambda: sum(
                self.collective_s("all_reduce", size, ranks)
                for size in self._all_reduces(layer, backward=backward)
            ),
        )

    def _all_reduces(self, layer: Layer, *, backward: bool) -> list[float]:
        """Bytes of each all-reduce (Shoeybi et al. 2019, section 3).

        Each block has two in either direction. The vocabulary-parallel embedding sums its look-ups forward
        and needs none backward; the head sums the gradient of its input backward, and forward three values
        a token for the loss.
        """
        if self.strategy.tp == 1:
            return []
        if layer.kind == BLOCK:
            repeated = 2 if backward and self.strategy.recompute == "full" else 1
            return [self.boundary_bytes] * (BLOCK_ALL_REDUCES * repeated)
        if layer.kind == EMBEDDING:
            return [] if backward else [self.boundary_bytes]
        return [self.boundary_bytes] if backward else [float(LOSS_BYTES * self.tokens)] * LOSS_ALL_REDUCES

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
        update = Kernel(kind="memory", flops=0.0, bytes=parameters * self._optimizer_bytes)
        return kernels_s(accelerator, [update], self.job.precision)

    @cached_property
    def _optimizer_bytes(self) -> int:
        """Bytes read and written for one parameter."""
        fp32 = 4
        kept = 2 * fp32 * (1 + OPTIMIZER_STATES[self.job.optimizer])
        written_again = self.job.bytes_per_value if MASTER_BYTES[self.job.precision] else 0
        return kept + GRADIENT_BYTES[self.job.precision] + written_again

    def layer_gradient_bytes(self, layer: Layer) -> float:
        """Bytes of one layer's gradients on one rank, as reduced over the data-parallel replicas."""
        return layer.parameters / self.strategy.tp * GRADIENT_BYTES[self.job.precision]

    # Communication

    @property
    def boundary_bytes(self) -> float:
        """Bytes of one micro-batch's activations between two layers, which every tp rank has whole."""
        return float(self.tokens * self.job.model.decoder.hidden * self.job.bytes_per_value)

    def transfer_s(self, size_bytes: float, source_rank: int, target_rank: int) -> float:
        """Seconds of one message.

        Ranks of the source's stage send at once, so they share a link that is the node's.
        """
        pair = (source_rank, target_rank)
        sharing = self._node_ranks(self.strategy.dp * self.strategy.tp)
        if self.strategy.gradient_exchange == "parameter_server":
            sharing = 1
        return self._remember(
            ("transfer", size_bytes, *self._placed(pair)),
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
        return self._remember(
            (operation, size_bytes, ranks), lambda: self._collective_s(operation, size_bytes, ranks)
        )

    def _collective_s(self, operation: str, size_bytes: float, ranks: Sequence[int]) -> float:
        members = network.nodes_of(self.cluster, ranks)
        groups = self._node_ranks(self.strategy.world_size) // max(1, min(members.values(), default=1))
        return self._remember(
            (operation, size_bytes, *self._placed(ranks)),
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
        """What of ``ranks`` decides their path: on wires the nodes, else how many on each of them."""
        members = network.nodes_of(self.cluster, ranks)
        if self.cluster.wires:
            return tuple(members.items())
        return tuple(sorted(members.values()))

    def _remember(self, key: tuple, compute: Callable[[], float]) -> float:
        if key not in self._remembered:
            self._remembered[key] = compute()
        return self._remembered[key]
