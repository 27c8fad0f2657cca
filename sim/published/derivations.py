"""What a table does not print but says all the same: seconds of a step, micro-batch, replicas.

Every derivation is here, and each is exact: it only rearranges what the row states.
"""

from __future__ import annotations

import math

from .table import Row

NARAYANAN = 96
"""Hardware FLOPs of one step with full recompute: 96 B s l h² (1 + s/6h + V/16lh) (Narayanan et al. 2021,
equation 3)."""
MODEL_SHARE = 3 / 4
"""Of those, what is not computed twice: forward and backward without the second forward."""


def number(row: Row, name: str) -> float | None:
    """The cell as a positive number; None where it is blank or anything else."""
    try:
        value = float(row.get(name).replace(",", ""))
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def whole(row: Row, name: str) -> int | None:
    """The cell as a positive whole number; None where it is blank or anything else."""
    value = number(row, name)
    return int(value) if value is not None and value == int(value) else None


def step_s(row: Row) -> float | None:
    """Seconds of one step: as printed, else from throughput, else from FLOP/s whose formula is stated."""
    seconds, milliseconds = number(row, "step_s"), number(row, "step_ms")
    if seconds is not None:
        return seconds
    if milliseconds is not None:
        return milliseconds / 1000
    return _from_throughput(row) or _from_flops(row)


def _from_throughput(row: Row) -> float | None:
    batch, length, gpus = (number(row, name) for name in ("global_batch", "seq_len", "gpus"))
    if batch is None:
        return None
    total, each, samples = (
        number(row, name) for name in ("tokens_per_s", "tokens_per_s_gpu", "samples_per_s")
    )
    if total and length:
        return batch * length / total
    if each and length and gpus:
        return batch * length / (each * gpus)
    return batch / samples if samples else None


def _from_flops(row: Row) -> float | None:
    """Of rows that say by which formula they count; hardware FLOPs only with full recompute, as it has."""
    names = ("tflops_per_gpu", "gpus", "global_batch", "seq_len", "layers", "hidden", "vocab")
    rate, gpus, batch, length, layers, hidden, vocab = (number(row, name) for name in names)
    if not (rate and gpus and batch and length and layers and hidden and vocab):
        return None
    factor = 1 + length / (6 * hidden) + vocab / (16 * layers * hidden)
    flops = NARAYANAN * batch * length * layers * hidden**2 * factor
    meaning = row.get("tflops_def").lower()
    if meaning.startswith("model"):
        flops *= MODEL_SHARE
    elif "hardware" not in meaning or not row.get("recompute").startswith("full"):
        return None
    return flops / (rate * 1e12 * gpus)


def memory_bytes(row: Row) -> float | None:
    """Measured peak, in binary or decimal units as the heading says."""
    binary, decimal = number(row, "memory_gib"), number(row, "memory_gb")
    if binary is not None:
        return binary * 2**30
    return decimal * 1e9 if decimal is not None else None


def replicas(row: Row, model_ranks: int) -> int | None:
    """`dp` as printed, else the GPUs that ``model_ranks`` (tp × pp × cp) leave."""
    stated, gpus = whole(row, "dp"), whole(row, "gpus")
    if stated is not None:
        return stated
    return gpus // model_ranks if gpus and gpus % model_ranks == 0 else None


def micro_batch(row: Row, dp: int) -> int | None:
    """Samples of one micro-batch: as printed, else from gradient accumulation."""
    stated = whole(row, "micro_batch")
    if stated is not None:
        return stated
    batch, steps = whole(row, "global_batch"), whole(row, "grad_accum")
    return batch // (dp * steps) if batch and steps and batch % (dp * steps) == 0 else None
