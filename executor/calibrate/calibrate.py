"""Measure this machine: kernels, layers, optimizer steps, transport, and what ranks cost each other.

`measure` starts one process for every rank, pinned and single-threaded like the workers of a run, and asks
some or all of them for one task at a time; the tasks are in `kernels.py`, `layers.py` and `transport.py`.
How much memory a process takes is seen in processes of their own (`memory.py`). It returns plain samples and
fits nothing: a shared machine changes its speed from minute to minute, so samples of several short rounds,
taken in turns with real runs, are pooled by `merge` before anything is fitted to them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from .needs import LayerNeed, Needs

if TYPE_CHECKING:
    from .crew import Crew

SCHEMA = "traincast.measurements/1"
KERNELS = ("launch", "gemm", "memory", "attention")
GPU_KERNELS = (*KERNELS, "elementwise", "host")
LAYERS_S, LONGEST_LAYER_S = 60.0, 0.8
"""Seconds in which all layers are profiled, and the most for one of them in one visit."""

DISTURBED, LONGER_S = 0.1, 15.0
"""Cores that other programs take from which on something is measured again, and seconds that a round may
spend so in all: on a machine that is always busy it would be in vain."""
TICKS_S = 0.03
"""By so much what a machine counts of a moment's work may be off."""

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
    bytes: tuple[float, ...] = ()
    """Of what has a size instead."""
    probes: tuple[float, ...] = ()
    """Seconds of the speed probe around each sample: how fast the processor was; empty where unknown."""
    company: int = 1
    """Ranks that took the probe at once."""

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
                    **({"bytes": list(s.bytes)} if s.bytes else {}),
                    **({"probes": list(s.probes), "company": s.company} if s.probes else {}),
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
        bytes=tuple(data.get("bytes", ())),
        probes=tuple(data.get("probes", ())),
        company=data.get("company", 1),
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
    return replace(
        first,
        seconds=first.seconds + second.seconds,
        cpu_seconds=first.cpu_seconds + second.cpu_seconds,
        bytes=first.bytes + second.bytes,
        probes=first.probes + second.probes,
    )


@dataclass(frozen=True, slots=True)
class Task:
    """One thing to ask of some ranks at once; a rank that is not asked waits without using its core."""

    title: str
    ranks: tuple[int, ...]
    name: str
    arguments: Mapping[str, Any]


def measure(
    needs: Needs,
    on_progress: Progress | None = None,
    *,
    seconds: float = LAYERS_S,
    full: bool = False,
    again: bool = False,
    visits: int = 1,
) -> Measurements:
    """One round of measurements of the machine at hand: what ``needs`` says, and kernels for all else.

    ``seconds`` is about how long layers are profiled in all, in so many ``visits`` between the rest; ``full``
    takes more samples. Of a round that
    comes ``again`` what does not change from minute to minute is left out: memory, kernels.

    Raises:
        RunError: a process of the calibration died or raised.
    """
    from .crew import Crew, machine, probe_memory

    facts = machine()
    if facts["kind"] != "cpu":
        needs = _on_gpus(needs, facts["devices"])
    tasks = _tasks(facts, needs, seconds, full=full, again=again, visits=visits)
    say = on_progress or (lambda text, fraction: None)
    samples: list[Series] = []
    if facts["kind"] == "cpu" and needs.memories and not again:
        say("memory", 0.0)
        samples += [_series(item) for item in probe_memory(needs.memories)]
    asking = _Asking() if facts["kind"] == "cpu" else None
    with Crew(needs.world_size, facts["kind"]) as crew:
        facts["reserved_bytes"] = crew.reserved_bytes
        for number, task in enumerate(tasks):
            say(task.title, number / len(tasks))
            answers = asking.undisturbed(crew, task) if asking else _asked(crew, task)
            samples += [_series(item) for answer in answers for item in answer]
    say("done", 1.0)
    return merge([Measurements(machine=facts, series=tuple(samples))])


def _asked(crew: Crew, task: Task) -> list[Any]:
    return crew.ask(task.ranks, task.name, task.arguments)


class _Asking:
    """Asks ranks again for what other programs disturbed."""

    def __init__(self) -> None:
        self.left_s = LONGER_S

    def undisturbed(self, crew: Crew, task: Task) -> list[Any]:
        """The answers to ``task`` while other programs left the cores alone; else those of the try that was
        disturbed least."""
        best, answers = self._try(crew, task)
        while best >= DISTURBED and self.left_s > 0.0:
            start = time.perf_counter()
            others, again = self._try(crew, task)
            self.left_s -= time.perf_counter() - start
            if others < best:
                best, answers = others, again
        return answers

    @staticmethod
    def _try(crew: Crew, task: Task) -> tuple[float, list[Any]]:
        """The cores that others took meanwhile, and the answers."""
        before = crew.load()
        answers = _asked(crew, task)
        after = crew.load()
        others = after.busy - before.busy - (after.own - before.own)
        return max(0.0, others - TICKS_S) / (after.wall - before.wall), answers


