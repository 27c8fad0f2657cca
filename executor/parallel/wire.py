"""Collectives of one process group, each with a mark in the recorder.

What is asynchronous in torch is so here: a call returns `Pending`, whose `wait` ends the mark. On NCCL a wait
orders streams and returns at once; on gloo it blocks, and the heartbeat says that the rank waits for others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from ...sim.plan.action import Action
from ..measure.recorder import Recorder


class Pending:
    """A collective under way, and what it gives."""

    def __init__(self, wire: Wire, work: dist.Work, out: Tensor, mark: _Mark, *, watched: bool):
        self._wire, self._work, self._out, self._mark = wire, work, out, mark
        self._watched = work.get_future().then(self._ended) if watched else None

    def wait(self) -> Tensor:
        """The result, once it is there; the second time at once."""
        if self._work is not None:
            recorder = self._wire.recorder
            before = recorder.clock.stamp()
            with recorder.heartbeat.waiting():
                (self._watched or self._work).wait()
            after = recorder.clock.stamp()
            recorder.waited(before, after)
            if self._watched is None:
                self._wire.note(self._mark, after)
            self._work = None
        return self._out

    def _ended(self, future: torch.futures.Future) -> object:
        self._wire.note(self._mark, self._wire.recorder.clock.stamp())
        return future.value()


class _Mark(NamedTuple):
    """What is known of a collective when it starts."""

    action: Action
    issued: object
    size_bytes: float
    key: str


class Wire:
    """Collectives of ``group``; ``name`` tells it from the rank's other groups, ``stream`` is the trace's."""

    def __init__(self, name: str, stream: str, group: dist.ProcessGroup | None, recorder: Recorder):
        self.name, self.stream, self.group, self.recorder = name, stream, group, recorder
        self.size = group.size() if group is not None else 1
        self.index = dist.get_rank(group) if group is not None else 0
        members = dist.get_process_group_ranks(group) if group is not None else [0]
        self._members = "-".join(map(str, members))

    def all_reduce(
        self,
        x: Tensor,
        op: dist.ReduceOp.RedOpType = dist.ReduceOp.SUM,
        *,
        action: Action | None = None,
        watched: bool = False,
    ) -> Pending:
        """The sum of ``x`` over the group, or what else ``op`` says, in place; for ``action``, if that is not
        the one at work. A ``watched`` one is noted when it ends, not when somebody has waited for it."""
        start = partial(dist.all_reduce, x, op, group=self.group, async_op=True)
        return self._start(start, x, x, action, watched)

    def all_gather(self, x: Tensor) -> Pending:
        """``x`` of every rank along the first dimension: [n, ...] becomes [size × n, ...]."""
        x = x.contiguous()
        out = x.new_empty((self.size * x.shape[0], *x.shape[1:]))
        return self._start(
            lambda: dist.all_gather_into_tensor(out, x, group=self.group, async_op=True), out, out
        )

    def reduce_scatter(self, x: Tensor) -> Pending:
        """The sum of ``x`` over the group, of which each rank keeps its part: [size × n, ...] becomes
        [n, ...]."""
        x = x.contiguous()
        out = x.new_empty((x.shape[0] // self.size, *x.shape[1:]))
        return self._start(
            lambda: dist.reduce_scatter_tensor(out, x, group=self.group, async_op=True), out, x
        )

    def gather_into(self, pairs: Sequence[tuple[Tensor, Tensor]], action: Action) -> Pending:
        """Fill each (whole, part) from every rank's part, which may lie in the whole; all are noted as the
        one collective that they are in a plan."""

        def start() -> dist.Work | None:
            works = [
                dist.all_gather_into_tensor(whole, part, group=self.group, async_op=True)
                for whole, part in pairs
            ]
            if len(works) == 1:
                return works[0]
            return _Several(works, ordered=pairs[0][0].is_cuda)  # type: ignore[return-value]

        size = sum(whole.numel() * whole.element_size() for whole, _ in pairs)
        return self._start(start, pairs[0][0], float(size), action, watched=True)

    def scatter_sum(self, x: Tensor, action: Action) -> Pending:
        """This rank's part of the sum of ``x`` over the group, where each has as much; ``x`` is used up.

        On gloo a reduce-scatter is an all-reduce of a copy, and does not say when it ends (torch's
        ProcessGroupGloo.cpp, `reduce_scatter_tensor_coalesced`): here it is one in place, of which a part is
        taken.
        """
        length = x.numel() // self.size
        if x.is_cuda:
            out = x.new_empty(length)
            return self._start(
                lambda: dist.reduce_scatter_tensor(out, x, group=self.group, async_op=True),
                out,
                x,
                action,
                watched=True,
            )
        own = x[self.index * length :][:length]
        return self._start(
            lambda: dist.all_reduce(x, group=self.group, async_op=True), own, x, action, watched=True
        )

    def all_to_all(
        self, x: Tensor, give: Sequence[int] | None = None, take: Sequence[int] | None = None
    ) -> Pending:
        """``give[i]`` rows of ``x`` to the i-th rank, ``take[i]`` rows from it; equal parts without. What is
        noted are the bytes that go or that come, whichever are more."""
        x = x.contiguous()
        rows = x.shape[0] if take is None else sum(take)
        out = x.new_empty((rows, *x.shape[1:]))
        received = None if take is None else list(take)
        sent = None if give is None else list(give)
        return self._start(
            lambda: dist.all_to_all_single(out, x, received, sent, group=self.group, async_op=True),
            out,
            x,
            noted=max(x, out, key=Tensor.numel),
        )

    def shift(self, x: Tensor, by: int = 1) -> Pending:
        """``x`` to the rank ``by`` places on in the ring, and what comes from ``by`` places back."""
        x = x.contiguous()
        out = torch.empty_like(x)
        assert self.group is not None
        to, source = (dist.get_global_rank(self.group, (self.index + way) % self.size) for way in (by, -by))

        def start() -> dist.Work:
            # Receives are posted first: gloo serialises the directions of a pair whose sends come first.
            # NCCL has to be given both at once, or each end would wait for the other to send.
            receive = dist.P2POp(dist.irecv, out, source, group=self.group)
            send = dist.P2POp(dist.isend, x, to, group=self.group)
            return _Both(dist.batch_isend_irecv([receive, send]), x)  # type: ignore[return-value]

        return self._start(start, out, x)

    def next_key(self) -> str:
        """The same on all members, which call their collectives in the same order."""
        return f"{self.name}:{self._members}:{self.recorder.count(self.name)}"

    def note(self, mark: _Mark, end: object) -> None:
        """The end of a collective."""
        self.recorder.add(
            mark.action, self.stream, mark.issued, end, size_bytes=mark.size_bytes, key=mark.key
        )

    def _start(
        self,
        call: Callable[[], dist.Work | None],
        out: Tensor,
        whole: Tensor | float,
        action: Action | None = None,
        watched: bool = False,
        *,
        noted: Tensor | None = None,
    ) -> Pending:
        """Begin what ``call`` does with ``whole``, whose bytes are noted, or so many, or ``noted``'s."""
        if self.group is None:
            raise ValueError(f"{self.name} is a group of one")
        counted = whole if noted is None else noted
        size = float(counted.nbytes if isinstance(counted, Tensor) else counted)
        mark = _Mark(action or self.recorder.current, self.recorder.clock.stamp(), size, self.next_key())
        work = call()
        assert work is not None, "every member is in its group"
        return Pending(self, work, out, mark, watched=watched)


class _Both:
    """A send and a receive as one."""

    def __init__(self, works: list[dist.Work], kept: Tensor):
        self._works, self._kept = works, kept

    def wait(self) -> None:
        for work in self._works:
            work.wait()


class _Several:
    """Collectives that were started together as one."""

    def __init__(self, works: list[dist.Work], *, ordered: bool):
        self._works, self._ordered = works, ordered

    def wait(self) -> None:
        for work in self._works:
            work.wait()

    def get_future(self) -> torch.futures.Future:
        """On NCCL they end in order; gloo has several threads."""
        futures = [work.get_future() for work in self._works]
        return futures[-1] if self._ordered else torch.futures.collect_all(futures)
