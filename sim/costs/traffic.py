"""What is communicated: operations, bytes and groups of every pass, reduction and gathering. No seconds.

`size_bytes` is the whole buffer as in `collectives.py`: what every rank has before an all-reduce or a
reduce-scatter, has after an all-gather, and sends in an all-to-all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ..kernels.elementwise import LOSS_BYTES
from ..kernels.expert_imbalance import busiest_visits
from ..kernels.fp8 import BF16_BYTES, FP8, FP8_BYTES
from ..kernels.recompute import repeated_blocks
from ..model.decoder import Decoder
from ..model.layer import BLOCK, EMBEDDING, HEAD, MOE_BLOCK, Layer
from ..plan.job import Job
from ..plan.partition import held_parameters
from ..plan.strategy import Strategy

FP32_BYTES = 4

LOSS_ALL_REDUCES = 3
"""Of one fp32 value a token in the vocabulary-parallel loss: maximum, own logit, sum (Megatron-LM)."""


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


def layer_collectives(job: Job, strategy: Strategy, kind: str, *, backward: bool) -> tuple[Collective, ...]:
    """What one micro-batch's pass through a layer of ``kind`` communicates, in order."""
    passes = _layer(job, strategy, kind, backward=backward)
    if backward and kind not in (EMBEDDING, HEAD):
        passes = [*_repeated(job, strategy, kind), *passes]
    return tuple(passes)


def _repeated(job: Job, strategy: Strategy, kind: str) -> list[Collective]:
    """What a forward that is computed again communicates again: all but what selective policies save, and
    what follows the last product where recompute stops early."""
    share = repeated_blocks(job, strategy)
    if not share or strategy.recompute == "selective":
        return []
    found = _layer(job, strategy, kind, backward=False)
    if strategy.recompute == "selective_op":
        found = [one for one in found if one.dimension != "cp" and one.operation != "reduce_scatter"]
    elif strategy.software.recompute_stops_early and kind == BLOCK:
        found = [
            _one_fewer(one) if one.operation in ("reduce_scatter", "all_reduce") else one for one in found
        ]
    return [replace(one, share=share, repeats_forward=True) for one in found if one.count]


def _one_fewer(one: Collective) -> Collective:
    return replace(one, count=one.count - 1)


def _layer(job: Job, strategy: Strategy, kind: str, *, backward: bool) -> list[Collective]:
    found = _tensor_parallel(job, strategy, kind, backward=backward)
    if kind not in (EMBEDDING, HEAD):
        found += _context_parallel(job, strategy, backward=backward)
    if kind == MOE_BLOCK:
        found += _expert_parallel(job, strategy)
    return found


def _tensor_parallel(job: Job, strategy: Strategy, kind: str, *, backward: bool) -> list[Collective]:
    """Shoeybi et al. 2019, section 3: two all-reduces a block in either direction.

    With sequence parallelism each becomes an all-gather and a reduce-scatter of the same size (Korthikanti
    et al. 2022, section 4.2.2); the second gathering of backward hides behind the product it is not needed
    for. In fp8 what is gathered is cast before. Before experts of other ranks it gathers what arrived there.
    The vocabulary-parallel embedding sums its look-ups forward and needs nothing backward; the head sums the
    gradient of its input backward, and forward three values a token for the loss.
    """
    if strategy.tp == 1:
        return []
    size = boundary_bytes(job, strategy)
    if kind == EMBEDDING:
        whole = "reduce_scatter" if strategy.sequence_parallel else "all_reduce"
        return [] if backward else [_tp(whole, size)]
    if kind == HEAD:
        tokens = strategy.micro_batch * job.seq_len / strategy.cp
        loss = _tp("all_reduce", LOSS_BYTES * tokens, LOSS_ALL_REDUCES)
        if strategy.software.gathers_logits:
            loss = _tp("all_gather", tokens * job.model.decoder.vocab * job.bytes_per_value)
        if not strategy.sequence_parallel:
            return [_tp("all_reduce", size)] if backward else [loss]
        return [_tp("reduce_scatter", size)] if backward else [_tp("all_gather", size), loss]
    if not strategy.sequence_parallel:
        separate = backward and kind == BLOCK and not strategy.software.fused_gate_up
        return [_tp("all_reduce", size, 1 + (job.model.decoder.mlp_matrices - 1 if separate else 1))]
    cast = size * FP8_BYTES / BF16_BYTES if job.precision == FP8 else size  # a linear layer's input
    if kind == MOE_BLOCK and strategy.ep > 1:
        routed = size * _visits(job, strategy)
        gathered = [_tp("all_gather", cast), _tp("reduce_scatter", size)]
        return [*gathered, _tp("all_gather", routed), _tp("reduce_scatter", routed)]
    return [_tp("all_gather", cast, 2), _tp("reduce_scatter", size, 2)]


