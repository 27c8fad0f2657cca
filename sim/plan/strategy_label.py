"""The text form of a strategy: short, and different for different strategies, as `dp2 pp2 1f1b mb4`."""

from __future__ import annotations

from itertools import groupby

from .sharding import gathers_parameters
from .software_stacks import DEFAULT_STACK
from .strategy_fields import DDP_BUCKET_BYTES, StrategyFields

LONGEST_RUN = 3
"""Equal numbers that a label writes out."""


def strategy_label(s: StrategyFields) -> str:
    """Short and unique, as `dp2 pp2 1f1b mb4` or `ps-async dp2+1 mb4`."""
    if s.gradient_exchange == "parameter_server":
        parts = [f"ps-{s.synchrony}", f"dp{s.dp}+{s.servers}"]
        parts += [f"r{s.server_replicas}"] * (s.server_replicas > 1)
        parts += ["colocated"] * s.servers_colocated
    else:
        parts = [f"{name}{degree}" for name, degree in _degrees(s) if degree > 1] or ["single"]
        parts += [s.synchrony] * (s.synchrony != "sync")
    return " ".join([*parts, *_pipeline_label(s), f"mb{s.micro_batch}", *_memory_label(s)])


def _degrees(s: StrategyFields) -> list[tuple[str, int]]:
    return [(name, getattr(s, name)) for name in ("dp", "cp", "tp", "pp", "vp", "ep")]


def _pipeline_label(s: StrategyFields) -> list[str]:
    parts = ["sp"] * s.sequence_parallel
    parts += [s.cp_exchange] * (s.cp > 1 and s.cp_exchange != "ring")
    if s.pp > 1 or s.vp > 1:
        parts.append(s.schedule)
        parts += ["layers" + "-".join(_runs(s.stage_layers))] * bool(s.stage_layers)
        parts += ["blocking"] * (not s.overlap_transfers)
    return parts


def _memory_label(s: StrategyFields) -> list[str]:
    some = f"-{s.recompute_blocks}" if s.recompute_blocks else ""
    parts = [f"recompute-{s.recompute}{some}"] * (s.recompute != "none")
    parts += [s.attention] * (s.attention != "flash")
    parts += [s.stack] * (s.stack != DEFAULT_STACK)
    if s.sharding != "ddp":
        parts.append(s.sharding + (f"{s.shard_degree}" if s.shard_degree else ""))
        if gathers_parameters(s):
            parts += ["keep"] * (not s.reshard_after_forward)
            parts += [f"prefetch{s.prefetch}"] * (s.prefetch != 1)
    parts += [f"offload-{s.offload}"] * (s.offload != "none")
    parts += [s.collective_algorithm] * (s.collective_algorithm != "auto")
    parts += [f"bucket{s.bucket_bytes}"] * (s.bucket_bytes != DDP_BUCKET_BYTES)
    parts += ["no-overlap"] * (not s.overlap_gradients)
    parts += ["dispatch-per-node"] * (s.expert_dispatch == "per_node")
    parts += ["overlap-tensor"] * s.overlap_tensor + ["overlap-experts"] * s.overlap_experts
    return parts


def _runs(numbers: tuple[int, ...]) -> list[str]:
    """Numbers as text, long runs of one as `1x22`."""
    found: list[str] = []
    for number, own in groupby(numbers):
        count = sum(1 for _ in own)
        found += [f"{number}x{count}"] if count > LONGEST_RUN else [str(number)] * count
    return found
