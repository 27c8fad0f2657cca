"""`traincast calibrate`: measure this machine and write it as a cluster file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from .options import OutputFile, json_option
from .output import echo_json, note, progress


@click.command("calibrate", short_help="Measure this machine and write it as a cluster file.")
@click.option(
    "-o",
    "--output",
    type=OutputFile(),
    default=Path("this-machine.yaml"),
    show_default=True,
)
@click.option(
    "--model", "models", multiple=True, help="Preset or config.json whose layers to profile; may be repeated."
)
@click.option(
    "--seq-len",
    type=click.IntRange(min=1),
    default=128,
    show_default=True,
    help="Tokens of a sample in the profiles.",
)
@click.option(
    "--micro-batch",
    "micro_batches",
    type=click.IntRange(min=1),
    multiple=True,
    default=(1, 4),
    show_default=True,
)
@click.option(
    "--plan",
    "plans",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A plan file that will be run here; measure what such plans need and nothing else. May be repeated.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Repetitions, of which medians are taken.",
)
@click.option(
    "--from-run",
    "results",
    type=click.Path(path_type=Path),
    help="Instead of measuring: results of a demo, whose runs correct the cluster of their predictions.",
)
@json_option
def command(
    output: Path,
    models: tuple[str, ...],
    seq_len: int,
    micro_batches: tuple[int, ...],
    plans: tuple[Path, ...],
    rounds: int,
    results: Path | None,
    as_json: bool,
) -> None:
    """Measure compute, memory, optimizer and transport of this machine, and fit a cluster file to it.

    \b
    Example:
      traincast calibrate --model tiny-llama-bytes --seq-len 128 -o this-machine.yaml
    """
    from .. import calibrate, calibrate_from_runs, write_cluster

    if results is not None:
        corrected, found = calibrate_from_runs(results)
        write_cluster(corrected, output)
        note(f"wrote {output}")
        if as_json:
            echo_json({"schema": "traincast.correction/1", "file": str(output), **asdict(found)})
        else:
            from ..reports.correction_table import print_correction

            print_correction(found)
        return
    cluster = calibrate(
        *models, seq_len=seq_len, micro_batches=micro_batches, plans=plans, rounds=rounds, progress=progress
    )
    write_cluster(cluster, output)
    note(f"wrote {output}")
    if as_json:
        echo_json(
            {"schema": "traincast.calibration/1", "file": str(output), "residuals": dict(cluster.residuals)}
        )
        return
    for name, residual in cluster.residuals.items():
        click.echo(f"{name:<24} {residual:.1%} median error of the fit")
