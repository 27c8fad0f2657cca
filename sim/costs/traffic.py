"""What passes through layers communicate among tensor-, context- and expert-parallel ranks. No seconds."""

from __future__ import annotations

from dataclasses import replace
from math import gcd

from ..kernels.elementwise import LOSS_BYTES
from ..kernels.fp8 import BF16_BYTES, FP8, FP8_BYTES
from ..kernels.recompute import repeated_blocks
from ..model.decoder import Decoder
from ..model.expert_imbalance import busiest_visits
from ..model.layer import BLOCK, EMBEDDING, HEAD, MOE_BLOCK
from ..plan.choices import LEARNED
from ..plan.job import Job
from ..plan.strategy import Strategy
from ..plan.traffic import FP32_BYTES, Collective, boundary_bytes

COUNT_BYTES = 4
"""Of a number of tokens."""
LOSS_ALL_REDUCES = 3
"""Of one fp32 value a token in the vocabulary-parallel loss: maximum, own logit, sum (Megatron-LM)."""


def layer_collectives(job: Job, strategy: Strategy, kind: str, *, backward: bool) -> tuple[Collective, ...]:
    """What one micro-batch's pass through a layer of ``kind`` communicates, in order."""
    passes = _layer(job, strategy, kind, backward=backward)
    if backward and kind not in (EMBEDDING, HEAD):
        passes = [*_repeated(job, strategy, kind), *passes]
    return tuple(passes)


def _repeated(job: Job, strategy: Strategy, kind: str) -> list[Collective]:
    """What a forward that is computed again communicates again: all but what selective policies save, and
    what follows the last GEMM where recompute stops early. Attention's core exchanges keys or heads again."""
    share = repeated_blocks(job, strategy)
    if not share:
        return []
    found = _layer(job, strategy, kind, backward=False)
    if strategy.recompute == "selective":
        found = _context_parallel(job, strategy, backward=False)
    elif strategy.recompute == "selective_op":
        found = [one for one in found if one.dimension != "cp" and one.operation != "reduce_scatter"]
    if strategy.software.recompute_stops_early and (kind == BLOCK or strategy.ep == 1):
        sums = ("reduce_scatter", "all_reduce")
        found = [_one_fewer(one) if one.dimension == "tp" and one.operation in sums else one for one in found]
    return [replace(one, share=share, repeats_forward=True) for one in found if one.count]


def _one_fewer(one: Collective) -> Collective:
    return replace(one, count=one.count - 1)


def _layer(job: Job, strategy: Strategy, kind: str, *, backward: bool) -> list[Collective]:
    found = _tensor_parallel(job, strategy, kind, backward=backward)
    if kind not in (EMBEDDING, HEAD):
        found += _context_parallel(job, strategy, backward=backward)
    if kind == MOE_BLOCK:
        found += _expert_parallel(job, strategy)
        if job.routing == LEARNED and not backward:
            found += _counts(job, strategy)
    return found


def _tensor_parallel(job: Job, strategy: Strategy, kind: str, *, backward: bool) -> list[Collective]:
    """Shoeybi et al. 2019, section 3: two all-reduces a block in either direction.

    With sequence parallelism each becomes an all-gather and a reduce-scatter of the same size (Korthikanti
    et al. 2022, section 4.2.2); the second gathering of backward hides behind the GEMM it is not needed
    for. In fp8 what is gathered is cast before. Before experts of other ranks it gathers what arrived there,
    and before shared experts every token.
    The vocabulary-parallel embedding sums its look-ups forward; backward it needs nothing, or the gradients
    of all tokens where it split them. The head sums the gradient of its input backward, and forward three
    values a token for the loss.
    """
    if strategy.tp == 1:
        return []
    size = boundary_bytes(job, strategy)
    if kind == EMBEDDING:
        if strategy.software.autocast:
            size *= FP32_BYTES / job.bytes_per_value  # the residual stream's, which is not cast
        if strategy.sequence_parallel:
            return [_tp("all_gather" if backward else "reduce_scatter", size)]
        return [] if backward else [_tp("all_reduce", size)]
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
        halves = 2 if job.model.decoder.shared_ffn else 1
        gathered = [_tp("all_gather", cast, halves), _tp("reduce_scatter", size, halves)]
        return [*gathered, _tp("all_gather", routed), _tp("reduce_scatter", routed)]
    return [_tp("all_gather", cast, 2), _tp("reduce_scatter", size, 2)]


