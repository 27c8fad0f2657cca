"""Calibration tasks of several ranks: collectives and messages by size, with their processor time.

A sample is a few calls one after the other. Processor time is that of the whole process, with the
transport's own threads, since on the CPU it is taken from the cores that compute.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .bench import FULL_SAMPLES, Bench, LaidOut, Moment, series

SIZES = (4, 4 * 2**10, 32 * 2**10, 256 * 2**10, 2**20, 4 * 2**20, 16 * 2**20, 32 * 2**20)
"""Bytes"""
CALLS_BYTES = 4 * 2**20
"""A sample makes as many calls as move this much, between one and `MAX_CALLS`."""
MAX_CALLS = 10
SAMPLES = 10


def all_reduce(bench: Bench, *, full: bool) -> list[LaidOut]:
    return _collective(bench, "all_reduce", full, lambda x, group, _: dist.all_reduce(x, group=group))


def broadcast(bench: Bench, *, full: bool) -> list[LaidOut]:
    return _collective(bench, "broadcast", full, lambda x, group, _: dist.broadcast(x, 0, group=group))


def all_gather(bench: Bench, *, full: bool) -> list[LaidOut]:
    """``bytes`` is the gathered whole."""

    def gather(whole: Tensor, group: dist.ProcessGroup, count: int) -> None:
        own = whole[: len(whole) // count]
        dist.all_gather_into_tensor(whole[: len(own) * count], own.clone(), group=group)

    return _collective(bench, "all_gather", full, gather)


def reduce_scatter(bench: Bench, *, full: bool) -> list[LaidOut]:
    """``bytes`` is the whole before it is scattered."""

    def scatter(whole: Tensor, group: dist.ProcessGroup, count: int) -> None:
        own = torch.empty_like(whole[: len(whole) // count])
        dist.reduce_scatter_tensor(own, whole[: len(own) * count], group=group)

    return _collective(bench, "reduce_scatter", full, scatter)


def _collective(
    bench: Bench, name: str, full: bool, call: Callable[[Tensor, dist.ProcessGroup, int], Any]
) -> list[LaidOut]:
    count = len(bench.ranks)
    group = bench.groups[count]
    found = []
    for size in SIZES:
        x = torch.zeros(max(count, size // 4), device=bench.device)
        samples = _timed(bench, size, full, lambda x=x: call(x, group, count))
        found.append(series(name, {"ranks": count, "bytes": x.numel() * 4}, samples))
    return found


def send_recv(bench: Bench, *, full: bool) -> list[LaidOut]:
    """Messages to and fro between two ranks; a sample is half a round trip.

    The answer's receive is posted before the message is sent: otherwise gloo keeps the two directions of
    a pair in one queue.
    """
    group, other = bench.groups[2], 1 - bench.rank
    found = []
    for size in SIZES:
        out, into = (torch.zeros(max(1, size // 4), device=bench.device) for _ in range(2))

        def turn(out: Tensor = out, into: Tensor = into) -> None:
            answer = dist.irecv(into, other, group=group)
            assert answer is not None
            if bench.rank == 0:
                dist.send(out, other, group=group)
                answer.wait()
            else:
                answer.wait()
                dist.send(out, other, group=group)

        halves = [sample.times(0.5) for sample in _timed(bench, 2 * size, full, turn)]
        found.append(series("send_recv", {"ranks": 2, "bytes": out.numel() * 4}, halves))
    return found


def _timed(bench: Bench, size: int, full: bool, call: Callable[[], object]) -> list[Moment]:
    """What one call takes, several times; all ranks make the same number of calls."""
    calls = min(MAX_CALLS, max(1, CALLS_BYTES // size))
    call()
    samples = []
    for _ in range(FULL_SAMPLES if full else SAMPLES):
        dist.barrier(bench.groups[len(bench.ranks)])
        start = bench.now()
        for _ in range(calls):
            call()
        samples.append(bench.now().since(start).times(1 / calls))
    return samples
