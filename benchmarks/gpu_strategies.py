"""Strategies over several devices of one machine, for `gpu.py`: each is predicted, then run by the executor.

The machine is calibrated as `traincast calibrate` does it, collectives included, and plans of every kind that
the executor runs are made for it: what it refuses is named with the reason, so the list tells itself what is
still to be built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from statistics import median
from typing import Any

from gpu_cases import COMPILED_STACK, STACK
from gpu_models import MODELS

import traincast as tc
from traincast.executor.run.environment import check_environment
from traincast.sim.errors import TraincastError
from traincast.sim.memory.peak import memory
from traincast.sim.model.model import Model
from traincast.sim.plan.job import Job
from traincast.sim.plan.plan import Plan

DENSE, EXPERTS = "llama-1.1b", "moe-8x160m"
QUICK_DENSE, QUICK_EXPERTS = "quick-llama", "quick-moe"
SEQ_LEN, QUICK_SEQ_LEN = 2048, 64
BATCH = 8
"""Samples of a step."""
STEPS, WARMUP = 6, 2
PLAN_S = 12.0
"""What one plan takes with its processes, at least: with less time left no other is begun."""

Fields = dict[str, Any]


def fields_of(devices: int) -> Iterator[Fields]:
    """Strategies of every family over ``devices`` devices; those that need more are left out."""
    n = devices
    yield {"dp": n}
    yield {"dp": n, "stack": COMPILED_STACK}
    for sharding in ("zero1", "zero2", "fsdp"):
        yield {"dp": n, "sharding": sharding}
    yield {"dp": n, "sharding": "fsdp", "reshard_after_forward": False}
    yield {"dp": n, "sharding": "fsdp", "recompute": "full"}
    yield {"tp": n}
    yield {"tp": n, "sequence_parallel": True}
    for exchange in ("ring", "all_gather", "all_to_all"):
        yield {"cp": n, "cp_exchange": exchange}
    for schedule in ("gpipe", "1f1b", "zb-h1"):
        yield {"pp": n, "schedule": schedule}
    for schedule in ("interleaved", "zbv"):
        yield {"pp": n, "vp": 2, "schedule": schedule}
    yield {"dp": n, "ep": n}
    yield {"dp": n, "offload": "optimizer"}
    yield {"dp": n, "recompute": "full"}
    if n % 2 == 0 and n >= 4:
        half = n // 2
        yield {"dp": half, "tp": 2}
        yield {"dp": half, "pp": 2}
        yield {"tp": half, "pp": 2}
        yield {"dp": n, "sharding": "hsdp", "shard_degree": half}
        yield {"dp": half, "tp": 2, "sharding": "fsdp", "sequence_parallel": True}
        yield {"dp": half, "cp": 2, "sharding": "fsdp"}
    if n % 4 == 0 and n >= 8:
        yield {"dp": n // 4, "tp": 2, "pp": 2}
        yield {"dp": n // 4, "tp": 2, "pp": 2, "sharding": "zero1", "sequence_parallel": True}


def job_of(fields: Fields, kind: str, *, quick: bool) -> Job:
    """What a strategy trains: experts where they are divided, else a dense model."""
    experts = fields.get("ep", 1) > 1
    name = (QUICK_EXPERTS if experts else QUICK_DENSE) if quick else (EXPERTS if experts else DENSE)
    return Job(
        model=Model(name=name, decoder=decoder_of(name)),
        global_batch=BATCH,
        seq_len=QUICK_SEQ_LEN if quick else SEQ_LEN,
        precision="bf16" if kind == "cuda" else "fp32",
    )


def decoder_of(name: str) -> Any:
    """Of a model by its name; the tiny one with experts is made of the tiny Llama."""
    if name != QUICK_EXPERTS:
        return MODELS[name]
    return replace(MODELS[QUICK_DENSE], experts=4, experts_per_token=2, expert_ffn=64)


def run_strategies(
    devices: int,
    kind: str,
    say: Callable[[str], None],
    left_s: Callable[[], float],
    *,
    quick: bool,
    execute: Callable[..., Any] | None = None,
) -> list[dict[str, Any]]:
    """Predict and run them all while time is left. Plain values, one for each; what cannot be planned or run
    here has `refused` with the reason. ``execute`` is the executor, None the one that is installed."""
    dense = Model(name=DENSE, decoder=decoder_of(QUICK_DENSE if quick else DENSE))
    seq_len = QUICK_SEQ_LEN if quick else SEQ_LEN
    cluster = tc.calibrate(dense, seq_len=seq_len, micro_batches=(1,), rounds=1)
    cluster = replace(cluster, accelerators_per_node=max(devices, cluster.accelerators_per_node))
    say(f"{devices} devices calibrated")
    found = []
    for fields in fields_of(devices):
        named = {"name": " ".join(_words(fields)), **fields}
        if left_s() < PLAN_S:
            found.append({**named, "refused": "no time left"})
            continue
        try:
            plan = _plan(fields, job_of(fields, kind, quick=quick), kind, cluster)
            found.append({**named, **_run(plan, cluster, execute or tc.execute)})
        except TraincastError as error:
            found.append({**named, "refused": str(error)})
        say(f"{named['name']}: {_outcome(found[-1])}")
    return found


def _outcome(one: dict[str, Any]) -> str:
    return one.get("refused") or f"{one['median_s']:.4f} s"


def _words(fields: Fields) -> Iterator[str]:
    for name, value in fields.items():
        yield value if isinstance(value, str) else f"{name}{'' if value is True else value}"


def _plan(fields: Fields, job: Job, kind: str, cluster: Any) -> Plan:
    stack = {"stack": STACK} if kind == "cuda" and "stack" not in fields else {}
    return tc.make_plan(job, **{**stack, **fields}, cluster=cluster)


def _run(plan: Plan, cluster: Any, execute: Callable[..., Any]) -> dict[str, Any]:
    """Seconds and bytes, predicted first."""
    check_environment(plan, force=True)
    predicted = tc.simulate(plan, cluster, spans=False)
    # torch's allocator on a GPU, the whole process on the CPU.
    on_cpu = cluster.accelerator.kind == "cpu"
    peaks = [one.total_bytes if on_cpu else one.allocated_bytes for one in memory(plan, cluster)]
    trace = execute(plan, steps=STEPS, warmup=WARMUP, force=True)
    return {
        "predicted_s": predicted.step_time_s,
        "predicted_bytes": max(peaks),
        "median_s": median(trace.step_times_s),
        "peak_bytes": max(trace.peak_memory_bytes.values()),
    }
