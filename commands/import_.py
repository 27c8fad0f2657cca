"""`traincast import`: take over what another program measured."""

from __future__ import annotations

from pathlib import Path

import click

from ..sim.nccl_tests import BUS_FACTORS
from .options import json_option
from .output import echo_json, note


@click.group("import", short_help="Take over what another program measured.")
def command() -> None:
    """Take over what another program measured."""


@command.command("nccl-tests", short_help="Curves of collectives from the output of nccl-tests.")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--into", "cluster_name", required=True, help="Preset or cluster file that gets the curves.")
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--operation", type=click.Choice(list(BUS_FACTORS)),
              help="Where neither output nor file name says which collective it is.")  # fmt: skip
@click.option("--ranks", type=click.IntRange(min=2), help="Where the output does not list its ranks.")
@json_option
def nccl_tests(
    files: tuple[Path, ...],
    cluster_name: str,
    output: Path,
    operation: str | None,
    ranks: int | None,
    as_json: bool,
) -> None:
    """Write a cluster file whose collectives take as long as nccl-tests (text or -J) measured.

    A file with wrong or unchecked results, or with more than one table, is refused.

    \b
    Example:
      traincast import nccl-tests all_reduce.txt --into hgx-h100 -o mine.yaml
    """
    from ..sim.cluster_file import read_cluster, write_cluster
    from ..sim.nccl_tests import import_tables

    cluster = import_tables(read_cluster(cluster_name), files, operation=operation or "", ranks=ranks or 0)
    write_cluster(cluster, output)
    note(f"wrote {output}")
    curves = [
        {
            "operation": curve.operation,
            "ranks": curve.ranks,
            "sizes": len(curve.times_s),
            "source": curve.source,
        }
        for curve in cluster.transports
    ]
    if as_json:
        echo_json({"schema": "traincast.import/1", "file": str(output), "transports": curves})
        return
    for curve in curves:
        click.echo(f"{curve['operation']} on {curve['ranks']} ranks: {curve['sizes']} sizes")


@command.command("gemm-table", short_help="Efficiency curves of an accelerator from timings of products.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--into", "accelerator_name", required=True,
              help="Preset or accelerator file that gets the curves.")  # fmt: skip
@click.option("--device", required=True, help="Whose rows to take, as the column `accelerator` names it.")
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path))
@json_option
def gemm_table(file: Path, accelerator_name: str, device: str, output: Path, as_json: bool) -> None:
    """Write an accelerator file whose matrix products take as long as FILE says.

    FILE is CSV (or .csv.gz) with the columns accelerator, dtype, m, n, k and time_us.

    \b
    Example:
      traincast import gemm-table gemms.csv --device "NVIDIA L4" --into l4 -o mine.yaml
    """
    from ..sim.cluster_file import read_accelerator, write_accelerator
    from ..sim.gemm_table import import_gemm_table, read_gemm_table

    timings = read_gemm_table(file)
    source = f"timings of {device} in {file.name}"
    accelerator = import_gemm_table(read_accelerator(accelerator_name), timings, device=device, source=source)
    write_accelerator(accelerator, output)
    note(f"wrote {output}")
    fitted = {timing.precision for timing in timings if timing.device == device}
    curves = {
        name: accelerator.gemm_efficiency[name]
        for name in sorted(fitted & accelerator.gemm_efficiency.keys())
    }
    if as_json:
        echo_json({"schema": "traincast.import/1", "file": str(output), "gemm_efficiency": curves})
        return
    for precision, curve in curves.items():
        best = max(efficiency for _, efficiency in curve)
        click.echo(f"{precision}: {len(curve)} sizes, at best {best:.3f} of peak")
