"""Gradient all-reduce over data-parallel replicas: torch DDP, with a mark for each bucket."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from ...sim.plan.action import Action, Kind
from ..measure.recorder import Recorder
from ..model.decoder import Layers


class Reduction:
    """Wraps a module in DDP and notes when each bucket is issued and done."""

    def __init__(self, group: dist.ProcessGroup, recorder: Recorder, stage: int, place: str):
        """``place`` tells this group of replicas from others in the marks."""
        self.group, self.recorder, self.stage, self.place = group, recorder, stage, place
        self.replicas = group.size()
        self.issued_last: object = None
        """When the last bucket was issued: backward's compute is over by then."""
        self.waits = False

    def wrap(self, module: Layers, buckets: Sequence[Sequence[int]]) -> DistributedDataParallel:
        """``module`` under DDP, reduced in the plan's ``buckets`` of layer indices.

        DDP closes a bucket when it holds its limit, in the order in which gradients come in the first step;
        limits that are the very sizes of the plan's buckets make it close them where the plan does. (Under
        one limit for all, DDP would also split layers, which the plan does not.)
        """
        held = module.layer_parameters()
        sizes = [sum(p.nbytes for index in bucket for p in held[index]) for bucket in buckets]
        wrapped = DistributedDataParallel(
            module,
            process_group=self.group,
            bucket_cap_mb_list=[size / 2**20 for size in sizes],  # type: ignore[arg-type]
            broadcast_buffers=False,
        )
        wrapped.register_comm_hook(None, self._hook)
        return wrapped

    def begin_backward(self) -> None:
        """No bucket is under way."""
        self.issued_last, self.waits = None, False

    def end_backward(self) -> None:
        """DDP has waited for its buckets, if it had any to reduce."""
        if self.waits:
            self.recorder.heartbeat.set_waiting(False)

    def _hook(self, _, bucket):
        buffer = bucket.buffer().div_(self.replicas)
        index, size = bucket.index(), buffer.numel() * buffer.element_size()
        issued = self.issued_last = self.recorder.clock.stamp()
        work = cast(dist.Work, dist.all_reduce(buffer, group=self.group, async_op=True))

        if bucket.is_last():
            # All gradients are there: what is left of backward is waiting for the other replicas.
            self.waits = True
            self.recorder.heartbeat.set_waiting(True)

        def done(future: torch.futures.Future[list[torch.Tensor]]) -> torch.Tensor:
            action = Action(self.stage, Kind.REDUCE_GRAD, bucket=index)
            end = self.recorder.clock.stamp()
            self.recorder.add(action, "dp", issued, end, size_bytes=size, key=f"{self.place}:{action}")
            return future.value()[0]

        return cast(torch.futures.Future[torch.Tensor], work.get_future().then(done))