def _tp(operation: str, size_bytes: float, count: int = 1) -> Collective:
    return Collective(dimension="tp", operation=operation, size_bytes=size_bytes, group="tp", count=count)


def _context_parallel(job: Job, strategy: Strategy, *, backward: bool) -> list[Collective]:
    """Ring attention passes keys and values on cp - 1 times, backward their gradients too (Liu et al. 2023);
    gathered, they come at once behind attention on those that are there already, and their gradients are
    passed on (torch.distributed.tensor.experimental, `_AllGatherRotater`); all-to-all exchanges tokens for
    heads before attention and back after it (Jacobs et al. 2023, Ulysses)."""
    if strategy.cp == 1:
        return []
    decoder = job.model.decoder
    tokens = strategy.micro_batch * job.seq_len / strategy.cp
    values = tokens * job.bytes_per_value / strategy.tp
    repeats = strategy.software.repeats_keys and not decoder.kv_rank
    keys = values * (2 * decoder.q_size if repeats else decoder.kv_size + decoder.v_size)
    if strategy.cp_exchange == "ring":
        return [_passed_on(strategy, keys * (2 if backward else 1))]
    if strategy.cp_exchange == "all_gather":
        whole = keys * strategy.cp
        gathered = Collective(
            dimension="cp", operation="all_gather", size_bytes=whole, group="cp", behind_attention=True
        )
        return [gathered, _passed_on(strategy, keys)] if backward else [gathered]
    sizes = [values * width for width in (decoder.q_size, decoder.o_size, decoder.kv_size, decoder.v_size)]
    return [Collective(dimension="cp", operation="all_to_all", size_bytes=size, group="cp") for size in sizes]


def _passed_on(strategy: Strategy, size_bytes: float) -> Collective:
    """Round the ring, behind attention on what came before."""
    return Collective(
        dimension="cp",
        operation="send_recv",
        size_bytes=size_bytes,
        group="cp",
        count=strategy.cp - 1,
        behind_attention=True,
    )


def _expert_parallel(job: Job, strategy: Strategy) -> list[Collective]:
    """Tokens to their experts and back, in either direction (Lepikhin et al. 2020, GShard)."""
    if strategy.ep == 1:
        return []
    size = dispatch_bytes(
        job.model.decoder,
        micro_batch=strategy.micro_batch,
        seq_len=job.seq_len,
        cp=strategy.cp,
        tp=strategy.tp,
        bytes_per_value=job.bytes_per_value,
    )
    busiest = size * _visits(job, strategy) / job.model.decoder.experts_per_token
    return [Collective(dimension="ep", operation="all_to_all", size_bytes=busiest, group="ep", count=2)]


def dispatch_bytes(
    decoder: Decoder, *, micro_batch: int, seq_len: int, cp: int, tp: int, bytes_per_value: int
) -> float:
    """Bytes that one rank sends in one all-to-all to or from the experts, all tokens for itself included.

    Every token goes to each of its experts; the tensor-parallel ranks share the tokens out (as Megatron-LM
    does, which wants sequence parallelism with experts).
    """
    tokens = micro_batch * seq_len / cp / tp
    return tokens * decoder.experts_per_token * decoder.hidden * bytes_per_value


def _visits(job: Job, strategy: Strategy) -> float:
    """Experts of the busiest rank that one token of a rank visits, in the mean, over all ranks that send."""
    return busiest_visits(job.model.decoder, strategy.ep, job.expert_imbalance)


def split_parameters(layers: Iterable[Layer], strategy: Strategy) -> tuple[float, float]:
    """Dense and expert parameters of ``layers`` on one rank, before sharding."""
    dense = experts = 0.0
    for layer in layers:
        experts += layer.expert_parameters / (strategy.ep * strategy.tp)
        whole = layer.whole_parameters
        dense += whole + (layer.parameters - layer.expert_parameters - whole) / strategy.tp
    return dense, experts


def gradient_bytes(job: Job, strategy: Strategy, parameters: float) -> float:
    """Bytes of the gradients of so many parameters, as accumulated and reduced."""
    return parameters * strategy.gradient_bytes(job)


def layers_gradient_bytes(job: Job, strategy: Strategy, layers: Iterable[Layer]) -> float:
    """Bytes of the gradients of ``layers`` on one rank."""
    return sum(gradient_bytes(job, strategy, held_parameters(layer, strategy)) for layer in layers)


def reduction(job: Job, strategy: Strategy, dense: float, experts: float) -> tuple[Collective, ...]:
    """How the gradients of so many parameters of one rank are summed over the replicas.

    Sharded (ZeRO: Rajbhandari et al. 2020) each rank keeps a part: a reduce-scatter instead of an
    all-reduce; hybrid sharding then all-reduces the parts over the groups.
    """
    width = FP32_BYTES if strategy.software.reduces_whole_gradients else strategy.gradient_bytes(job)
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
