"""The shortest way from a pipeline schedule to its times: a worklist over ranks, dependencies implied.

A forward waits for the message of the stage before, a backward (or its input-gradient half) for that of the
stage after, on the last stage for its own forward, a weight-gradient half for the other half. A message
occupies its channel, one for each (sending rank, receiving rank, direction), in order of sending; between
stages of one rank there is none. So nothing but the orders and the seconds is needed, and times equal those
that the engines give the same passes written out as a Program, bit for bit. `pipeline_flat` writes them out
as arrays: for lanes of jitter, and where messages share links.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import InputError
from ...jit import compiled as compile_kernel
from ...jit import worthwhile
from ...plan.pass_times import PassTimes
from ...program.arrays import FlatProgram, flat_arrays, offsets
from .orders import BACKWARD, FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT, PassOrders

COMPILE_FROM, LOADED_FROM = 2_000_000, 3_000
"""Passes from which numba pays, if it must be loaded and if it was."""

UNKNOWN = -1.0
"""Of a message that has not been sent yet: when it arrives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineTimes:
    """When the n passes of some orders happen."""

    starts: np.ndarray
    """float64[n], seconds"""
    ends: np.ndarray
    """float64[n], seconds"""
    makespan: float


def run_pipeline(orders: PassOrders, times: PassTimes, *, compiled: bool | None = None) -> PipelineTimes:
    """Start and end of every pass of ``orders``.

    ``compiled`` says whether numba runs it; without it the number of passes decides.

    Raises:
        InputError: the times are of other stages, or passes wait for each other in a circle.
    """
    seconds = pass_seconds(times, orders.stages)
    channel = channels(orders.stage_rank)
    if compiled is None:
        compiled = worthwhile(pipeline_kernel, orders.passes, COMPILE_FROM, LOADED_FROM)
    arrays = [orders.first, orders.kind, orders.stage, orders.micro_batch, orders.together]
    arrays += [orders.stage_rank, channel, seconds.reshape(-1), *_work_arrays(orders, channel)]
    if compiled:
        done = compile_kernel(pipeline_kernel)(*arrays, times.transfer_s, orders.micro_batches)
    else:
        arrays = [array.tolist() for array in arrays]
        done = pipeline_kernel(*arrays, times.transfer_s, orders.micro_batches)
    if done < orders.passes:
        raise InputError(f"deadlock: {orders.passes - done} of {orders.passes} passes wait for each other")
    starts, ends = np.asarray(arrays[-2]), np.asarray(arrays[-1])
    return PipelineTimes(starts=starts, ends=ends, makespan=float(ends.max(initial=0.0)))


def pass_seconds(times: PassTimes, stages: int) -> np.ndarray:
    """Seconds by kind of pass and stage, float64[4, stages].

    Raises:
        InputError: the times are of another number of stages.
    """
    given = len(times.forward_s)
    if given != stages:
        raise InputError(f"times of {given} stages are given; the schedule has {stages}")
    halves = (times.input_gradient_s, times.weight_gradient_s)
    whole = [times.backward_s(stage) for stage in range(stages)]
    return np.array([times.forward_s, whole, *halves])


def channels(stage_rank: np.ndarray) -> np.ndarray:
    """By direction and stage, the channel of what it sends: int64[2 * stages]; -1 where nothing is sent."""
    ranks, stages = int(stage_rank.max(initial=0)) + 1, len(stage_rank)
    sender = np.tile(stage_rank, 2)
    receiver = np.concatenate([stage_rank[1:], stage_rank[-1:], stage_rank[:1], stage_rank[:-1]])
    pair = (sender * ranks + receiver) * 2 + np.repeat([0, 1], stages)
    _, channel = np.unique(pair, return_inverse=True)
    return np.where(sender == receiver, -1, channel)


def _work_arrays(orders: PassOrders, channel: np.ndarray) -> list[np.ndarray]:
    """When what a pass waits for is there, by phase, stage and micro-batch; and what ranks are at."""
    ready = np.full(3 * orders.stages * orders.micro_batches, UNKNOWN)
    ready[: orders.micro_batches] = 0.0
    free = np.zeros(int(channel.max(initial=-1)) + 1)
    place, waiting = orders.first[:-1].copy(), np.full(orders.ranks, -1, dtype=np.int64)
    return [ready, free, place, waiting, np.zeros(orders.passes), np.zeros(orders.passes)]


