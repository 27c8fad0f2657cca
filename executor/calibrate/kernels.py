"""Calibration tasks of one rank: kernels by their size, and how long the kernel lets a process run."""

from __future__ import annotations

import time

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from .bench import Bench, LaidOut, Moment, series

GEMMS = tuple((m, n, n) for m in (64, 128, 512, 2048) for n in (64, 256, 768, 2048))
"""(m, n, k)"""
MEMORY_BYTES = tuple(3 * 4 * 4**k for k in range(5, 12))
ATTENTIONS = ((1, 4, 64, 32), (1, 8, 128, 32), (4, 8, 128, 32), (4, 8, 256, 64), (4, 8, 512, 64))
"""(batch, heads, sequence, head size)"""
SLICE_S, SLICE_GAP_S = 0.4, 2e-4
"""How long to look for pauses, and from what length on a pause is one."""


def launch(bench: Bench, *, full: bool) -> list[LaidOut]:
    """The smallest kernel there is: what it costs to start one."""
    x = bench.random(1)
    return [series("launch", {}, bench.samples(lambda: torch.add(x, x, out=x), full))]


def gemm(bench: Bench, *, full: bool) -> list[LaidOut]:
    """Products [m, k] x [k, n] as a linear layer makes them, the weight transposed."""
    found = []
    for m, n, k in GEMMS:
        a, b, out = bench.random(m, k), bench.random(n, k), bench.random(m, n)
        seconds = bench.samples(lambda a=a, b=b, out=out: torch.mm(a, b.t(), out=out), full)
        found.append(series("gemm", {"m": m, "n": n, "k": k, "precision": bench.precision}, seconds))
    return found


def memory(bench: Bench, *, full: bool) -> list[LaidOut]:
    """An addition of two arrays into a third; ``bytes`` is what is read and written."""
    found = []
    for size in MEMORY_BYTES:
        values = size // 3 // bench.dtype.itemsize
        x, y, out = (bench.random(values) for _ in range(3))
        seconds = bench.samples(lambda x=x, y=y, out=out: torch.add(x, y, out=out), full)
        found.append(series("memory", {"bytes": 3 * values * bench.dtype.itemsize}, seconds))
    return found


def attention(bench: Bench, *, full: bool) -> list[LaidOut]:
    """Causal attention forward, with the shapes it has."""
    found = []
    for batch, heads, seq_len, head_dim in ATTENTIONS:
        q, k, v = (bench.random(batch, heads, seq_len, head_dim) for _ in range(3))

        def attend(q: Tensor = q, k: Tensor = k, v: Tensor = v) -> Tensor:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)

        sizes = {"batch": batch, "heads": heads, "seq_len": seq_len, "head_dim": head_dim}
        parameters = {**sizes, "precision": bench.precision}
        found.append(series("attention", parameters, bench.samples(attend, full)))
    return found


def slices(bench: Bench) -> list[LaidOut]:
    """With more ranks than cores, all look at the clock: a pause is the slice of whoever shares the core."""
    dist.barrier(bench.groups[len(bench.ranks)])
    pauses: list[Moment] = []
    start = last = time.perf_counter()
    while last - start < SLICE_S:
        now = time.perf_counter()
        if now - last > SLICE_GAP_S:
            pauses.append(Moment(now - last, 0.0))
        last = now
    return [series("slice", {}, pauses)] if pauses else []
