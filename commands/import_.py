"""`traincast import`: take over what another program measured."""

from __future__ import annotations

from pathlib import Path

import click

from .. import MEASURED_OPERATIONS
from .options import OutputFile, json_option
from .output import echo_json, note


@click.group("import", short_help="Take over what another program measured.")
def command() -> None:
    """Take over what another program measured."""


@command.command("nccl-tests", short_help="Curves of collectives from the output of nccl-tests.")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--into", "cluster_name", required=True, help="Preset or cluster file that gets the curves.")
@click.option("-o", "--output", required=True, type=OutputFile())
@click.option("--operation", type=click.Choice(MEASURED_OPERATIONS),
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
    from .. import import_nccl_tests, write_cluster

    cluster = import_nccl_tests(files, cluster_name, operation=operation or "", ranks=ranks or 0)
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


@command.command("gemm-table", short_help="Efficiency curves of an accelerator from timings of GEMMs.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--into", "accelerator_name", required=True,
              help="Preset or accelerator file that gets the curves.")  # fmt: skip
@click.option("--device", required=True, help="Whose rows to take, as the column `accelerator` names it.")
@click.option("-o", "--output", required=True, type=OutputFile())
@json_option
def gemm_table(file: Path, accelerator_name: str, device: str, output: Path, as_json: bool) -> None:
    """Write an accelerator file whose GEMMs take as long as FILE says.

    FILE is CSV (or .csv.gz) with the columns accelerator, dtype, m, n, k and time_us.

    \b
    Example:
      traincast import gemm-table gemms.csv --device "NVIDIA L4" --into l4 -o mine.yaml
    """
    from .. import accelerator, import_gemm_table, write_accelerator

    before = accelerator(accelerator_name)
    found = import_gemm_table(file, before, device=device)
    write_accelerator(found, output)
    note(f"wrote {output}")
    curves = {
        name: curve
        for name, curve in sorted(found.gemm_efficiency.items())
        if curve is not before.gemm_efficiency.get(name)
    }
    if as_json:
        echo_json({"schema": "traincast.import/1", "file": str(output), "gemm_efficiency": curves})
        return
    for precision, curve in curves.items():
        best = max(efficiency for _, efficiency in curve)
        click.echo(f"{precision}: {len(curve)} sizes, at best {best:.3f} of peak")


@command.command("module", short_help="A model file from any torch nn.Module.")
@click.argument("factory", metavar="PACKAGE.MODULE:FACTORY")
@click.option("--input", "shapes", metavar="SIZExSIZE...", multiple=True, required=True,
              help="Shape of one sample of each input: 3x224x224; 128:int is 128 whole numbers.")  # fmt: skip
@click.option("--name", help="Of the model; else the factory's.")
@click.option("-o", "--output", required=True, type=OutputFile())
@json_option
def module(
    factory: str,
    shapes: tuple[str, ...],
    name: str | None,
    output: Path,
    as_json: bool,
) -> None:
    """Trace what FACTORY returns, without computing anything, and write it as a model file.

    FACTORY is called without arguments and returns an nn.Module; its code is run. Modules are looked for in
    the current directory too. plan, simulate and memory take the file as a MODEL.

    \b
    Example:
      traincast import module torchvision.models:resnet50 --input 3x224x224 -o resnet50.json
    """
    import sys

    from .. import trace_module, write_model

    sys.path.insert(0, str(Path.cwd()))
    model = trace_module(factory, shapes, name=name)
    write_model(model, output)
    note(f"wrote {output}")
    network = model.network
    assert network is not None
    told = {
        "name": model.name,
        "layers": len(network.parts),
        "parameters": model.parameters,
        "forward_flops": network.flops(),
        "kept_values": sum(part.kept for part in network.parts),
    }
    if as_json:
        echo_json({"schema": "traincast.import/1", "file": str(output), "model": told})
        return
    click.echo(
        f"{model.name}: {told['layers']} layers, {model.parameters:,} parameters, "
        f"{network.flops() / 1e9:,.2f} GFLOP forward for a sample"
    )