def _tp(operation: str, size_bytes: float, count: int = 1) -> Collective:
    return Collective(dimension="tp", operation=operation, size_bytes=size_bytes, group="tp", count=count)


def _context_parallel(job: Job, strategy: Strategy, *, backward: bool) -> list[Collective]:
    """Ring attention passes keys and values on cp - 1 times, backward their gradients too (Liu et al. 2023);
    gathered, they come at once behind attention on those that are there already, and their gradients are
    passed on (torch.distributed.tensor.experimental, `_AllGatherRotater`); all-to-all exchanges tokens for
    heads before attention and back after it (Jacobs et al. 2023, Ulysses), of keys at least one head for
    every rank."""
    if strategy.cp == 1:
        return []
    decoder = job.model.decoder
    tokens = strategy.micro_batch * job.seq_len / strategy.cp
    values = tokens * job.bytes_per_value / strategy.tp
    repeats = strategy.software.repeats_keys and not decoder.kv_rank
    keys = values * (2 * decoder.q_size if repeats else decoder.kv_size + decoder.v_size)
    if strategy.cp_exchange == "ring":
        if not backward:
            return [_passed_on(keys, strategy.cp - 1)]
        return [_passed_on(keys, strategy.cp - 1, together=2), *_gradients_passed_on(strategy, keys, 2)]
    if strategy.cp_exchange == "all_gather":
        whole = keys * strategy.cp
        gathered = Collective(
            dimension="cp", operation="all_gather", size_bytes=whole, group="cp", behind_attention=True
        )
        return [gathered, *_gradients_passed_on(strategy, keys, 1)] if backward else [gathered]
    heads = decoder.kv_heads // strategy.tp
    copies = strategy.cp // gcd(heads, strategy.cp)
    widths = (decoder.q_size, decoder.kv_size * copies, decoder.v_size * copies, decoder.o_size)
    sizes = [values * width for width in widths]
    return [Collective(dimension="cp", operation="all_to_all", size_bytes=size, group="cp") for size in sizes]


def _passed_on(size_bytes: float, times: int, *, together: int = 1, behind: bool = True) -> Collective:
    """Round the ring, behind attention on what came before, with so many messages at once."""
    return Collective(
        dimension="cp",
        operation="send_recv",
        size_bytes=size_bytes,
        group="cp",
        count=times,
        behind_attention=behind,
        together=together,
    )


def _gradients_passed_on(strategy: Strategy, size_bytes: float, together: int) -> list[Collective]:
    """Of keys and values, each rank adding its part; on the last way, to their owner, no attention is
    left."""
    home = _passed_on(size_bytes, 1, behind=False)
    return [home] if strategy.cp == 2 else [_passed_on(size_bytes, strategy.cp - 2, together=together), home]


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


def _counts(job: Job, strategy: Strategy) -> list[Collective]:
    """What ranks tell each other of learned routing: how many tokens go to each expert, to the expert's rank
    and on to its tensor-parallel peers; and how many of a sequence do, for the router's balance loss, among
    the ranks that share it."""
    size = float(job.model.decoder.experts * COUNT_BYTES)
    found = []
    if strategy.ep > 1:
        found.append(Collective(dimension="ep", operation="all_to_all", size_bytes=size, group="ep"))
    if strategy.ep > 1 and strategy.tp > 1:
        found.append(_tp("all_gather", size * strategy.tp))
        found.append(_tp("all_reduce", size * strategy.micro_batch))
    if strategy.cp > 1:
        whole = size * strategy.micro_batch
        found.append(Collective(dimension="cp", operation="all_reduce", size_bytes=whole, group="cp"))
    return found


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
