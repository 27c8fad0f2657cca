"""Max-min fair flows to completion: seconds and memory, beside SimGrid where it is installed.

Run it from anywhere, while nothing else runs:

    python benchmarks/flows_speed.py
    python benchmarks/flows_speed.py --simgrid --permutation 100000

4,000 flows between random hosts of a 1,024-host fat-tree, of exponential and of equal size; then a
permutation of all hosts of a large one. ``--simgrid`` times SimGrid (Debian's `libsimgrid-dev`, CM02) on
the 4,000 flows too, by its own processor seconds without reading the platform, and compares all finish times.
"""

from __future__ import annotations

import argparse
import platform
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from traincast.sim.network.fabrics.fabric import Fabric
from traincast.sim.network.fabrics.fat_tree import Shape, fat_tree
from traincast.sim.network.flows.flows import Flows, Network, finish_times, flows_on

BANDWIDTH, MEAN_BYTES, SEED = 12.5e9, 1e8, 2024


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measurement."""

    what: str
    flows: int
    cpu_s: float
    """Routes and arrays included; kernels are compiled before."""
    last_s: float
    """When the last flow ends, simulated seconds."""
    simgrid_s: float | None = None
    """SimGrid's processor seconds for the same; None if it was not asked."""
    worst_difference: float | None = None
    """of any finish time from SimGrid's, relative"""


def network(hosts: int) -> Fabric:
    """A fat-tree without oversubscription: two tiers up to 1,024 hosts, three above. No latency, since
    SimGrid weighs flows by it."""
    shape = Shape(hosts=hosts, radix=32, pod=32 if hosts > 1024 else 0)
    return fat_tree(shape, bandwidth=BANDWIDTH, latency=0.0, trunk_bandwidth=BANDWIDTH, trunk_latency=0.0)


def rows(*, flows: int = 4000, permutation: int = 100_000, simgrid: bool = False) -> list[Row]:
    """All rows; call it from anywhere."""
    random = np.random.default_rng(SEED)
    net = network(1024)
    sources = random.integers(0, net.hosts, flows)
    targets = (sources + random.integers(1, net.hosts, flows)) % net.hosts
    exponential = np.ceil(random.exponential(MEAN_BYTES, flows))
    _warm_up()
    found = [
        measured(
            f"{flows:,} flows, {name} sizes, 1,024-host fat-tree", net, (sources, targets), sizes, simgrid
        )
        for name, sizes in (("exponential", exponential), ("equal", np.full(flows, MEAN_BYTES)))
    ]
    wide = network(permutation)
    ends = np.arange(permutation), random.permutation(permutation)
    for name, sizes in (
        ("equal", np.full(permutation, MEAN_BYTES)),
        ("exponential", random.exponential(MEAN_BYTES, permutation)),
    ):
        found.append(
            measured(f"permutation of {permutation:,} hosts, {name} sizes", wide, ends, sizes, False)
        )
    return found


def measured(
    what: str, net: Fabric, ends: tuple[np.ndarray, np.ndarray], sizes: np.ndarray, simgrid: bool
) -> Row:
    """The row of these flows."""
    begin = time.process_time()
    flows, links = flows_on(net, *ends, sizes)
    finish = finish_times(flows, links, compiled=True)
    cpu_s = time.process_time() - begin
    simgrid_s = worst = None
    if simgrid:
        expected, simgrid_s = by_simgrid(net, ends, flows, links)
        worst = float(np.max(np.abs(finish - expected) / expected))
    return Row(
        what=what,
        flows=len(flows),
        cpu_s=cpu_s,
        last_s=float(finish.max()),
        simgrid_s=simgrid_s,
        worst_difference=worst,
    )


def _warm_up() -> None:
    """Compile, or load what was compiled."""
    flows, links = flows_on(network(64), np.zeros(2, np.int64), np.array([1, 40]), 1.0)
    finish_times(flows, links, compiled=True)


def by_simgrid(
    net: Fabric, ends: tuple[np.ndarray, np.ndarray], flows: Flows, links: Network
) -> tuple[np.ndarray, float]:
    """(finish times, processor seconds) of SimGrid in its faster, lazy mode."""
    sys.path.append(str(Path(__file__).parent.parent / "tests"))
    import simgrid_oracle

    with tempfile.TemporaryDirectory() as folder:
        built = simgrid_oracle.program(Path(folder))
        if built is None:
            raise SystemExit("SimGrid (Debian's libsimgrid-dev) or g++ is not installed")
        return simgrid_oracle.finish_times(built, net.hosts, ends, flows, links, update=simgrid_oracle.LAZY)


def table(measurements: list[Row]) -> str:
    """The rows as Markdown."""
    lines = ["| what | CPU s | SimGrid CPU s | times faster | worst difference |", "|---|---|---|---|---|"]
    for row in measurements:
        beside = ["–"] * 3
        if row.simgrid_s is not None:
            beside = [
                f"{row.simgrid_s:.2f}",
                f"{row.simgrid_s / row.cpu_s:.0f}",
                f"{row.worst_difference:.1e}",
            ]
        lines.append(f"| {row.what} | {row.cpu_s:.3f} | {' | '.join(beside)} |")
    return "\n".join(lines)


def main() -> None:
    """Read the arguments and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--flows", type=int, default=4000)
    parser.add_argument("--permutation", type=int, default=100_000, metavar="HOSTS")
    parser.add_argument("--simgrid", action="store_true", help="time SimGrid beside it (a minute or more)")
    args = parser.parse_args()
    print(f"Python {platform.python_version()}, {platform.machine()}\n")
    print(table(rows(flows=args.flows, permutation=args.permutation, simgrid=args.simgrid)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"\npeak memory {peak / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
