"""What backward computes again, by policy: which kernels of a block's forward, and what the block keeps.

`selective` repeats attention (Korthikanti et al. 2022, section 5), `full` the block, `selective_op` all but
the results that torchtitan's per-operation policy saves: every other GEMM's, flash attention's and what
a reduce-scatter brought (pytorch/torchtitan torchtitan/parallelisms/parallelize_llama.py, `_save_list`). A
policy may hold for some blocks of every stage only (Megatron-LM's --recompute-num-layers with
--recompute-method block; torchtitan's `selective_ac_option = "2"` is half of them).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..model.decoder import Decoder
from ..model.layer import BLOCK
from ..plan.job import Job
from ..plan.strategy import Strategy
from .kernel import Kernel

LOG_SUM_BYTES = 4
"""Bytes flash attention keeps for one query of one head (fp32; Dao 2023, section 3.1)."""


def repeated_blocks(job: Job, strategy: Strategy) -> float:
    """Share of the blocks that the policy holds for."""
    if strategy.recompute == "none":
        return 0.0
    if not strategy.recompute_blocks:
        return 1.0
    return min(1.0, strategy.recompute_blocks * strategy.stages / job.model.decoder.layers)


def repeated_parts(
    decoder: Decoder,
    layer_kind: str,
    policy: str,
    kernels: Sequence[Kernel],
    *,
    stops_early: bool = False,
    fused: bool = False,
) -> tuple[float, ...]:
    """Of each of a block's forward ``kernels``, the part that ``policy`` computes again: 0 to 1.

    ``fused`` software makes queries, keys and values in one GEMM, and gate and up, of which `selective_op`
    then keeps all. ``stops_early`` ends with the last tensor that backward needs, the input of the last
    GEMM, as PyTorch's non-reentrant checkpoint does (torch.utils.checkpoint, `set_checkpoint_early_stop`).
    """
    parts = _parts(decoder, layer_kind, policy, kernels, fused)
    gemms = [place for place, kernel in enumerate(kernels) if kernel.kind == "gemm"]
    if not (stops_early and gemms and layer_kind == BLOCK):
        return parts
    return (*parts[: gemms[-1]], *(0.0 for _ in parts[gemms[-1] :]))


def _parts(
    decoder: Decoder, kind: str, policy: str, kernels: Sequence[Kernel], fused: bool
) -> tuple[float, ...]:
    if policy == "full":
        return tuple(1.0 for _ in kernels)
    if policy == "selective":
        return tuple(float(kernel.attention) for kernel in kernels)
    if policy != "selective_op":
        return tuple(0.0 for _ in kernels)
    lone = sum(kernel.kind == "gemm" and kernel.batch == 1 and not kernel.attention for kernel in kernels)
    shares = iter(_unsaved_shares(decoder, kind, lone, fused))
    return tuple(0.0 if k.attention else _gemm_part(k, shares) for k in kernels)


def _gemm_part(kernel: Kernel, shares: Iterator[float]) -> float:
    """Of grouped GEMMs nothing is saved: they are no `aten.mm`."""
    if kernel.kind != "gemm":
        return 1.0
    return next(shares, 1.0) if kernel.batch == 1 else 1.0


def _unsaved_shares(decoder: Decoder, kind: str, gemms: int, fused: bool) -> list[float]:
    """Of each lone GEMM of a block, in order, the part whose result is not saved: every second one is,
    where queries, keys, values and gate and up are GEMMs of their own unless they are ``fused``."""
    every = _fused_widths(decoder, kind)
    if fused:
        every = [[sum(widths)] for widths in every]
    elif kind == BLOCK and gemms > len(every):  # gate and up are not fused
        every = [*every[:2], *([width] for width in every[2]), *every[3:]]
    saved = _saved_widths(every)
    return [1.0 - sum(own) / sum(widths) for own, widths in zip(saved, every, strict=True)]


def _saved_widths(fused: list[list[int]]) -> list[list[int]]:
    """Of ``fused``, the 1st, 3rd, 5th ... of all widths."""
    count, found = 0, []
    for widths in fused:
        found.append([width for place, width in enumerate(widths, count) if place % 2 == 0])
        count += len(widths)
    return found


def _fused_widths(decoder: Decoder, kind: str) -> list[list[int]]:
    """Widths of the GEMMs that the kernels fuse, in order."""
    attention = [[decoder.q_size, decoder.kv_size, decoder.v_size], [decoder.hidden]]
    if decoder.kv_rank or kind != BLOCK:
        return attention if not decoder.kv_rank else []
    gate_and_up = [decoder.ffn] * (decoder.mlp_matrices - 1)
    return [*attention, gate_and_up, [decoder.hidden]]


def selective_op_bytes(
    decoder: Decoder,
    layer_kind: str,
    *,
    tokens: float,
    tp: int,
    sequence_parallel: bool,
    bytes_per_value: int,
) -> float:
    """Bytes one block keeps under `selective_op` for so many tokens of a rank.

    Its input, saved GEMMs, attention's output with its log-sums, and with tensor parallelism what the two
    reduce-scatters brought. The GEMM before a reduce-scatter is whole on every rank.
    """
    outside = tp if sequence_parallel else 1
    saved = _saved_widths(_fused_widths(decoder, layer_kind))
    split = decoder.o_size + sum(sum(own) for place, own in enumerate(saved) if place % 2 == 0)
    whole = sum(sum(own) for place, own in enumerate(saved) if place % 2)
    scattered = 2 * decoder.hidden / outside if tp > 1 else 0.0
    values = decoder.hidden / outside + whole + split / tp + scattered
    return tokens * (values * bytes_per_value + decoder.heads / tp * LOG_SUM_BYTES)
