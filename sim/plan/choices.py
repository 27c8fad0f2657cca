"""The values that fields of a Strategy may have, and the text form of its synchrony."""

from __future__ import annotations

import re

GRADIENT_EXCHANGES = ("allreduce", "parameter_server")

SYNCHRONIES = ("sync", "async", "stale", "backup", "local")

RECOMPUTES = ("none", "selective", "selective_op", "full")

SHARDINGS = ("ddp", "zero1", "zero2", "fsdp", "hsdp")

FLASH = ("flash", "flash1", "triton", "flash3")
"""Kinds of attention that do not write the score matrix."""

ATTENTIONS = (*FLASH, "unfused", "eager")

CP_EXCHANGES = ("ring", "all_gather", "all_to_all")

EXPERT_DISPATCHES = ("all_to_all", "per_node")

ROUTINGS = IMPOSED, LEARNED = ("imposed", "learned")
"""Of a job with experts: a token's experts follow from its place, or from what the router has learned."""

OFFLOADS = ("none", "optimizer", "activations", "both")

COLLECTIVE_ALGORITHMS = (
    "auto",
    "ring",
    "tree",
    "binary_tree",
    "binomial_tree",
    "halving_doubling",
    "direct",
    "in_network",
    "hierarchical",
)
"""Forms of a collective, as `network/algorithms.py` has them; `auto` is what NCCL would choose."""

_SYNCHRONY = re.compile(r"(sync|async)\Z|(stale|backup|local):(\d{1,6})\Z")


def parse_synchrony(text: str) -> tuple[str, int] | None:
    """The name and number of `sync`, `async`, `stale:2`, `backup:1` or `local:8`; None for anything else."""
    match = _SYNCHRONY.match(text)
    if match is None:
        return None
    return (match[1], 0) if match[1] else (match[2], int(match[3]))
