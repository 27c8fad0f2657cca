"""What `gpu.py` predicts of its cases, from what a record has measured of components alone.

Ways to predict: `shipped`, by the accelerator file of the device as it is shipped, nothing measured here;
`kernels`, by curves and speeds of kernels fitted to this device's; `layers`, by those and by profiles of
layers, as `traincast calibrate` makes them. The cases are in no fit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from gpu_cases import CUDNN_ATTENTION, Case

import traincast
from traincast.sim.calibration.fit import fit_cluster
from traincast.sim.errors import InputError
from traincast.sim.hardware.cluster import Cluster
from traincast.sim.hardware.cluster_file import read_cluster
from traincast.sim.memory.peak import memory
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.predict.simulate import simulate

MEASUREMENTS = "traincast.measurements/1"
SHIPPED = {
    "NVIDIA H100 80GB HBM3": "hgx-h100",
    "NVIDIA H200": "hgx-h200",
    "NVIDIA B200": "dgx-b200",
    "NVIDIA A100-SXM4-80GB": "dgx-a100",
}
"""Cluster presets with a device, by its own name."""
CAPABILITIES = {"hgx-h100": (9, 0), "hgx-h200": (9, 0), "dgx-b200": (10, 0), "dgx-a100": (8, 0)}
"""Compute capabilities of their devices."""
WAYS = ("shipped", "kernels", "layers")
HOST_SERIES = "probe"
"""How fast the host was when its part was calibrated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Of one case, one way."""

    step_s: float
    allocated_bytes: float
    reserved_bytes: float


def clusters(record: Mapping[str, Any]) -> dict[str, Cluster]:
    """The machine of ``record`` by way of predicting; `shipped` is left out for devices without a file, the
    others where nothing was measured."""
    found = {}
    preset = SHIPPED.get(record["machine"]["device"])
    if preset:
        found["shipped"] = read_cluster(preset)
    whole = [s for s in record["series"] if s["what"] != HOST_SERIES]
    kernels = [s for s in whole if s["what"] not in ("forward", "backward", "step")]
    for way, series in (("kernels", kernels), ("layers", whole)) if whole else ():
        measured = {
            "schema": MEASUREMENTS,
            "machine": record["machine"],
            "rounds": 1,
            "series": series,
        }
        found[way] = fit_cluster(measured, name=f"measured-{way}", date=record["date"])
    return found


def predict(case: Case, cluster: Cluster, *, attention: str) -> Prediction:
    """One step of ``case`` on one device of ``cluster``."""
    plan = make_plan(case.job(), case.strategy(attention))
    peak = memory(plan, cluster)[0]
    return Prediction(
        step_s=median(simulate(plan, cluster).step_times_s),
        allocated_bytes=peak.allocated_bytes,
        reserved_bytes=peak.allocator_bytes,
    )


def predict_all(
    case: Case, machines: Mapping[str, Cluster], capability: Iterable[int] | None
) -> dict[str, Prediction]:
    """``case`` by every way of ``machines`` that knows its precision, on a device of this capability."""
    cudnn, found = next(iter(capability or ()), 0) in CUDNN_ATTENTION, {}
    for way, cluster in machines.items():
        # A measured curve is of the kernel that ran; the shipped one is FlashAttention-2's.
        attention = "flash3" if cudnn and way == "shipped" else "flash"
        with suppress(InputError):
            found[way] = predict(case, cluster, attention=attention)
    return found


def predictions(record: Mapping[str, Any], cases: Iterable[Case]) -> dict[str, Any]:
    """Of ``cases``, as plain values: by name and way, and a digest of the model that says so."""
    machines = clusters(record)
    made = {
        case.name: {
            way: asdict(one)
            for way, one in predict_all(case, machines, record["machine"].get("capability")).items()
        }
        for case in cases
    }
    return {"model": model_digest(), "cases": made}


def model_digest() -> str:
    """Of all code and data that predictions are made of: the same where they are."""
    root, digest = Path(traincast.__file__).parent, hashlib.sha256()
    for folder, pattern in (("sim", "*.py"), ("topologies", "*.yaml")):
        for path in sorted((root / folder).rglob(pattern)):
            digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def with_host_at(cluster: Cluster, factor: float) -> Cluster:
    """``cluster`` with a host that takes ``factor`` times as long for everything it launches."""
    a = cluster.accelerator
    slowed = replace(
        a,
        host_launch_s=factor * a.host_launch_s,
        host_backward_launch_s=factor * a.host_backward_launch_s,
        host_recompute_s={policy: factor * seconds for policy, seconds in a.host_recompute_s.items()},
    )
    return replace(cluster, accelerator=slowed)


def host_s(record: Mapping[str, Any]) -> float:
    """Seconds of the host for a small operation while its part was calibrated; 0 where nobody looked."""
    looked = [value for s in record["series"] if s["what"] == HOST_SERIES for value in s["seconds"]]
    return median(looked) if looked else 0.0
