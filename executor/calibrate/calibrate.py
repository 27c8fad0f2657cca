"""Measure this machine: kernels, layers, optimizer steps, transport, and what ranks cost each other.

`measure` starts one process for every rank, pinned and single-threaded like the workers of a run, and asks
some or all of them for one task at a time; the tasks are in `calibrate_kernels`, `calibrate_layers` and
`calibrate_transport`. It returns plain samples and fits nothing: a shared machine changes its speed from
minute to minute, so samples of several short rounds, taken in turns with real runs, are pooled by `merge`
before anything is fitted to them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ...sim.model.model import Model

SCHEMA = "traincast.measurements/1"
OPTIMIZERS = ("adamw", "sgd", "momentum")
KERNELS = ("launch", "gemm", "memory", "attention")
GPU_KERNELS = (*KERNELS, "elementwise", "host")
RANKS = (2, 4)
"""Numbers of ranks that communicate, where ranks are processes on the CPU."""

Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Samples of one thing, measured again and again."""

    what: str
    """`gemm`, `memory`, `forward`, `step`, `all_reduce` ..."""
    parameters: Mapping[str, Any]
    """What it depends on: sizes, shapes, ranks; plain values."""
    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...] = ()
    """Processor seconds of one rank, all its threads together; empty where it was not asked."""

    @property
    def key(self) -> str:
        """The same for samples of the same thing."""
        return json.dumps([self.what, self.parameters], sort_keys=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """Everything that one or several rounds measured."""

    machine: Mapping[str, Any]
    """Device, kind, cores, memory, versions."""
    series: tuple[Series, ...] = field(default=())
    rounds: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` reads them back."""
        return {
            "schema": SCHEMA,
            "machine": dict(self.machine),
            "rounds": self.rounds,
            "series": [
                {
                    "what": s.what,
                    "parameters": dict(s.parameters),
                    "seconds": list(s.seconds),
                    "cpu_seconds": list(s.cpu_seconds),
                }
                for s in self.series
            ],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Measurements:
        return cls(
            machine=data["machine"],
            rounds=data["rounds"],
            series=tuple(_series(item) for item in data["series"]),
        )


def _series(data: Mapping[str, Any]) -> Series:
    return Series(
        what=data["what"],
        parameters=data["parameters"],
        seconds=tuple(data["seconds"]),
        cpu_seconds=tuple(data.get("cpu_seconds", ())),
    )


def merge(rounds: Iterable[Measurements]) -> Measurements:
    """Rounds on one machine as one: samples of the same thing pooled, in order."""
    rounds = list(rounds)
    pooled: dict[str, Series] = {}
    for series in (s for one in rounds for s in one.series):
        before = pooled.get(series.key)
        pooled[series.key] = _pool(before, series) if before else series
    return Measurements(
        machine=rounds[0].machine,
        series=tuple(pooled.values()),
        rounds=sum(one.rounds for one in rounds),
    )


def _pool(first: Series, second: Series) -> Series:
    return Series(
        what=first.what,
        parameters=first.parameters,
        seconds=first.seconds + second.seconds,
        cpu_seconds=first.cpu_seconds + second.cpu_seconds,
    )


@dataclass(frozen=True, slots=True)
class Task:
    """One thing to ask of some ranks at once; a rank that is not asked waits without using its core."""

    title: str
    ranks: tuple[int, ...]
    name: str
    arguments: Mapping[str, Any]


def measure(
    models: Sequence[Model],
    seq_len: int,
    micro_batches: Sequence[int],
    on_progress: Progress | None = None,
    *,
    ranks: Sequence[int] = RANKS,
    full: bool = False,
) -> Measurements:
    """One round of measurements of the machine at hand, with the layers of ``models`` profiled.

    About half a minute for a small model; ``full`` takes more samples and measures all collectives.
    ``ranks`` are the numbers of ranks that communicate and compute at once.

    Raises:
        RunError: a process of the calibration died or raised.
    """
    from .crew import Crew, machine

    facts = machine()
    counts = _rank_counts(facts, ranks)
    tasks = _tasks(facts, models, seq_len, sorted(set(micro_batches)), counts, full)
    samples: list[Series] = []
    with Crew(max(counts, default=1), facts["kind"]) as crew:
        facts["reserved_bytes"] = crew.reserved_bytes
        for number, task in enumerate(tasks):
            if on_progress:
                on_progress(task.title, number / len(tasks))
            answers = crew.ask(task.ranks, task.name, task.arguments)
            samples += [_series(item) for answer in answers for item in answer]
    if on_progress:
        on_progress("done", 1.0)
    return merge([Measurements(machine=facts, series=tuple(samples))])


def _rank_counts(facts: Mapping[str, Any], ranks: Sequence[int]) -> list[int]:
    """Ranks are processes on the CPU; on GPUs there is one to a device."""
    if facts["kind"] == "cpu":
        return sorted(set(ranks))
    return [count for count in sorted({*ranks, facts["devices"]}) if 2 <= count <= facts["devices"]]


def _tasks(
    facts: Mapping[str, Any],
    models: Sequence[Model],
    seq_len: int,
    micro_batches: list[int],
    counts: list[int],
    full: bool,
) -> list[Task]:
    """All tasks of a round, in order.

    What ranks cost each other changes most from minute to minute, so it is measured again and again between
    the rest, a little each time.
    """
    layers = [
        Task(f"{model.name}, micro-batch {size}", (0,), "layers", {**_shape(model, seq_len, full, size)})
        for model in models
        for size in micro_batches
    ]
    names = KERNELS if facts["kind"] == "cpu" else GPU_KERNELS
    kernels = [Task(f"{name} kernels", (0,), name, {"full": full}) for name in names]
    steps = [
        Task(f"optimizer {name}", (0,), "optimizer", {"decoder": asdict(model.decoder), "optimizer": name})
        for model in models
        for name in OPTIMIZERS
    ]
    shared = facts["kind"] == "cpu" and max(counts, default=1) > facts["cores"]
    slices = [Task("time slices", tuple(range(max(counts))), "slices", {})] if shared else []
    together = _together_tasks(models, seq_len, micro_batches, counts, full) if facts["kind"] == "cpu" else []
    parts = [layers, kernels, [*steps, *slices], _transport_tasks(counts, full), layers if full else []]
    return [*together, *(task for part in parts if part for task in (*part, *together))]


def _shape(model: Model, seq_len: int, full: bool, micro_batch: int) -> dict[str, Any]:
    repeats = 2 if full else 1
    decoder = asdict(model.decoder)
    return {"decoder": decoder, "seq_len": seq_len, "repeats": repeats, "micro_batch": micro_batch}


def _together_tasks(
    models: Sequence[Model], seq_len: int, micro_batches: list[int], counts: list[int], full: bool
) -> list[Task]:
    """The same step on one rank, and on several at once."""
    middle = micro_batches[len(micro_batches) // 2]
    return [
        Task(
            f"{model.name} on {count} ranks at once",
            tuple(range(count)),
            "step",
            {**_shape(model, seq_len, full, middle), "processes": count},
        )
        for model in models
        for count in sorted({1, *counts})
    ]


def _transport_tasks(counts: list[int], full: bool) -> list[Task]:
    collectives = ["all_reduce", *(("broadcast", "all_gather", "reduce_scatter") if full else ())]
    tasks = [
        Task(f"{name} on {count} ranks", tuple(range(count)), name, {"full": full})
        for name in collectives
        for count in counts
    ]
    if counts:
        tasks.append(Task("messages", (0, 1), "send_recv", {"full": full}))
    return tasks
