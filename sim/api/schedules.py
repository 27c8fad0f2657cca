"""Pipeline schedules laid side by side on ranks that are alike: step time, bubble, what is in flight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..display import Shown, draw
from ..engine.pipeline.pipeline import Timeline, in_flight, pipeline_timeline
from ..errors import InputError, UsageError
from ..plan.action import Actions
from ..plan.pass_times import PassTimes
from ..plan.schedules import find_schedule, generated_names, schedule, schedule_faults
from ..plan.schedules import schedules as descriptors
from ..trace.trace import Span, Trace
from ..units import parse_quantity
from .inputs import check_counts, check_numbers

if TYPE_CHECKING:
    from pandas import DataFrame

ALL = "all"
MOST_PASSES = 2**20


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Schedules(Shown, Mapping[str, Timeline]):
    """When every pass happens, by the schedule's name."""

    ranks: int
    micro_batches: int
    timelines: Mapping[str, Timeline]
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Schedules that do not exist at these sizes, and why."""

    def __getitem__(self, name: str) -> Timeline:
        return self.timelines[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.timelines)

    def __len__(self) -> int:
        return len(self.timelines)

    def __repr__(self) -> str:
        sizes = f"{self.ranks} ranks, {self.micro_batches} micro-batches"
        return f"Schedules({', '.join(self.timelines)}: {sizes})"

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Name, stages of a rank, step time, makespan, bubble rate, micro-batches in flight by rank."""
        return [_row(name, timeline) for name, timeline in self.timelines.items()]

    def trace(self, name: str) -> Trace:
        """The passes of one schedule as a trace."""
        timeline = self.timelines[name]
        spans = [
            Span(rank, "compute", str(part), part.stage, part.micro_batch, start, end)
            for rank in range(len(timeline.orders))
            for part, start, end in timeline.passes(rank)
        ]
        steps = (timeline.step_time_s,)
        return Trace.of(spans, source="predicted", world_size=len(timeline.orders), step_times_s=steps)

    def picture(self, name: str) -> Any:
        """One schedule drawn: every rank a line; can be saved, and shows itself in a notebook."""
        title = f"{name}: bubble {self.timelines[name].bubble_rate:.1%}"
        return draw("timeline", self.trace(name), title=title)

    def frame(self) -> DataFrame:
        """The rows as a table."""
        from pandas import DataFrame

        return DataFrame(self.rows).set_index("name")

    def to_dict(self) -> dict[str, Any]:
        """What `schedule --json` prints."""
        sizes = {"ranks": self.ranks, "micro_batches": self.micro_batches}
        return {"schema": "traincast.schedule/1", **sizes, "schedules": self.rows}


def schedule_names(kind: str = "all") -> tuple[str, ...]:
    """Names of pipeline schedules that a strategy may have.

    Of a ``kind``: `all`, `flushed` between steps, which `schedules` lays side by side, or `arranged` by the
    seconds of their passes.

    >>> import traincast as tc
    >>> tc.schedule_names("arranged")
    ('zb-1p', 'zb-2p')

    Raises:
        UsageError: there is no such kind.
    """
    if kind not in ("all", "flushed", "arranged"):
        raise UsageError(f"{kind!r} is no kind of schedule; expected all | flushed | arranged")
    if kind == "flushed":
        return generated_names()
    return tuple(
        one.name for one in descriptors() if one.generate and (kind == "all" or one.arranged_by_times)
    )


def schedules(
    name: str = ALL,
    *,
    ranks: int,
    micro_batches: int,
    virtual_stages: int | None = None,
    forward: float | str = "1ms",
    input_gradient: float | str = "1ms",
    weight_gradient: float | str = "1ms",
    transfer: float | str = "0s",
    kept_share: float = 1.0,
) -> Schedules:
    """The pipeline schedule ``name``, or all side by side, on ``ranks`` that are alike.

    Times are seconds or texts with a unit, of one micro-batch through all stages of a rank; ``transfer`` is
    from one rank to the next. ``virtual_stages`` of each rank are what the schedule needs where not given.
    ``kept_share`` of activations stays between the halves of a backward (zb-1p, zb-2p).

    >>> import traincast as tc
    >>> found = tc.schedules(ranks=4, micro_batches=8)
    >>> found["zb-h1"].step_time_s < found["1f1b"].step_time_s
    True
    >>> f"{found['1f1b'].bubble_rate:.1%}"
    '27.3%'

    Raises:
        InputError: the schedule does not exist at these sizes, or its passes take no time.
        UsageError: no such schedule, or sizes that cannot be.
    """
    if name not in (*generated_names(), ALL):
        raise UsageError(f"schedule {name!r}: expected {' | '.join([*generated_names(), ALL])}")
    check_counts(1, ranks=ranks, micro_batches=micro_batches, virtual_stages=virtual_stages)
    if ranks * micro_batches * (virtual_stages or 1) > MOST_PASSES:
        raise UsageError(f"{ranks} ranks × {micro_batches} micro-batches: more than a million passes")
    check_numbers(0.0, 1.0, kept_share=kept_share)
    times = Times(
        forward=_seconds(forward),
        input_gradient=_seconds(input_gradient),
        weight_gradient=_seconds(weight_gradient),
        transfer=_seconds(transfer),
        kept_share=kept_share,
    )
    found, left_out = {}, {}
    for each in generated_names() if name == ALL else (name,):
        stages = virtual_stages or _usual_stages(each)
        if name == ALL and schedule_faults(each, ranks, stages, micro_batches):
            stages = _usual_stages(each)
            faults = schedule_faults(each, ranks, stages, micro_batches)
            if faults:
                left_out[each] = str(faults[0])
                continue
        found[each] = _timeline(each, ranks, stages, micro_batches, times)
    if times.forward + times.input_gradient + times.weight_gradient <= 0:
        raise InputError("passes of no time; expected one of --forward, --input-gradient, --weight-gradient")
    return Schedules(ranks=ranks, micro_batches=micro_batches, timelines=found, left_out=left_out)


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Seconds of one micro-batch through all stages of a rank."""

    forward: float
    input_gradient: float
    weight_gradient: float
    transfer: float
    kept_share: float


def _seconds(value: float | str) -> float:
    seconds = parse_quantity(value, "time") if isinstance(value, str) else float(value)
    if seconds < 0:
        raise UsageError(f"{value}: less than nothing")
    return seconds


def _usual_stages(name: str) -> int:
    """Stages of a rank where nobody says: two for schedules that take any number."""
    return find_schedule(name).virtual_stages or 2


def _timeline(name: str, ranks: int, stages: int, micro_batches: int, times: Times) -> Timeline:
    passes = PassTimes.alike(
        ranks * stages,
        forward_s=times.forward / stages,
        input_gradient_s=times.input_gradient / stages,
        weight_gradient_s=times.weight_gradient / stages,
        transfer_s=times.transfer,
        kept_share=times.kept_share,
    )
    return pipeline_timeline(schedule(name, ranks, stages, micro_batches, passes), passes)


def _row(name: str, timeline: Timeline) -> dict[str, Any]:
    return {
        "name": name,
        "virtual_stages": _stages(timeline.orders[0]),
        "step_time_s": timeline.step_time_s,
        "makespan_s": timeline.makespan_s,
        "bubble_rate": timeline.bubble_rate,
        "in_flight": [in_flight(own) / _stages(own) for own in timeline.orders],
    }


def _stages(own: Actions) -> int:
    return len({part.stage for action in own for part in action.passes})