def _on_gpus(needs: Needs, devices: int) -> Needs:
    """There is one rank to a device."""
    return replace(
        needs,
        transports=tuple(one for one in needs.transports if one.ranks <= devices),
        ranks=tuple(count for count in needs.ranks if count <= devices),
    )


def _tasks(
    facts: Mapping[str, Any], needs: Needs, seconds: float, *, full: bool, again: bool, visits: int
) -> list[Task]:
    """All tasks of a round, in order.

    What ranks cost each other changes most from minute to minute, so it is measured again and again between
    the rest, a little each time; and so are layers, ``visits`` times.
    """
    on_cpu = facts["kind"] == "cpu"
    names = () if again else KERNELS if on_cpu else GPU_KERNELS
    kernels = [Task(f"{name} kernels", (0,), name, {"full": full}) for name in names]
    steps = [Task(f"optimizer {one.optimizer}", (0,), "optimizer", asdict(one)) for one in needs.optimizers]
    together = _together_tasks(needs) if on_cpu else []
    neighbours = _neighbour_tasks(facts, needs) if on_cpu else []
    layers = _layer_tasks(needs, seconds / visits, on_cpu=on_cpu)
    others = [kernels, [*steps, *neighbours], _transport_tasks(needs, full)]
    parts = [part for pair in zip_longest([layers] * visits, others) for part in pair if part]
    return [*together, *(task for part in parts for task in (*part, *together))]


def _layer_tasks(needs: Needs, seconds: float, *, on_cpu: bool) -> list[Task]:
    each = min(LONGEST_LAYER_S, seconds / max(1, len(needs.layers)))
    found = []
    for need in needs.layers:
        asked = {**asdict(need), "seconds": each}
        found.append(Task(need.title, (0,), "layers", asked))
        if on_cpu and need.sharing > 1:
            del asked["splits_backward"]
            title = f"{need.title} with exchanges"
            found.append(Task(title, tuple(range(need.sharing)), "exchanges", asked))
    return found


def _smallest(needs: Needs) -> LayerNeed | None:
    """Whole layers of a middling micro-batch of the smallest model: what ranks compute next to each other."""
    whole = [one for one in needs.layers if one.tp == one.cp == one.ep == 1]
    if not whole:
        return None
    width = min(one.decoder.hidden for one in whole)
    sizes = sorted((one for one in whole if one.decoder.hidden == width), key=lambda one: one.micro_batch)
    return sizes[len(sizes) // 2]


def _together_tasks(needs: Needs) -> list[Task]:
    """The same step on one rank and on several at once, in turns."""
    need = _smallest(needs)
    if need is None:
        return []
    return [
        Task(
            f"the same step on {count} ranks at once",
            tuple(range(count)),
            "step",
            _stack(need, processes=count),
        )
        for count in sorted({*needs.ranks} - {1})
    ]


def _neighbour_tasks(facts: Mapping[str, Any], needs: Needs) -> list[Task]:
    """What ranks of a host cost each other: turns on a core, traffic next to compute, copies of gradients."""
    most, need = max(needs.ranks, default=1), _smallest(needs)
    found = [Task("time slices", tuple(range(most)), "slices", {})] if most > facts["cores"] else []
    if need is not None and most > 1:
        both = tuple(range(min(most, facts["cores"])))
        if len(both) > 1:
            alone = _stack(replace(need, micro_batch=1))  # about as long as the all-reduce
            found.append(Task("traffic next to compute", both, "traffic", alone))
        found.append(Task("copies of gradients", (0,), "copies", _model(need)))
    return found


def _stack(need: LayerNeed, **more: Any) -> dict[str, Any]:
    return {**_model(need), "seq_len": need.seq_len, "micro_batch": need.micro_batch, **more}


def _model(need: LayerNeed) -> dict[str, Any]:
    return {"decoder": asdict(need.decoder), "trained": need.trained}


def _transport_tasks(needs: Needs, full: bool) -> list[Task]:
    return [
        Task(
            f"{one.operation} on {one.ranks} ranks",
            tuple(range(one.ranks)),
            "transport",
            {"operation": one.operation, "sizes": one.sizes, "full": full},
        )
        for one in needs.transports
    ]
