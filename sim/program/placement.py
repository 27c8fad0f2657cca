"""Where operations happen: which processor a rank computes on, which channel a message takes."""

from __future__ import annotations

import math

from ..costs.costs import Costs
from ..hardware.cluster import Cluster
from .program import Program, SpanLabel

COMPUTE = "compute"
"""The stream of a rank's compute."""
MOST_SLICES = 10_000
"""Of one piece of compute; of a longer one each is longer, which is as fair."""


class Placement:
    """Which processor a rank computes on, and what it shares it with."""

    def __init__(self, program: Program, cluster: Cluster, world_size: int, *, overlaps: bool = False):
        """``overlaps`` where ranks communicate while they compute."""
        self.program = program
        self.host = cluster.host
        self.ranks_per_node = min(world_size, cluster.accelerators_per_node)
        self.cores = self.host.cores if self.host else self.ranks_per_node
        is_staged = self.host is not None and self.host.host_staged
        self.shared = self.ranks_per_node > self.cores or (is_staged and overlaps)
        """Whether more than one thing may want a core at once."""
        self.core_s = 0.0
        """Seconds of cores that everything added so far takes."""

    def compute(
        self,
        rank: int,
        duration: float,
        after: list[tuple[int, float]],
        label: SpanLabel | None = None,
        flops: float = 0.0,
        *,
        stream: str = COMPUTE,
        parent: int = -1,
    ) -> int:
        """Add compute on ``rank`` and return its last operation.

        On a shared core it runs in the kernel's time slices, taking turns with whoever else is ready. What
        is done next to the rank's compute is on another ``stream``; part of another operation's span names
        that as its ``parent``.
        """
        self.core_s += duration
        spans = (label,) if label else ()
        resources = (self.program.resource("core", self.core(rank)),) if self.shared else ()
        streams = (self.program.stream(rank, stream),)
        slices = self._slices(duration)
        share = duration / slices
        first = op = self.program.add(
            share,
            streams,
            after=after,
            resources=resources,
            spans=spans,
            flops=flops,
            rank=rank,
            parent=parent,
        )
        for _ in range(slices - 1):
            op = self.program.add(
                share,
                streams,
                resources=resources,
                spans=spans,
                rank=rank,
                parent=first if parent < 0 else parent,
            )
        return op

    def _slices(self, duration: float) -> int:
        if not self.shared or self.host is None:
            return 1
        return min(MOST_SLICES, max(1, math.ceil(duration / self.host.time_slice_s)))

    def core(self, rank: int) -> int:
        """The core a rank is pinned to: ranks of a node take cores in turn."""
        node, local = divmod(rank, self.ranks_per_node)
        return node * self.cores + local % self.cores


class Messenger:
    """Point-to-point messages between ranks, with what they cost the processors at both ends."""

    def __init__(self, program: Program, placement: Placement, costs: Costs):
        self.program, self.placement, self.costs = program, placement, costs
        self.known: dict[tuple[float, int, int], tuple[float, float]] = {}

    def send(
        self,
        size_bytes: float,
        source: int,
        target: int,
        *,
        after: list[tuple[int, float]],
        name: str,
        labels: tuple[SpanLabel, ...],
        resources: tuple[int, ...] = (),
        blocking: bool = False,
        row: int = -1,
    ) -> int:
        """Add one message and return the transfer; `receive` ends it.

        A host-staged message takes processor time from both ends (the overhead o of LogP, Culler et al.
        1993): the sender's during the transfer, the receiver's at its end. While a ``blocking`` one is
        under way its sender computes nothing. ``row`` is where it finds its slowness.
        """
        wall, cpu = self._times(size_bytes, source, target)
        streams = (self.program.stream(source, f"{name}>{target}"),)
        if blocking:
            streams += (self.program.stream(source, COMPUTE),)
        op = self.program.add(
            wall - cpu,
            streams,
            after=after,
            spans=labels,
            size_bytes=size_bytes,
            resources=resources,
            rank=row,
        )
        if cpu:
            self.placement.compute(source, cpu, after)
        return op

    def receive(self, transfer: int, size_bytes: float, source: int, target: int) -> int:
        """Add the receiver's share of a message and return the operation after which it has the data."""
        cpu = self._times(size_bytes, source, target)[1]
        return self.placement.compute(target, cpu, [(transfer, 0.0)]) if cpu else transfer

    def _times(self, size_bytes: float, source: int, target: int) -> tuple[float, float]:
        key = (size_bytes, source, target)
        if key not in self.known:
            wall = self.costs.communication.transfer_s(*key)
            self.known[key] = (wall, min(self.costs.communication.transfer_cpu_s(size_bytes), wall))
        return self.known[key]
