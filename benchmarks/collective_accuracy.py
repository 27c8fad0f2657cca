"""How far the presets' collectives are from published nccl-tests curves, and what held-out fits would be.

Give it CSV tables (gzip as they are) with the columns `system, nodes, ranks, collective, size_bytes, time_us`
and, where they apply, `busbw_GBps`, `gpus_per_node`, `dtype`, `env_setup`, `library_dir`:

    python benchmarks/collective_accuracy.py aiconfigurator_collectives.csv.gz collectives_bandwidth.csv.gz

Inside nodes the presets hold these curves themselves (medians over NCCL versions), so the first table shows
what thinning and medians lose; the second fits without what it judges.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pandas as pd

from traincast.sim.calibration.import_nccl_tests import BUS_FACTORS
from traincast.sim.hardware.cluster import Cluster, TransportCurve
from traincast.sim.hardware.cluster_file import read_cluster
from traincast.sim.network.transport import SEND_RECV, transport

PRESETS = {
    r"a100_sxm$": "dgx-a100",
    r"h100_sxm$": "hgx-h100",
    r"h200_sxm$": "hgx-h200",
    r"b200_sxm$": "dgx-b200",
    r"b300_sxm$": "dgx-b300",
    r"gb200$": "gb200-nvl72",
    r"gb300$": "gb300-nvl72",
    r"l40s$": "l40s-pcie",
    r"anonymous cluster01": "hgx-h100",
    r"OCI BM.GPU.H100": "oci-h100",
    r"AWS P6-B200": "ec2-p6-b200",
    r"Sophia": "dgx-a100",
    r"2 nodes x 8 H20": "hgx-h100",
    r"Polaris": "polaris",
}
"""Pattern at the start of a system's name, preset. H20 nodes have the NVLink and adapters of H100 nodes."""

LEAST_BYTES = 2**16
BANDS = ((2**16, "64 KiB"), (2**20, "1 MiB"), (2**24, "16 MiB"), (2**28, "256 MiB"))


def measured(files: Iterable[str]) -> pd.DataFrame:
    """Rows of the systems that a preset stands for: half precision or whatever there is, tuned as advised."""
    rows = pd.concat([pd.read_csv(file) for file in files], ignore_index=True)
    rows["operation"] = rows["collective"].replace({"alltoall": "all_to_all", "sendrecv": SEND_RECV})
    rows = rows[rows["operation"].isin(BUS_FACTORS) & rows["ranks"].gt(1) & rows["nodes"].gt(0)]
    rows = rows[rows["size_bytes"].ge(LEAST_BYTES) & rows["system"].map(_preset).ne("")]
    if "dtype" in rows:
        rows = rows[rows["dtype"].isna() | rows["dtype"].eq("half")]
    if "env_setup" in rows:
        # On Slingshot: set (4), or (5) for all-to-alls and where (4) was not run; elsewhere untuned runs.
        setup = rows["env_setup"].fillna("").str[:3]
        polaris = rows["system"].str.startswith("Polaris")
        tuned = setup.eq("(4)") & rows["operation"].ne("all_to_all")
        tuned |= setup.eq("(5)") & (rows["operation"].eq("all_to_all") | rows["nodes"].isin((128, 540)))
        rows = rows[np.where(polaris, tuned, setup.eq(""))]
    return rows.assign(seconds=[_seconds(row) for row in rows.itertuples()]).query("seconds > 0")


def _preset(system: str) -> str:
    return next((preset for pattern, preset in PRESETS.items() if re.match(pattern, str(system))), "")


def _seconds(row) -> float:
    """As timed, or from the bus bandwidth where only that was published."""
    if row.time_us > 0:
        return row.time_us / 1e6
    bandwidth = row.busbw_GBps * 1e9
    return BUS_FACTORS[row.operation](int(row.ranks)) * row.size_bytes / bandwidth if bandwidth > 0 else 0.0