def pipeline_kernel(
    first: Any,
    kind: Any,
    stage: Any,
    micro_batch: Any,
    together: Any,
    stage_rank: Any,
    channel: Any,
    seconds: Any,
    ready: Any,
    free: Any,
    place: Any,
    waiting: Any,
    starts: Any,
    ends: Any,
    transfer_s: float,
    micro_batches: int,
) -> int:
    """Fill ``starts`` and ``ends``; gives how many passes could be done.

    ``ready`` has three phases: what a forward, a backward and a weight-gradient half wait for.
    """
    stages = len(stage_rank)
    done = 0
    ranks = list(range(len(place) - 1, -1, -1))
    while ranks:
        rank = ranks.pop()
        at = place[rank]
        now = ends[at - 1] if at > first[rank] else 0.0
        while at < first[rank + 1]:
            after = at + 1
            while together[after - 1]:
                after += 1
            took = 0.0
            blocked = -1
            for one in range(at, after):
                phase = 0 if kind[one] == 0 else (2 if kind[one] == 3 else 1)
                cell = (phase * stages + stage[one]) * micro_batches + micro_batch[one]
                if ready[cell] < 0.0:
                    blocked = cell
                elif ready[cell] > now:
                    now = ready[cell]
                took += seconds[kind[one] * stages + stage[one]]
            if blocked >= 0:
                waiting[rank] = blocked
                break
            end = now + took
            for one in range(at, after):
                starts[one] = now
                ends[one] = end
                here = stage[one]
                if kind[one] == 3:
                    continue
                backward = 0 if kind[one] == 0 else 1
                if backward == 1:
                    ready[(2 * stages + here) * micro_batches + micro_batch[one]] = end
                target = here + 1 - 2 * backward
                if target < 0:
                    continue
                if target == stages:
                    ready[(stages + here) * micro_batches + micro_batch[one]] = end
                    continue
                arrives = end
                link = channel[backward * stages + here]
                if link >= 0:
                    arrives = (end if end > free[link] else free[link]) + transfer_s
                    free[link] = arrives
                cell = (backward * stages + target) * micro_batches + micro_batch[one]
                ready[cell] = arrives
                other = stage_rank[target]
                if waiting[other] == cell:
                    waiting[other] = -1
                    ranks.append(other)
            done += after - at
            at = after
            now = end
        place[rank] = at
    return done


def pipeline_flat(orders: PassOrders, times: PassTimes, link: np.ndarray | None = None) -> FlatProgram:
    """The same passes as operations 0, 1, 2 …, then their messages in the order of the passes that send them.

    ``link`` gives the resource that each rank's messages queue for, int64[ranks]; without it they share none.

    Raises:
        InputError: the times are of other stages; or a pass overlaps with another.
    """
    if orders.together.any():
        raise InputError("passes that overlap are one operation each; write them out as a Program")
    return _Written(orders, times).flat(link)


class _Written:
    """Edges of the passes and messages of some orders."""

    def __init__(self, orders: PassOrders, times: PassTimes) -> None:
        self.orders, self.times = orders, times
        self.durations = pass_seconds(times, orders.stages)[orders.kind, orders.stage]
        self.backward = (orders.kind != FORWARD).astype(np.int64)
        channel = channels(orders.stage_rank)[self.backward * orders.stages + orders.stage]
        target = orders.stage + 1 - 2 * self.backward
        self.sends = (orders.kind != WEIGHT_GRADIENT) & (target >= 0) & (target < orders.stages)
        self.senders = np.flatnonzero(self.sends & (channel >= 0))
        self.channel = channel[self.senders]
        self.sent = np.arange(orders.passes)
        self.sent[self.senders] = orders.passes + np.arange(len(self.senders))
        """By pass: the operation after which its result is where it is needed."""
        self.place = np.full((4, orders.stages, orders.micro_batches), -1)
        self.place[orders.kind, orders.stage, orders.micro_batch] = np.arange(orders.passes)

    def flat(self, link: np.ndarray | None) -> FlatProgram:
        """All arrays."""
        orders, count = self.orders, self.orders.passes + len(self.senders)
        pairs = [*self._in_order(), *self._needs()]
        sources = np.concatenate([pair[0] for pair in pairs]).astype(np.int32)
        targets = np.concatenate([pair[1] for pair in pairs]).astype(np.int32)
        durations = np.concatenate([self.durations, np.full(len(self.senders), self.times.transfer_s)])
        slots = np.zeros(0, dtype=np.int32)
        counts = np.zeros(count, dtype=np.int64)
        if link is not None:
            slots = link[orders.stage_rank[orders.stage[self.senders]]].astype(np.int32)
            counts[orders.passes :] = 1
        resources = int(slots.max(initial=-1)) + 1
        edges = (sources, targets, np.zeros(len(sources)))
        return flat_arrays(None, durations, edges, offsets(counts), slots, resources=resources)

    def _in_order(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """What ranks and channels do, one after another."""
        not_first = np.ones(self.orders.passes, dtype=np.bool_)
        not_first[self.orders.first[:-1][np.diff(self.orders.first) > 0]] = False
        passes = np.flatnonzero(not_first)
        by_channel = np.argsort(self.channel, kind="stable")
        same = np.diff(self.channel[by_channel]) == 0
        messages = self.sent[self.senders][by_channel]
        return [
            (passes - 1, passes),
            (self.senders, self.sent[self.senders]),
            (messages[:-1][same], messages[1:][same]),
        ]

    def _needs(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """What passes wait for on other stages, and halves on their own."""
        orders = self.orders
        senders = np.flatnonzero(self.sends)
        target = orders.stage[senders] + 1 - 2 * self.backward[senders]
        index = orders.micro_batch[senders]
        forward = self.place[FORWARD, target, index]
        later = np.maximum(self.place[BACKWARD, target, index], self.place[INPUT_GRADIENT, target, index])
        to = np.where(self.backward[senders] == 1, later, forward)
        last = self.place[FORWARD, -1]
        own = np.maximum(self.place[BACKWARD, -1], self.place[INPUT_GRADIENT, -1])
        halves = self.place[INPUT_GRADIENT].reshape(-1), self.place[WEIGHT_GRADIENT].reshape(-1)
        pairs = [(self.sent[senders], to), (last, own), halves]
        return [(one[(one >= 0) & (other >= 0)], other[(one >= 0) & (other >= 0)]) for one, other in pairs]
