"""Calibration tasks of several ranks: collectives and messages by size, with their processor time.

A sample is a few calls one after the other. Processor time is that of the whole process, with the
transport's own threads, since on the CPU it is taken from the cores that compute.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ...sim.model.decoder import Decoder
from .bench import FULL_SAMPLES, Bench, LaidOut, Moment, series
from .stack import Stack

SIZES = (4, 4 * 2**10, 32 * 2**10, 256 * 2**10, 2**20, 4 * 2**20, 16 * 2**20, 32 * 2**20)
"""Bytes"""
CALLS_BYTES = 4 * 2**20
"""A sample makes as many calls as move this much, between one and `MAX_CALLS`."""
MAX_CALLS = 10
SAMPLES = 10
TRAFFIC_BYTES, TRAFFIC_SAMPLES = 16 * 2**20, 12
"""What is reduced next to compute, and how often."""


Call = Callable[[Tensor, dist.ProcessGroup, int], Any]


def transport(
    bench: Bench, *, operation: str, sizes: Sequence[int] = (), full: bool = False
) -> list[LaidOut]:
    """One communication of all ranks that were asked, at ``sizes`` bytes or the usual ones.

    ``bytes`` is the whole buffer: what every rank has before an all-reduce or a reduce-scatter, has after an
    all-gather, sends in an all-to-all, passes on in a ring, and gives the other in a message.
    """
    count = len(bench.ranks)
    group = bench.groups[count]
    call, share = CALLS[operation], 0.5 if operation == "send_recv" else 1.0
    found = []
    for size in sizes or SIZES:
        x = torch.zeros(max(1, size // 4 // count) * count, device=bench.device)
        call(x, group, count)
        before = bench.probe()
        samples = _timed(bench, size, full, lambda x=x: call(x, group, count))
        own = [sample.times(share) for sample in samples]
        probes = [(before + bench.probe()) / 2] * len(own)
        found.append(series(operation, {"ranks": count, "bytes": x.numel() * 4}, own, probes))
    return found


def _all_gather(whole: Tensor, group: dist.ProcessGroup, count: int) -> None:
    own = whole[: len(whole) // count]
    dist.all_gather_into_tensor(whole, own.clone(), group=group)


def _reduce_scatter(whole: Tensor, group: dist.ProcessGroup, count: int) -> None:
    dist.reduce_scatter_tensor(torch.empty_like(whole[: len(whole) // count]), whole, group=group)


def _all_to_all(whole: Tensor, group: dist.ProcessGroup, _: int) -> None:
    dist.all_to_all_single(torch.empty_like(whole), whole, group=group)


def _shift(whole: Tensor, group: dist.ProcessGroup, count: int) -> None:
    """To the next rank of the ring, from the one before; receives are posted first, since gloo serialises the
    directions of a pair whose sends come first."""
    rank = dist.get_rank(group)
    works = [
        dist.irecv(torch.empty_like(whole), (rank - 1) % count, group=group),
        dist.isend(whole, (rank + 1) % count, group=group),
    ]
    for work in works:
        assert work is not None
        work.wait()


def _to_and_fro(whole: Tensor, group: dist.ProcessGroup, _: int) -> None:
    """A message and its answer, of which a sample is half. The answer's receive is posted before the message
    is sent, for the same reason."""
    rank = dist.get_rank(group)
    answer = dist.irecv(torch.empty_like(whole), 1 - rank, group=group)
    assert answer is not None
    if rank == 0:
        dist.send(whole, 1, group=group)
        answer.wait()
    else:
        answer.wait()
        dist.send(whole, 0, group=group)


CALLS: dict[str, Call] = {
    "all_reduce": lambda x, group, _: dist.all_reduce(x, group=group),
    "broadcast": lambda x, group, _: dist.broadcast(x, 0, group=group),
    "all_gather": _all_gather,
    "reduce_scatter": _reduce_scatter,
    "all_to_all": _all_to_all,
    "shift": _shift,
    "send_recv": _to_and_fro,
}
"""By operation."""


def traffic(
    bench: Bench, *, decoder: dict[str, Any], seq_len: int, micro_batch: int, trained: str = ""
) -> list[LaidOut]:
    """Processor seconds of compute, of an all-reduce, and of both at once on the ranks that were asked."""
    group = bench.groups[len(bench.ranks)]
    x = torch.zeros(TRAFFIC_BYTES // 4, device=bench.device)
    stack = Stack(bench, Decoder(**decoder), seq_len, micro_batch, count=1, trained=trained)
    stack.plain(0)

    def reduce() -> None:
        dist.all_reduce(x, group=group)

    def compute() -> None:
        stack.plain(1)

    def both() -> None:
        work = dist.all_reduce(x, group=group, async_op=True)
        compute()
        assert work is not None
        work.wait()

    calls = {"transport": reduce, "compute": compute, "both": both}
    samples: dict[str, list[Moment]] = {name: [] for name in calls}
    probes = []
    for number in range(TRAFFIC_SAMPLES + 1):
        if number:
            probes.append(bench.probe())
        for name, call in calls.items():  # in turns, since the machine's speed changes
            dist.barrier(group)
            start = bench.now()
            call()
            if number:
                samples[name].append(bench.now().since(start))
    facts = {"ranks": len(bench.ranks)}
    return [series("traffic", {"of": name, **facts}, own, probes) for name, own in samples.items()]


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
