"""`traincast memory`: memory of every pipeline rank by what fills it, and how to make it fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..sim.plan.plan import Plan
from .options import (
    cluster_from,
    cluster_options,
    job_options_optional,
    json_option,
    png_option,
    strategy_options,
)
from .output import echo_json, note
from .simulate import plan_from

if TYPE_CHECKING:
    from ..sim.hardware.cluster import Cluster
    from ..sim.memory.peak import RankMemory
    from ..sim.search.fit_hints import Hint


@click.command("memory", short_help="Memory of every pipeline rank, by what fills it.")
@click.argument("what", metavar="MODEL|PLAN")
@cluster_options
@job_options_optional
@strategy_options
@click.option("--hints/--no-hints", default=True, show_default=True, help="Say what would make it fit.")
@png_option("Draw memory by rank, and of the fullest rank over time.")
@json_option
def command(
    what: str,
    cluster_name: str,
    nodes: int | None,
    hints: bool,
    png: Path | None,
    as_json: bool,
    **options,
) -> None:
    """Peak memory of MODEL under the strategy of the options, or of a PLAN file.

    Where it does not fit, changes of the strategy are tried, and those that make it fit are listed, the
    fastest first.

    \b
    Example:
      traincast memory llama3-8b --cluster hgx-h100 --tp 8 --global-batch 64 --seq-len 8192
    """
    from ..sim.memory.assumptions import assumptions
    from ..sim.memory.peak import memory
    from ..sim.search.fit_hints import hints as find_hints
    from ..sim.search.fit_hints import largest_micro_batch

    cluster = cluster_from(cluster_name, nodes)
    plan = plan_from(what, cluster, options)
    places, names = memory(plan, cluster), place_names(plan)
    fits = all(place.fits for place in places)
    found = find_hints(plan, cluster) if hints and not fits else ()
    largest = largest_micro_batch(plan, cluster)[0] if fits else None
    assumed = assumptions(plan.job, plan.strategy)
    if png:
        _draw(plan, cluster, places, names, png)
    if as_json:
        parts = {"places": _rows(names, places), "peak": _peak(plan, places), "fits": fits}
        growth = {"largest_micro_batch": largest, "hints": [_hint_row(hint) for hint in found]}
        echo_json({"schema": "traincast.memory/1", **parts, **growth, "assumes": assumed})
        return
    _show(plan, cluster, places, names)
    if fits:
        click.echo(f"\n{_room(plan, places, largest or 0)}")
    elif hints:
        _show_hints(found)
    click.echo("\n".join(["", *(f"assumes: {text}" for text in assumed)]))


def _show(plan: Plan, cluster: Cluster, places: Sequence[RankMemory], names: Sequence[str]) -> None:
    from ..reports.table import show
    from .tables_memory import memory_bars, memory_table

    show(memory_table(places, cluster.accelerator.memory_bytes, names))
    click.echo("\n" + "\n".join(memory_bars(places, names)))
    click.echo(f"\n{_peak_text(plan, places)}")


def _show_hints(found: Sequence[Hint]) -> None:
    from ..reports.table import show
    from .tables_memory import hint_table

    click.echo()
    if found:
        show(hint_table(found))
    else:
        click.echo(
            "no change of up to three fields makes it fit: use more nodes, or search with `traincast plan`"
        )


def _rows(names: Sequence[str], places: Sequence[RankMemory]) -> list[dict[str, Any]]:
    return [
        {
            "ranks": name,
            **asdict(place),
            "allocated_bytes": place.allocated_bytes,
            "allocator_bytes": place.allocator_bytes,
            "total_bytes": place.total_bytes,
            "fits": place.fits,
        }
        for name, place in zip(names, places, strict=True)
    ]


def _hint_row(hint: Hint) -> dict[str, Any]:
    numbers = {
        name: getattr(hint, name) for name in ("peak_bytes", "saved_bytes", "step_time_s", "slower", "text")
    }
    return {"changes": hint.changes, "accelerators": hint.strategy.world_size, **numbers}


def _fullest_worker(plan: Plan, places: Sequence[RankMemory]) -> int:
    """Pipeline rank with most in memory."""
    return max(range(plan.strategy.pp), key=lambda rank: places[rank].total_bytes)


def _peak(plan: Plan, places: Sequence[RankMemory]) -> dict[str, Any]:
    """When most stands on the fullest pipeline rank."""
    from ..sim.memory.peak import rank_peak

    rank = _fullest_worker(plan, places)
    return {"pipeline_rank": rank, **asdict(rank_peak(plan, rank))}


def _peak_text(plan: Plan, places: Sequence[RankMemory]) -> str:
    from ..reports.formats import size

    rank = _fullest_worker(plan, places)
    peak = _peak(plan, places)
    where = f"{peak['at']} of stage {peak['stage']} (pass {peak['number'] + 1} of its step)"
    return (
        f"peak: {size(places[rank].total_bytes)} on pipeline rank {rank}, in the"
        f" {peak['at'] if peak['at'] == 'optimizer step' else where}; {places[rank].in_flight}"
        f" micro-batch{'es' if places[rank].in_flight != 1 else ''} in flight at most"
    )


def _room(plan: Plan, places: Sequence[RankMemory], largest: int) -> str:
    from ..reports.formats import size

    free = min(place.capacity_bytes - place.total_bytes for place in places)
    own, share = plan.strategy.micro_batch, plan.job.global_batch // plan.strategy.dp
    if own == share:
        more = "its micro-batch is all that a replica has"
    else:
        more = f"a micro-batch of {largest} still fits" if largest > own else "no larger micro-batch fits"
    return f"fits: {size(free)} free on the fullest rank; {more}"


def _draw(
    plan: Plan, cluster: Cluster, places: Sequence[RankMemory], names: Sequence[str], path: Path
) -> None:
    from ..reports.memory_figure import OverTime, memory_figure_png
    from ..sim.memory.peak import rank_memory, rank_walk
    from ..sim.predict.pass_spans import pass_spans

    rank = _fullest_worker(plan, places)
    walk = rank_walk(plan, rank)
    moments = [rank_memory(plan, cluster, rank, walk.moment(i)) for i in range(len(walk.stages))]
    over_time = OverTime(
        name=names[rank],
        spans=pass_spans(plan, cluster, rank),
        rows=[_with_total(place) for place in moments],
    )
    rows = [_with_total(place) for place in places]
    memory_figure_png(names, rows, cluster.accelerator.memory_bytes, over_time, path, plan.strategy.label)
    note(f"wrote {path}")


def _with_total(place: RankMemory) -> dict[str, Any]:
    return {**asdict(place), "total_bytes": place.total_bytes}


def place_names(plan: Plan) -> list[str]:
    """Names of the pipeline stages with their ranks, then of the servers."""
    names = []
    for stage, grid in enumerate(plan.grid):
        first, last = int(grid.min()), int(grid.max())
        names.append(f"stage {stage} (rank {first}{f' to {last}' if last > first else ''})")
    return names + [f"server {i} (rank {rank})" for i, rank in enumerate(plan.server_ranks)]
