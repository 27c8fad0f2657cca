"""A small, made-up directory of results, laid out by `sim/search/result.py`, for the tests of the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from traincast.sim.hardware.cluster import Accelerator, Cluster, Host, Link, OptimizerCost, TransportCurve
from traincast.sim.hardware.cluster_writer import write_cluster
from traincast.sim.trace.chrome_trace import write_trace
from traincast.sim.trace.trace import Span, Trace

STEP_S = 0.1
MIB = 2**20


def trace(source: str, scale: float = 1.0, steps: int = 1, ranks: int = 2, action: str = "0F0") -> Trace:
    """A pipeline of ``ranks`` with four micro-batches, on average ``scale`` tenths of a second a step."""
    unit = STEP_S * scale / (4 + ranks - 1) / 3
    spans = []
    for step in range(steps):
        for rank in range(ranks):
            for micro_batch in range(4):
                start = (rank + micro_batch) * unit
                name = action if rank == micro_batch == 0 else f"{rank}F{micro_batch}"
                spans.append(Span(rank, "compute", name, rank, micro_batch, start, start + unit, step=step))
                back = (4 + ranks - 1) * unit + (ranks - 1 - rank + micro_batch) * 2 * unit
                span = Span(
                    rank, "compute", f"{rank}B{micro_batch}", rank, micro_batch, back, back, step=step
                )
                spans.append(span._replace(end=back + 2 * unit))
                sent = Span(
                    rank, "pp", f"{rank}SEND_F{micro_batch}", rank, micro_batch, 0, 0, 4096.0, 0, step
                )
                if rank < ranks - 1:
                    spans.append(sent._replace(start=start + unit, end=start + 1.2 * unit))
    return Trace.of(
        spans,
        source=source,
        world_size=ranks,
        step_times_s=tuple(STEP_S * scale * (1 + 0.01 * step) for step in range(steps)),
        metadata={"label": "pp2 1f1b mb1"},
    )


def cluster() -> Cluster:
    """Two cores with a calibration."""
    return Cluster(
        name="two cores",
        nodes=1,
        accelerators_per_node=2,
        accelerator=Accelerator(
            name="core",
            kind="cpu",
            peak_flops={"fp32": 1e11},
            memory_bytes=256.0 * MIB,
            memory_bandwidth=1e10,
            gemm_efficiency={"fp32": ((1e6, 0.2), (1e9, 0.9))},
            optimizer_costs={"adamw": OptimizerCost(overhead_s=1e-4, per_parameter_s=1e-9)},
            source="made up for tests",
            date="2026-11-21",
        ),
        links={"loopback": Link(name="loopback", joins="accelerators", bandwidth=1e9, latency=5e-5)},
        transports=(
            TransportCurve(operation="all_reduce", ranks=2, times_s=((1024.0, 1e-4), (1048576.0, 1e-3))),
        ),
        host=Host(cores=2),
        jitter=0.05,
        residuals={"gemm": 0.06, "single_step": 0.021},
    )


def plan(number: int, label: str, error_pct: float | None = None) -> dict[str, Any]:
    """One entry of `result.json`, measured where ``error_pct`` is given."""
    step = STEP_S * (1 + 0.1 * (number - 1))
    measured = None
    if error_pct is not None:
        p50 = step / (1 + error_pct / 100)
        measured = {
            "step_time_s": {"p5": p50 * 0.97, "p50": p50, "p95": p50 * 1.05},
            "losses": [5.5, 5.0, 4.75],
            "peak_memory_bytes": {"0": 70.0 * MIB, "1": 80.0 * MIB},
            "staleness": [0, 2] if "async" in label else None,
        }
    memory = {
        "weights_bytes": 10.0 * MIB,
        "gradients_bytes": 10.0 * MIB,
        "optimizer_bytes": 20.0 * MIB,
        "activations_bytes": 30.0 * MIB,
        "capacity_bytes": 256.0 * MIB,
        "total_bytes": 75.0 * MIB,
    }
    return {
        "id": number,
        "label": label,
        "strategy": {"dp": 1, "tp": 1, "pp": 2},
        "synchronous": "async" not in label,
        "predicted": {
            "step_time_s": {"p5": step * 0.95, "p50": step, "p95": step * 1.05},
            "samples_per_s": 160.0,
            "tokens_per_s": 20480.0,
            "mfu": 0.41,
            "hfu": 0.41,
            "bubble_fraction": 0.2,
            "exposed_comm_s": {"pp": 0.001},
            "peak_memory_bytes": [75.0 * MIB, 75.0 * MIB],
            "memory": [memory, memory],
            "fits": True,
        },
        "why_not": "" if number == 1 else f"+{10 * (number - 1)}.0%: pipeline bubble",
        "plan": f"plans/{number}.json",
        "predicted_trace": f"predicted/{number}.trace.json.gz",
        "measured": measured,
        "measured_trace": f"measured/{number}.trace.json.gz" if measured else None,
        "error_pct": error_pct,
        "memory_error_pct": None if error_pct is None else 100 * (75 / 80 - 1),
    }


def document(plans: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    """`result.json` around ``plans``."""
    errors = [abs(entry["error_pct"]) for entry in plans if entry["error_pct"] is not None]
    accuracy = (
        {
            "median_abs_pct": sorted(errors)[len(errors) // 2],
            "max_abs_pct": max(errors),
            "runs": len(errors),
            "compared": len(errors),
            "fastest_place": 1,
            "fastest_regret_pct": 0.0,
            "memory_median_abs_pct": 6.25,
            "memory_max_abs_pct": 6.25,
        }
        if errors
        else None
    )
    return {
        "schema": "traincast.result/1",
        "command": "traincast demo -o out",
        "created": "2026-11-21T12:00:00+00:00",
        "seed": 7,
        "versions": {"python": "3.11", "traincast": "0.1.0"},
        "verdict": f"{plans[0]['label']} is the fastest of 85 ways.",
        "model": {"name": "tiny", "parameters": 4_560_000, "decoder": {"layers": 6, "hidden": 256}},
        "job": {"global_batch": 16, "seq_len": 128, "optimizer": "adamw", "precision": "fp32"},
        "cluster": {
            "name": "two cores",
            "accelerator": "core",
            "kind": "cpu",
            "accelerators": 2,
            "memory_bytes": 256.0 * MIB,
            "residuals": {"gemm": 0.06, "single_step": 0.021},
            "file": "cluster.yaml",
        },
        "counts": {"considered": 85, "refused": 9, "bounded": 16, "simulated": 60},
        "refusals": {"divisibility": 7, "memory": 2},
        "plans": plans,
        "measurements": None,
        "accuracy": accuracy,
    } | fields


def write_directory(
    directory: Path, plans: list[dict[str, Any]], *, with_cluster: bool = True, **fields: Any
) -> Path:
    """Write ``plans`` with their traces, and the rest of `result.json` with ``fields`` replaced."""
    for folder in ("predicted", "measured"):
        (directory / folder).mkdir(parents=True, exist_ok=True)
    for entry in plans:
        write_trace(trace("predicted"), directory / entry["predicted_trace"])
        if entry["measured_trace"]:
            write_trace(trace("measured", 1.05, steps=3), directory / entry["measured_trace"])
    if with_cluster:
        write_cluster(cluster(), directory / "cluster.yaml")
    (directory / "result.json").write_text(json.dumps(document(plans, **fields)))
    return directory
