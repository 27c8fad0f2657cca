"""`traincast collective`: time and bandwidth of a collective by size and ranks, as nccl-tests prints it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..sim.errors import UsageError
from ..sim.hardware.cluster import Cluster
from ..sim.network.algorithms import COLLECTIVE_ALGORITHMS, OPERATIONS
from ..sim.units import UnitError, parse_quantity
from .options import cluster_from, cluster_options, json_option
from .output import echo_json

if TYPE_CHECKING:
    from ..sim.network.transport import Choice

DETAILS = ("formula", "flow")

SMALLEST, LARGEST = 8.0, 8 * 2.0**30
"""Bytes of a sweep whose ends are left open: what nccl-tests runs on large machines."""


class Sizes(click.ParamType):
    """One size, or a range whose sizes double: `1MiB..1GiB`."""

    name = "size"

    def convert(self, value, param, ctx) -> list[float]:
        if isinstance(value, list):
            return value
        first, dots, last = value.partition("..")
        try:
            low = parse_quantity(first, "bytes") if first else SMALLEST
            high = parse_quantity(last, "bytes") if last else LARGEST if dots else low
        except UnitError as error:
            self.fail(f"{error}", param, ctx)
        if not 0 < low <= high <= 2.0**60:
            self.fail(f"{value}: expected sizes above 0 in rising order", param, ctx)
        return doubling(low, high)


class Ranks(click.ParamType):
    """One number of ranks, or a range whose numbers double: `8..4096`."""

    name = "ranks"

    def convert(self, value, param, ctx) -> list[int]:
        if isinstance(value, list):
            return value
        first, dots, last = value.partition("..")
        if not first.isdecimal() or (dots and not last.isdecimal()) or len(value) > 20:
            self.fail(f"{value!r}: expected a number of ranks, or a range as 8..4096", param, ctx)
        low, high = int(first), int(last or first)
        if not 2 <= low <= high:
            self.fail(f"{value}: expected 2 or more, in rising order", param, ctx)
        return [int(number) for number in doubling(low, high)]


def doubling(low: float, high: float) -> list[float]:
    """``low``, twice ``low``, and so on up to ``high``."""
    found = [low]
    while found[-1] * 2 <= high:
        found.append(found[-1] * 2)
    return found


@click.command("collective", short_help="Seconds and bandwidth of a collective, by size and ranks.")
@click.argument("operation", type=click.Choice([*OPERATIONS, "send_recv"]))
@cluster_options
@click.option("--ranks", type=Ranks(), help="Ranks, or a range that doubles.  [default: all of the cluster]")
@click.option("--size", "sizes", type=Sizes(), default="1GiB", show_default=True,
              help="Bytes of the whole buffer, or a range that doubles.")  # fmt: skip
@click.option("--algorithm", type=click.Choice(COLLECTIVE_ALGORITHMS), default="auto", show_default=True)
@click.option("--detail", type=click.Choice(DETAILS), default=DETAILS[0], show_default=True,
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
    cluster = cluster_from(cluster_name, nodes)
    counts = ranks or [cluster.accelerators]
    if operation == "send_recv":
        counts = [2]
    if max(counts) > cluster.accelerators:
        raise UsageError(
            f"--ranks {max(counts)}: {cluster.name} has {cluster.accelerators} accelerators; raise --nodes"
        )
    rows = measure(cluster, operation, counts, sizes, algorithm, detail)
    if as_json:
        echo_json({"schema": "traincast.collective/1", "cluster": cluster.name, "rows": rows})
        return
    show_rows(rows, f"{operation} on {cluster.name}")


def measure(
    cluster: Cluster,
    operation: str,
    counts: list[int],
    sizes: list[float],
    algorithm: str,
    detail: str = DETAILS[0],
) -> list[dict]:
    """A row for every number of ranks and size; bandwidths in bytes/s."""
    from ..sim.calibration.import_nccl_tests import bus_bandwidth
    from ..sim.network.transport import choose

    rows = []
    for ranks in counts:
        for size in sizes:
            if detail == "flow":
                choice = _by_flows(cluster, operation, ranks, size, algorithm)
            else:
                choice = choose(cluster, operation, range(ranks), size, algorithm=algorithm)
            seconds = choice.seconds
            rows.append(
                {
                    "operation": operation,
                    "ranks": ranks,
                    "size_bytes": size,
                    "time_s": seconds,
                    "algbw": size / seconds if seconds else None,
                    "busbw": bus_bandwidth(operation, ranks, size, seconds) if seconds else None,
                    "algorithm": choice.algorithm,
                    "protocol": choice.protocol,
                }
            )
    return rows


def _by_flows(cluster: Cluster, operation: str, ranks: int, size: float, algorithm: str) -> Choice:
    from ..sim.network.flows.collective import transport_by_flows
    from ..sim.network.transport import Choice

    (seconds,), name = transport_by_flows(cluster, operation, [range(ranks)], size, algorithm=algorithm)
    return Choice(algorithm=name, protocol="", seconds=float(seconds))


def show_rows(rows: list[dict], title: str) -> None:
    """The table of nccl-tests: bytes, microseconds and GB/s."""
    from ..reports.formats import DASH
    from ..reports.table import Table, show

    cells = tuple(
        (
            str(row["ranks"]),
            f"{row['size_bytes']:.0f}",
            f"{row['time_s'] * 1e6:.2f}",
            *(f"{row[key] / 1e9:.2f}" if row[key] else DASH for key in ("algbw", "busbw")),
            row["algorithm"],
            row["protocol"] or DASH,
        )
        for row in rows
    )
    columns = ("ranks", "size (B)", "time (us)", "algbw (GB/s)", "busbw (GB/s)", "algorithm", "protocol")
    show(Table(title=title, columns=columns, rows=cells, text_columns=(5, 6)))
