"""`traincast schedule`: what an order of passes costs, and how it looks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..sim.errors import InputError, UsageError
from ..sim.plan.pass_times import PassTimes
from ..sim.plan.schedules import find_schedule, generated_names, schedule, schedule_faults, schedules
from .options import NameNow, OutputFile, json_option, png_option
from .output import echo_json, note

if TYPE_CHECKING:
    from ..sim.engine.pipeline.pipeline import Timeline
    from ..sim.plan.action import Actions
    from ..sim.trace.trace import Trace

ALL = "all"
DRAWN_COLUMNS = 150
"""A drawing in text is given up where it would be wider."""
DRAWN_RANKS = 16


class _Seconds(click.ParamType):
    """A time with its unit, as 18.5ms, in seconds."""

    name = "TIME"

    def convert(self, value, param, ctx):
        from ..sim.units import UnitError, parse_quantity

        if isinstance(value, float):
            return value
        try:
            seconds = parse_quantity(value, "time")
        except UnitError as error:
            self.fail(str(error), param, ctx)
        if seconds < 0:
            self.fail(f"{value}: less than nothing", param, ctx)
        return seconds


def _time(name: str, default: str, text: str):
    return click.option(name, type=_Seconds(), default=default, show_default=True, help=text)


@click.command("schedule", short_help="Step time, bubble and memory of pipeline schedules.")
@click.argument("name", type=NameNow(lambda: (*generated_names(), ALL)))
@click.option("--ranks", type=click.IntRange(1, 4096), required=True, help="Pipeline ranks.")
@click.option("--micro-batches", type=click.IntRange(1, 65536), required=True, help="Of one step.")
@click.option(
    "--virtual-stages",
    type=click.IntRange(1, 1024),
    help="Stages of each rank.  [default: what the schedule needs]",
)
@_time("--forward", "1ms", "Of one micro-batch through all stages of a rank.")
@_time("--input-gradient", "1ms", "First half of its backward.")
@_time("--weight-gradient", "1ms", "Second half of its backward.")
@_time("--transfer", "0s", "From one rank to the next.")
@click.option(
    "--kept-share",
    type=click.FloatRange(0, 1),
    default=1.0,
    show_default=True,
    help="Of activations, what stays between the halves of a backward"
    f" ({', '.join(one.name for one in schedules() if one.arranged_by_times)}).",
)
@click.option("--csv", "csv_file", type=OutputFile(), help="Write the order in PyTorch's format.")
@png_option("Draw it.", "png_file")
@json_option
def command(
    name: str,
    ranks: int,
    micro_batches: int,
    virtual_stages: int | None,
    csv_file: Path | None,
    png_file: Path | None,
    as_json: bool,
    **seconds: float,
) -> None:
    """The pipeline schedule NAME, or all side by side, on ranks that are alike.

    \b
    Example:
      traincast schedule zb-h1 --ranks 4 --micro-batches 8 --forward 18.5ms --csv zb-h1.csv
    """
    if ranks * micro_batches * (virtual_stages or 1) > 2**20:
        raise UsageError(f"{ranks} ranks × {micro_batches} micro-batches: more than a million passes")
    if name == ALL and (csv_file or png_file):
        raise UsageError("--csv and --png need one schedule, not all")
    timelines = _timelines(name, ranks, virtual_stages, micro_batches, seconds)
    if csv_file:
        from ..sim.plan.schedule_csv import write_schedule_csv

        write_schedule_csv(timelines[name].orders, csv_file)
        note(f"wrote {csv_file}")
    if png_file:
        _draw(name, timelines[name], png_file)
        note(f"wrote {png_file}")
    if as_json:
        rows = [_row(each, timeline) for each, timeline in timelines.items()]
        sizes = {"ranks": ranks, "micro_batches": micro_batches}
        echo_json({"schema": "traincast.schedule/1", **sizes, "schedules": rows})
    else:
        _show(timelines)


def _timelines(
    name: str, ranks: int, virtual: int | None, micro_batches: int, seconds: dict[str, float]
) -> dict[str, Timeline]:
    """By name: the schedule, or all that exist at these sizes."""
    found = {}
    for each in generated_names() if name == ALL else (name,):
        stages = virtual or _usual_stages(each)
        if name == ALL and schedule_faults(each, ranks, stages, micro_batches):
            stages = _usual_stages(each)
            faults = schedule_faults(each, ranks, stages, micro_batches)
            if faults:
                note(f"left out {each}: {faults[0]}")
                continue
        found[each] = _timeline(each, ranks, stages, micro_batches, seconds)
    if sum(seconds[key] for key in ("forward", "input_gradient", "weight_gradient")) <= 0:
        raise InputError("passes of no time; expected one of --forward, --input-gradient, --weight-gradient")
    return found


def _usual_stages(name: str) -> int:
    """Stages of a rank where nobody says: two for schedules that take any number."""
    return find_schedule(name).virtual_stages or 2


def _timeline(name: str, ranks: int, stages: int, micro_batches: int, seconds: dict[str, float]) -> Timeline:
    from ..sim.engine.pipeline.pipeline import pipeline_timeline

    times = PassTimes.alike(
        ranks * stages,
        forward_s=seconds["forward"] / stages,
        input_gradient_s=seconds["input_gradient"] / stages,
        weight_gradient_s=seconds["weight_gradient"] / stages,
        transfer_s=seconds["transfer"],
        kept_share=seconds["kept_share"],
    )
    return pipeline_timeline(schedule(name, ranks, stages, micro_batches, times), times)


def _in_flight(timeline: Timeline) -> list[float]:
    """By rank: the most micro-batches in flight; a stage of a rank with several counts as its share."""
    from ..sim.engine.pipeline.pipeline import in_flight

    return [in_flight(own) / _stages(own) for own in timeline.orders]


def _stages(own: Actions) -> int:
    return len({part.stage for action in own for part in action.passes})


def _row(name: str, timeline: Timeline) -> dict[str, object]:
    return {
        "name": name,
        "virtual_stages": _stages(timeline.orders[0]),
        "step_time_s": timeline.step_time_s,
        "makespan_s": timeline.makespan_s,
        "bubble_rate": timeline.bubble_rate,
        "in_flight": _in_flight(timeline),
    }


def _show(timelines: dict[str, Timeline]) -> None:
    from ..reports.formats import seconds
    from ..reports.table import Table, show

    rows = []
    for name, timeline in timelines.items():
        kept = _in_flight(timeline)
        step = (seconds(timeline.step_time_s), f"{timeline.bubble_rate:.1%}")
        rows.append((name, str(_stages(timeline.orders[0])), *step, f"{max(kept):g}", _by_rank(kept)))
    columns = ("schedule", "stages a rank", "step", "bubble", "in flight", "by rank")
    show(Table(title="", columns=columns, rows=tuple(rows), text_columns=(0, 5)))
    if len(timelines) == 1:
        from ..reports.passes import drawing

        lines = drawing(_trace(next(iter(timelines.values()))), DRAWN_COLUMNS, DRAWN_RANKS)
        if lines:
            click.echo("\n".join(["", *lines]))


def _by_rank(kept: list[float]) -> str:
    """All of few ranks; of many the first and the last."""
    if len(set(kept)) == 1:
        return "alike"
    shown = [f"{each:g}" for each in kept]
    return " ".join(shown if len(shown) <= DRAWN_RANKS else [*shown[:4], "…", *shown[-2:]])


def _draw(name: str, timeline: Timeline, path: Path) -> None:
    from ..reports.figures import timeline_png

    timeline_png(_trace(timeline), None, path, title=f"{name}: bubble {timeline.bubble_rate:.1%}")


def _trace(timeline: Timeline) -> Trace:
    """The passes as a trace, which reports can draw."""
    from ..sim.trace.trace import Span, Trace

    spans = [
        Span(rank, "compute", str(part), part.stage, part.micro_batch, start, end)
        for rank in range(len(timeline.orders))
        for part, start, end in timeline.passes(rank)
    ]
    steps = (timeline.step_time_s,)
    return Trace.of(spans, source="predicted", world_size=len(timeline.orders), step_times_s=steps)
