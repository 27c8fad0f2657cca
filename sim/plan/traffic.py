"""What ranks send each other between stages, replicas and servers: operations, bytes and groups. No seconds.

`size_bytes` is the whole buffer: what every rank has before an all-reduce or a reduce-scatter, has after an
all-gather, and sends in an all-to-all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ..model.layer import Layer
from .job import Job
from .mixed_precision import bytes_per_gradient
from .rank_parameters import held_parameters
from .strategy import Strategy

FP32_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Collective:
    """One communication, repeated ``count`` times."""

    dimension: str
    """Stream of the trace: `tp`, `cp`, `ep`, `dp`."""
    operation: str
    size_bytes: float
    group: str
    """Name in `groups.Groups`."""
    count: int = 1
    behind_attention: bool = False
    """Travels while attention works on the part that is there already (ring attention)."""
    together: int = 1
    """Messages that travel behind the same attention."""
    share: float = 1.0
    """Part of the layers of its kind that do it."""
    repeats_forward: bool = False
    """Of a forward that backward computes again."""

    @property
    def total_bytes(self) -> float:
        return self.size_bytes * self.count * self.share


def boundary_bytes(job: Job, strategy: Strategy) -> float:
    """Bytes of one micro-batch's activations between two layers on one rank, whole over tp."""
    tokens = strategy.micro_batch * job.seq_len / strategy.cp
    return tokens * job.model.decoder.hidden * job.bytes_per_value


def message_bytes(job: Job, strategy: Strategy, layer: Layer | None = None) -> float:
    """Bytes of one pipeline message of one rank: with sequence parallelism its part of the tokens, or where
    the software scatters what every tensor-parallel rank has (Narayanan et al. 2021, section 4.1). Gathering
    it again inside the node is left out: it takes a tenth of the time.

    Behind ``layer``, where a network's layers pass on more or less; without it behind the one that passes
    most.
    """
    network = job.model.network
    if network is not None:
        behind = network.parts if layer is None else (network.parts[layer.index],)
        values = max(part.passed for part in behind)
        return strategy.micro_batch * job.seq_len * values * job.bytes_per_value
    is_part = strategy.sequence_parallel or strategy.software.scatters_messages
    return boundary_bytes(job, strategy) / (strategy.tp if is_part else 1)


def gradient_bytes(job: Job, strategy: Strategy, parameters: float) -> float:
    """Bytes of the gradients of so many parameters, as accumulated and reduced."""
    return parameters * bytes_per_gradient(job.precision, strategy.software)


def layers_gradient_bytes(job: Job, strategy: Strategy, layers: Iterable[Layer]) -> float:
    """Bytes of the gradients of ``layers`` on one rank."""
    return sum(gradient_bytes(job, strategy, held_parameters(layer, strategy)) for layer in layers)


def reduction(job: Job, strategy: Strategy, dense: float, experts: float) -> tuple[Collective, ...]:
    """How the gradients of so many parameters of one rank are summed over the replicas.

    Sharded (ZeRO: Rajbhandari et al. 2020) each rank keeps a part: a reduce-scatter instead of an
    all-reduce; hybrid sharding then all-reduces the parts over the groups.
    """
    width = (
        FP32_BYTES
        if strategy.software.reduces_whole_gradients
        else bytes_per_gradient(job.precision, strategy.software)
    )
    found = []
    if dense:
        found += _summed(strategy, dense * width)
    if experts:
        operation = "all_reduce" if strategy.sharding == "ddp" else "reduce_scatter"
        found.append(_dp(operation, experts * width, "expert_replicas"))
    return tuple(found)


def _summed(strategy: Strategy, size: float) -> list[Collective]:
    whole = strategy.sharding == "zero1" and strategy.software.reduces_whole_gradients
    if strategy.sharding == "ddp" or whole:
        return [_dp("all_reduce", size, "replicas")]
    found = [_dp("reduce_scatter", size, "shards")]
    if strategy.sharding == "hsdp":
        found.append(_dp("all_reduce", size / strategy.shards, "shard_replicas"))
    return found


def tensor_summing(
    job: Job, strategy: Strategy, layers: Iterable[Layer], *, executed: bool
) -> Collective | None:
    """How tensor-parallel ranks sum, before a step, the gradients of what each has whole but sees a part of
    the tokens or heads for; None where there are none.

    With ``executed`` as `traincast run` does it, whose gradients are fp32 and by then in shards, of which
    this is the mean; Megatron-LM sums whole buffers, whatever of them is a rank's.
    """
    if strategy.tp == 1 or job.model.network is not None:
        return None
    decoder, split = job.model.decoder, strategy.sequence_parallel
    count = sum(decoder.partial_parameters(layer.kind, split_tokens=split) for layer in layers)
    if not count:
        return None
    size = count * FP32_BYTES / strategy.shards if executed else gradient_bytes(job, strategy, count)
    return Collective(dimension="tp", operation="all_reduce", size_bytes=size, group="tp")


def tied_bytes(job: Job, strategy: Strategy, *, executed: bool) -> float:
    """Bytes of one rank's gradients of a tied embedding's matrix, as the two ends of a pipeline sum them:
    with ``executed`` a shard of them, fp32, as `traincast run` does it; Megatron-LM sums them whole."""
    decoder = job.model.decoder
    count = decoder.vocab * decoder.hidden / strategy.tp
    if executed:
        return -(-count // strategy.shards) * FP32_BYTES
    return gradient_bytes(job, strategy, count)


def gathering(job: Job, strategy: Strategy, dense: float, experts: float) -> tuple[Collective, ...]:
    """How the weights of so many parameters of one rank are gathered from their shards: in one piece, or
    tensor by tensor where the software does so."""
    pieces = strategy.software.gather_pieces
    sizes = {"shards": dense * job.bytes_per_value, "expert_replicas": experts * job.bytes_per_value}
    return tuple(
        replace(_dp("all_gather", size / pieces, group), count=pieces)
        for group, size in sizes.items()
        if size
    )


def averaging(job: Job, dense: float, experts: float) -> tuple[Collective, ...]:
    """How local SGD averages so many parameters: an all-reduce of the weights."""
    sizes = {"replicas": dense * job.bytes_per_value, "expert_replicas": experts * job.bytes_per_value}
    return tuple(_dp("all_reduce", size, group) for group, size in sizes.items() if size)


def _dp(operation: str, size_bytes: float, group: str) -> Collective:
    return Collective(dimension="dp", operation=operation, size_bytes=size_bytes, group=group)
