"""What every calibration task has: a rank's device, its clocks, and samples of a call."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from ..measure.recorder import CpuClock, CudaClock
from ..measure.speed import SpeedProbe

SAMPLE_S = 0.02
"""A sample repeats a short kernel until about this much time has gone."""
SAMPLES, FULL_SAMPLES = 5, 20
TRIALS = 3
"""Calls that say how often to call."""
MOST_QUEUED = 100
"""Calls that wait in a GPU's queue, which holds about a thousand launches."""
SPINS_PER_S, SPARE = 2e9, 1.5
"""Clock cycles of a GPU in a second, at most, and how much longer than the host needs it waits."""

LaidOut = dict[str, Any]
"""A series as plain values."""


class Moment(NamedTuple):
    """A reading of both clocks, or the difference of two, in seconds."""

    wall: float
    cpu: float
    """Processor seconds of this process, all its threads; 0 on GPUs."""

    def since(self, earlier: Moment) -> Moment:
        return Moment(self.wall - earlier.wall, self.cpu - earlier.cpu)

    def times(self, factor: float) -> Moment:
        return Moment(self.wall * factor, self.cpu * factor)


def total(moments: Iterable[Moment]) -> Moment:
    walls, cpus = zip(*moments, strict=True)
    return Moment(sum(walls), sum(cpus))


class Bench:
    """A rank's device, and how it takes time."""

    def __init__(self, device: torch.device, rank: int, groups: Mapping[int, dist.ProcessGroup]):
        self.device, self.rank, self.groups = device, rank, groups
        self.ranks: tuple[int, ...] = (rank,)
        """Who was asked the present task."""
        self.kept: dict[Any, Any] = {}
        """What a task keeps for its next visit."""
        self.on_cpu = device.type == "cpu"
        self.precision = "fp32" if self.on_cpu else "bf16"
        self.dtype = torch.float32 if self.on_cpu else torch.bfloat16
        self.clock = CpuClock() if self.on_cpu else CudaClock()
        self._probe = SpeedProbe() if self.on_cpu else None

    def now(self) -> Moment:
        """With everything issued so far done."""
        self.clock.settle()
        return Moment(time.perf_counter(), time.process_time() if self.on_cpu else 0.0)

    def probe(self) -> float:
        """Seconds of the speed probe now; 0 on GPUs."""
        return self._probe() if self._probe is not None else 0.0

    def stamp(self) -> Any:
        """A moment in the course of the device's work, which goes on; `resolve` reads it."""
        return self.now() if self.on_cpu else self.clock.stamp()

    def resolve(self, stamp: Any) -> Moment:
        return stamp if self.on_cpu else Moment(self.clock.resolve(stamp), 0.0)

    def random(self, *shape: int) -> Tensor:
        return torch.randn(*shape, device=self.device, dtype=self.dtype)

    def samples(self, kernel: Callable[[], object], full: bool) -> list[Moment]:
        """What one call of ``kernel`` takes, several times: on a GPU by its own time, not the host's."""
        if not self.on_cpu:
            return self._device_samples(kernel, full)
        kernel()
        start = self.now()
        kernel()
        calls = max(1, int(SAMPLE_S / max(self.now().since(start).wall, 1e-7)))
        found = []
        for _ in range(FULL_SAMPLES if full else SAMPLES):
            start = self.now()
            for _ in range(calls):
                kernel()
            found.append(self.now().since(start).times(1 / calls))
        return found

    def _device_samples(self, kernel: Callable[[], object], full: bool) -> list[Moment]:
        """Calls wait in the device's queue behind a pause, so that the host is never what they wait for."""
        for _ in range(2):
            kernel()
        self.clock.settle()
        start = time.perf_counter()
        for _ in range(TRIALS):
            kernel()
        issued_s = (time.perf_counter() - start) / TRIALS
        whole_s = self.now().wall - start
        calls = max(1, min(MOST_QUEUED, int(SAMPLE_S / max(whole_s / TRIALS, 1e-6))))
        pause = int(SPARE * calls * issued_s * SPINS_PER_S)
        found = []
        for _ in range(FULL_SAMPLES if full else SAMPLES):
            torch.cuda._sleep(pause)
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            first.record()
            for _ in range(calls):
                kernel()
            last.record()
            self.clock.settle()
            found.append(Moment(first.elapsed_time(last) / 1e3 / calls, 0.0))
        return found


def sizes(what: str, parameters: Mapping[str, Any], values: list[float]) -> LaidOut:
    """A series of bytes as plain values."""
    return {"what": what, "parameters": dict(parameters), "seconds": [], "bytes": values}


def series(
    what: str, parameters: Mapping[str, Any], samples: list[Moment], probes: Sequence[float] = ()
) -> LaidOut:
    """A series as plain values; ``probes`` are the speed probe's seconds around each sample, where the task
    itself took them."""
    walls, cpus = [sample.wall for sample in samples], [sample.cpu for sample in samples]
    return {
        "what": what,
        "parameters": dict(parameters),
        "seconds": walls,
        "cpu_seconds": cpus if any(cpus) else [],
        **({"probes": list(probes)} if any(probes) else {}),
    }


def probed(found: list[LaidOut], before: float, after: float, company: int) -> list[LaidOut]:
    """``found`` of one task, with what the speed probe took on ``company`` ranks at once before it and after
    it, for samples that have no probes of their own; those were taken likewise."""
    mean = (before + after) / 2
    for one in found if mean else ():
        one["company"] = company
        one.setdefault("probes", [mean] * len(one["seconds"]))
    return found
