"""Gradient all-reduce over data-parallel replicas: torch DDP, with a mark for each bucket."""

from __future__ import annotations

from typing import cast

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..sim.plan import Action, Kind
from ..sim.strategy import DDP_BUCKET_BYTES
from .measure import Recorder


class Reduction:
    """Wraps a module in DDP and notes when each bucket is issued and done."""

    def __init__(self, group: dist.ProcessGroup, recorder: Recorder, stage: int, place: str):
        """``place`` tells this group of replicas from others in the marks."""
        self.group, self.recorder, self.stage, self.place = group, recorder, stage, place
        self.replicas = group.size()
        self.issued_last: object = None
        """When the last bucket was issued: backward's compute is over by then."""

    def wrap(self, module: nn.Module, bucket_bytes: int) -> DistributedDataParallel:
        """``module`` under DDP. DDP's own default also makes the first bucket small."""
        cap = None if bucket_bytes == DDP_BUCKET_BYTES else bucket_bytes / 2**20
        wrapped = DistributedDataParallel(
            module, process_group=self.group, bucket_cap_mb=cap, broadcast_buffers=False
        )
        wrapped.register_comm_hook(None, self._hook)
        return wrapped

    def _hook(self, _, bucket):
        buffer = bucket.buffer().div_(self.replicas)
        index, size = bucket.index(), buffer.numel() * buffer.element_size()
        issued = self.issued_last = self.recorder.clock.stamp()
        work = cast(dist.Work, dist.all_reduce(buffer, group=self.group, async_op=True))

        def done(future: torch.futures.Future[list[torch.Tensor]]) -> torch.Tensor:
            action = Action(self.stage, Kind.REDUCE_GRAD, index)
            end = self.recorder.clock.stamp()
            self.recorder.add(action, "dp", issued, end, size_bytes=size, key=f"{self.place}:{action}")
            return future.value()[0]

        return cast(torch.futures.Future[torch.Tensor], work.get_future().then(done))
