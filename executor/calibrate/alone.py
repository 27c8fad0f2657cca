"""One rank of a divided layer, without the others or with them.

Without them it computes its part, and nothing is sent: a `LoneWire` answers each collective at once with
values of the right shape that mean nothing, and adds up the time that takes, which is not compute's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor

from ...sim.plan.make_plan import make_plan
from ...sim.plan.rank_groups import Groups as RankGroups
from ...sim.plan.strategy import Strategy
from ..measure.heartbeat import Heartbeat
from ..measure.recorder import CpuClock, Recorder
from ..model.decoder import Layers
from ..model.workload import Workload
from ..parallel import context, expert, tensor
from ..parallel.process_groups import Groups
from ..parallel.rank_context import RankContext
from ..parallel.wire import Pending, Wire
from .bench import Moment

DIVIDING = (tensor, context, expert)
"""The modules that divide layers, in order of application."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Division:
    """How layers are divided over ranks."""

    tp: int = 1
    sequence_parallel: bool = False
    cp: int = 1
    cp_exchange: str = ""
    ep: int = 1

    @property
    def is_whole(self) -> bool:
        """Whether one rank has the layers to itself."""
        return self.tp == self.cp == self.ep == 1

    @property
    def dimension(self) -> str:
        """The one along which layers are divided; empty where there are none, or several."""
        degrees = {"tp": self.tp, "cp": self.cp, "ep": self.ep}
        divided = [name for name, degree in degrees.items() if degree > 1]
        return divided[0] if len(divided) == 1 else ""

    @property
    def strategy(self) -> Strategy:
        """A plan's fields that divide layers so."""
        return Strategy(
            tp=self.tp,
            sequence_parallel=self.sequence_parallel,
            cp=self.cp,
            cp_exchange=self.cp_exchange or Strategy().cp_exchange,
            ep=self.ep,
            dp=max(1, self.ep // self.cp),
        )


class LoneWire(Wire):
    """A group of ``size`` ranks of which only the last is there."""

    def __init__(self, name: str, size: int, spent: list[float]):
        """``spent`` are seconds by the wall clock and of the processor, added to."""
        self.name, self.size, self.index = name, size, size - 1
        self.group, self.stream = None, name
        self._spent = spent

    def all_gather(self, x: Tensor) -> Pending:
        """What all ranks would have: as much of each as of this one."""
        x = x.contiguous()
        out = x.new_empty((self.size * x.shape[0], *x.shape[1:]))
        return self._start(lambda: None, out, x)  # what memory held before may be numbers that take long

    def shift(self, x: Tensor, by: int = 1) -> Pending:
        """What would come round the ring: as much as goes on."""
        x = x.contiguous()
        return self._start(lambda: None, torch.empty_like(x), x)

    def _start(self, call: Callable[..., Any], out: Tensor, whole: Tensor, *_: Any, **__: Any) -> Pending:
        wall, cpu = time.perf_counter(), time.process_time()
        if out.data_ptr() != whole.data_ptr() and whole.numel():
            flat = out.view(-1)
            for begin in range(0, flat.numel(), whole.numel()):
                part = flat[begin : begin + whole.numel()]
                part.copy_(whole.reshape(-1)[: part.numel()])
        self._spent[0] += time.perf_counter() - wall
        self._spent[1] += time.process_time() - cpu
        return cast(Pending, _Arrived(out))


class _Arrived:
    """What a wire gives, already there."""

    def __init__(self, out: Tensor):
        self.out = out

    def wait(self) -> Tensor:
        return self.out


@dataclass(frozen=True, kw_only=True)
class LoneContext(RankContext):
    """The last rank of a plan, whose wires lead nowhere."""

    sizes: dict[str, int]
    spent: list[float]

    def wire(self, name: str) -> Wire:
        """A group of as many ranks as the plan has there."""
        return LoneWire(name, self.sizes.get(name, 1), self.spent)


class Part:
    """Layers as one rank has them, and its part of the samples."""

    def __init__(self, layers: Layers, here: RankContext | None, spent: list[float]):
        self.layers, self._here, self._spent = layers, here, spent

    @property
    def exchanged(self) -> Moment:
        """What left-out exchanges have taken so far."""
        return Moment(*self._spent)

    def tokens(self, batch: Tensor) -> Tensor:
        """This rank's part of ``batch``, inputs or targets."""
        return batch if self._here is None else context.share_tokens(batch, self._here)


class _Unwatched:
    """A heartbeat that nobody looks at."""

    def waiting(self) -> AbstractContextManager[None]:
        return nullcontext()


def divided(
    layers: Layers,
    workload: Workload,
    division: Division,
    device: torch.device,
    group: dist.ProcessGroup | None = None,
) -> Part:
    """``layers``, all of a model's, as this rank of ``group`` has them, along whose one dimension they are
    divided; as the last rank has them where there is no group."""
    spent = [0.0, 0.0]
    if division.is_whole:
        return Part(layers, None, spent)
    strategy = division.strategy
    plan = make_plan(replace(workload.job, global_batch=strategy.dp), strategy)
    rank = plan.world_size - 1 if group is None else dist.get_rank(group)
    facts: dict[str, Any] = {
        "plan": plan,
        "rank": rank,
        "device": device,
        "recorder": Recorder(rank, CpuClock(), cast(Heartbeat, _Unwatched())),
        "workload": workload,
    }
    if group is None:
        sizes = {name: RankGroups(strategy)[name].size for name in ("tp", "cp", "ep")}
        here: RankContext = LoneContext(**facts, groups=Groups(), sizes=sizes, spent=spent)
    else:
        here = RankContext(**facts, groups=Groups(**{division.dimension: group}))
    for parallelism in DIVIDING:
        parallelism.apply(layers, here)
    return Part(layers, here, spent)