def predicted(cluster: Cluster, rows: pd.DataFrame) -> np.ndarray:
    """Seconds of each row on ``cluster``; a transfer is that between two ranks as far apart as they get."""
    found = []
    for row in rows.itertuples():
        nodes, ranks = int(row.nodes), int(row.ranks)
        wide = cluster if cluster.fabric else cluster.with_nodes(max(nodes, cluster.nodes))
        per_node = wide.accelerators_per_node
        members = [n * per_node + rank for n in range(nodes) for rank in range(ranks // nodes)]
        if row.operation == SEND_RECV:
            members = [0, 1] if nodes == 1 else [0, per_node]
        found.append(transport(wide, row.operation, members, float(row.size_bytes)))
    return np.array(found)


def show(title: str, rows: pd.DataFrame, by: list[str]) -> None:
    """Median / 90th percentile of the absolute error and the median error, in percent, by size band."""
    edges = [least for least, _ in BANDS]
    band = [BANDS[np.searchsorted(edges, size, side="right") - 1][1] + "+" for size in rows["size_bytes"]]
    error = 100 * (rows["predicted"] / rows["seconds"] - 1)
    table = error.groupby([*(rows[key] for key in by), pd.Series(band, index=rows.index, name="band")]).agg(
        lambda e: f"{e.abs().median():.1f} / {e.abs().quantile(0.9):.1f} ({e.median():+.1f})"
    )
    order = [name + "+" for _, name in BANDS]
    wide = table.unstack().reindex(columns=order).fillna("")
    print(f"\n{title}: median / p90 (bias), percent\n{wide.to_string()}")


def held_out(rows: pd.DataFrame) -> pd.DataFrame:
    """Curves inside nodes judged by what they were not made of: another NCCL version, another number of
    ranks, another machine."""
    inside = rows[rows["nodes"].eq(1) & rows["library_dir"].notna()]
    found = []
    for system, own in inside.groupby("system"):
        versions = sorted(own["library_dir"].unique())
        if len(versions) > 1:
            fit, judged = own[own["library_dir"].eq(versions[0])], own[own["library_dir"].ne(versions[0])]
            found.append(_judged("another NCCL version", system, fit, judged))
        if set(own["ranks"]) >= {2, 4, 8}:
            fit, judged = own[own["ranks"].ne(4)], own[own["ranks"].eq(4)]
            found.append(_judged("4 ranks from 2 and 8", system, fit, judged))
    for fit, judged in (("h100_sxm", "h200_sxm"), ("gb200", "gb300")):
        one, other = (inside[inside["system"].eq(name)] for name in (fit, judged))
        if len(one) and len(other):
            found.append(_judged("another machine", f"{judged} from {fit}", one, other))
    return pd.concat(found)


def _judged(check: str, name: str, fit: pd.DataFrame, judged: pd.DataFrame) -> pd.DataFrame:
    """``judged`` with what the curves of ``fit`` predict."""
    cluster = read_cluster(_preset(str(fit["system"].iloc[0])))
    curves = [
        TransportCurve(
            operation=str(operation),
            ranks=int(ranks),
            nodes=1,
            times_s=tuple(rows.groupby("size_bytes")["seconds"].median().items()),
        )
        for (operation, ranks), rows in fit.groupby(["operation", "ranks"])
    ]
    cluster = replace(cluster, transports=tuple(curves))
    return judged.assign(predicted=predicted(cluster, judged), check=check, name=name)


def main(files: list[str]) -> None:
    """Print both tables."""
    rows = measured(files)
    parts = [
        own.assign(predicted=predicted(read_cluster(str(preset)), own))
        for preset, own in rows.groupby(rows["system"].map(_preset))
    ]
    show("Presets", pd.concat(parts), ["system", "operation"])
    show("Held out", held_out(rows), ["check", "name"])


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: collective_accuracy.py TABLE.csv...")
    main(sys.argv[1:])
