"""SimGrid as the judge of flows: the same links, routes and starts, in its own words.

Wants Debian's `libsimgrid-dev` and a C++ compiler; without them `program` is None.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np

from traincast.sim.network.flows.flows import Flows, Network

SOURCE = Path(__file__).parent / "data" / "simgrid_flows.cpp"
LIBRARY_HEADER = Path("/usr/include/simgrid/s4u.hpp")

OPTIONS = (
    "--cfg=network/model:CM02",
    "--cfg=network/crosstraffic:0",
    "--cfg=network/TCP-gamma:1e30",
    "--cfg=network/latency-factor:1",
    "--cfg=network/bandwidth-factor:1",
    "--cfg=surf/precision:1e-15",
    "--cfg=maxmin/precision:1e-8",
    "--log=root.thres:error",
)
"""Plain max-min fairness, as fine as it can be told: finer rates (bytes/s) make SimGrid 3.32 give up."""

FULL, LAZY = "Full", "Lazy"
"""How SimGrid keeps rates up: all anew at each event, or what changed. Lazy is its default and faster, but
in 3.32 leaves flows at wrong rates (finish times off by up to a third) once links have latencies."""


def program(folder: Path) -> Path | None:
    """The compiled program in ``folder``; None without SimGrid or a compiler."""
    compiler = shutil.which("g++")
    if compiler is None or not LIBRARY_HEADER.exists():
        return None
    built = folder / "simgrid_flows"
    if not built.exists():
        command = [compiler, "-std=c++17", "-O2", str(SOURCE), "-lsimgrid", "-o", str(built)]
        subprocess.run(command, check=True, capture_output=True)
    return built


def finish_times(
    built: Path,
    hosts: int,
    ends: tuple[np.ndarray, np.ndarray],
    flows: Flows,
    network: Network,
    *,
    update: str = FULL,
) -> tuple[np.ndarray, float]:
    """(when each flow ends by SimGrid, processor seconds that took); sizes must be whole bytes.

    Without latencies SimGrid shares evenly; with them it weighs a flow by one over its route's latency.
    """
    order = np.argsort(flows.starts, kind="stable")
    lines = [f"{hosts} {len(network.bandwidth)} {len(flows)}"]
    lines += [
        f"{b!r} {s!r}" for b, s in zip(network.bandwidth.tolist(), network.latency.tolist(), strict=True)
    ]
    for i in order.tolist():
        route = flows.links[flows.offsets[i] : flows.offsets[i + 1]].tolist()
        numbers = (ends[0][i], ends[1][i], int(flows.sizes[i]), float(flows.starts[i]), len(route), *route)
        lines.append(" ".join(str(number) for number in numbers))
    done = subprocess.run(
        [built, *OPTIONS, f"--cfg=network/optim:{update}"],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, *times = map(float, done.stdout.split())
    finish = np.empty(len(flows))
    finish[order] = times
    return finish, seconds
