"""`traincast collective`: time and bandwidth of a collective by size and ranks, as nccl-tests prints it."""

from __future__ import annotations

import click

from .. import CHOICES, rank_range, size_range
from .options import Read, cluster_options, json_option
from .output import echo_json


@click.command("collective", short_help="Seconds and bandwidth of a collective, by size and ranks.")
@click.argument("operation", type=click.Choice(CHOICES["operation"]))
@cluster_options
@click.option(
    "--ranks",
    type=Read("ranks", rank_range),
    help="Ranks, or a range that doubles.  [default: all of the cluster]",
)
@click.option("--size", "sizes", type=Read("size", size_range), default="1GiB", show_default=True,
              help="Bytes of the whole buffer, or a range that doubles.")  # fmt: skip
@click.option(
    "--algorithm", type=click.Choice(CHOICES["collective_algorithm"]), default="auto", show_default=True
)
@click.option("--detail", type=click.Choice(CHOICES["detail"]), default="formula", show_default=True,
              help="Formulae and measured curves, or every message as a flow.")  # fmt: skip
@json_option
def command(
    operation: str,
    cluster_name: str,
    nodes: int | None,
    ranks: list[int] | None,
    sizes: list[float],
    algorithm: str,
    detail: str,
    as_json: bool,
) -> None:
    """Print time, algbw and busbw of a collective on a cluster; ranks fill node after node.

    \b
    Example:
      traincast collective all_reduce --cluster hgx-h100 --nodes 512 --ranks 8..4096 --size 1GiB
    """
    from .. import cluster, collective

    found = collective(
        operation,
        cluster(cluster_name, nodes=nodes),
        ranks=ranks,
        sizes=sizes,
        algorithm=algorithm,
        detail=detail,
    )
    if as_json:
        echo_json(found.to_dict())
        return
    from ..reports.collective_table import collective_table
    from ..reports.table import show

    show(collective_table(found))
