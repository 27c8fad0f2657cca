"""`traincast memory`: memory of every pipeline rank by what fills it, and how to make it fit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import (
    cluster_options,
    given,
    job_options_optional,
    json_option,
    model_of,
    png_option,
    strategy_options,
)
from .output import echo_json, note

if TYPE_CHECKING:
    from ..reports.memory_table import Memory


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
    from .. import cluster, memory

    found = memory(model_of(what, **options), cluster(cluster_name, nodes=nodes), **given(**options))
    if png:
        from ..reports.memory_figure import memory_png

        memory_png(found, png)
        note(f"wrote {png}")
    if as_json:
        echo_json(found.to_dict(with_hints=hints))
        return
    show_memory(found, hints)


def show_memory(found: Memory, hints: bool) -> None:
    """Print the table, bars, the peak, what is free or what would make it fit, and what all rests on."""
    from ..reports.memory_table import hint_table, memory_bars, memory_table, peak_text, room_text
    from ..reports.table import show

    show(memory_table(found, found.cluster.accelerator.memory_bytes, found.names))
    click.echo("\n" + "\n".join(memory_bars(found, found.names)))
    click.echo(f"\n{peak_text(found)}")
    if found.fits:
        click.echo(f"\n{room_text(found)}")
    elif hints and found.hints:
        click.echo()
        show(hint_table(found.hints))
    elif hints:
        click.echo(
            "\nno change of up to three fields makes it fit: use more nodes, or search with `traincast plan`"
        )
    click.echo("\n".join(["", *(f"assumes: {text}" for text in found.assumes)]))
