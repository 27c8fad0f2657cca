"""Runs of `gpu.py` on a device: training steps by the executor's own trainer, and tasks of a calibration."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from gpu_cases import PROFILED_MICRO_BATCHES, Case
from gpu_models import MODELS, PROFILED

from traincast.executor.calibrate.bench import Bench
from traincast.executor.calibrate.worker import tasks_of
from traincast.executor.measure.heartbeat import Heartbeat
from traincast.executor.measure.memory import memory_bytes, peak_memory_bytes, reset_peak_memory
from traincast.executor.measure.recorder import CpuClock, CudaClock, Recorder
from traincast.executor.model.workload import Workload
from traincast.executor.parallel.process_groups import Groups
from traincast.executor.run.environment import check_environment
from traincast.executor.train.trainer import Trainer
from traincast.sim.errors import TraincastError
from traincast.sim.plan.make_plan import make_plan

WARMUP, LEAST_STEPS, MOST_STEPS, STEPS_S = 2, 4, 20, 1.2
"""Steps that do not count; then so many, until they have taken so long."""
KERNEL_TASKS = ("launch", "host", "memory", "elementwise", "gemm", "host", "attention")
"""The host's part at several times: on a shared machine it varies from minute to minute."""
PROFILE_MODELS = ("gpt2-124m", "llama-1.1b")
PROBES, PROBED_CALLS = 3, 300
"""How often the host is looked at, and launches of one look."""
ALONE = Groups()
"""Groups of a single worker."""

Say = Callable[[str], None]


def calibrate(device: torch.device, say: Say, *, models: Iterable[str]) -> list[dict[str, Any]]:
    """Series of kernels, then of layers and optimizer steps of ``models``."""
    bench = Bench(device, 0, {})
    tasks = tasks_of(bench)
    found: list[dict[str, Any]] = []
    names = KERNEL_TASKS if not bench.on_cpu else tuple(n for n in KERNEL_TASKS if n in tasks)
    for name in names:
        found += _timed(say, name, lambda name=name: tasks[name](bench, full=False))
        if name == "host":
            found.append(
                {"what": "probe", "parameters": {}, "seconds": probe_host(device), "cpu_seconds": []}
            )
        free(device)
    for model in models:
        decoder = asdict(MODELS[model])
        for micro_batch in PROFILED_MICRO_BATCHES:
            shape = {"decoder": decoder, "seq_len": PROFILED.get(model, 64), "micro_batch": micro_batch}
            found += _timed(
                say,
                f"layers of {model} {micro_batch}",
                lambda shape=shape: tasks["layers"](bench, **shape),
            )
            free(device)
        found += _timed(
            say,
            f"optimizer of {model}",
            lambda decoder=decoder: tasks["optimizer"](bench, decoder=decoder, optimizer="adamw"),
        )
        free(device)
    if "host" in tasks:
        found += _timed(say, "host", lambda: tasks["host"](bench, full=False))
    return found


def _timed(say: Say, title: str, task: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """What ``task`` finds; what the device has no memory for is left out, and said."""
    start = time.perf_counter()
    try:
        found = task()
    except torch.OutOfMemoryError:
        say(f"{title}: out of memory")
        return []
    say(f"{title}: {len(found)} series in {time.perf_counter() - start:.1f} s")
    return found


def probe_host(device: torch.device) -> list[float]:
    """Seconds of the host for one small operation, several times: how fast it is just now."""
    x = torch.zeros(16, 16, device=device)
    out = torch.empty_like(x)
    found = []
    for _ in range(PROBES):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(PROBED_CALLS):
            torch.add(x, x, out=out)
        found.append((time.perf_counter() - start) / PROBED_CALLS)
    return found


def run_case(case: Case, device: torch.device) -> dict[str, Any]:
    """Train some steps of ``case``. Plain values: every step's seconds, the loss, and memory in bytes.

    `host_s` is what `probe_host` found before them. What cannot be run here has `refused` instead, with the
    reason. `peak_allocated` and `peak_reserved` are the allocator's (torch.cuda.max_memory_allocated and
    max_memory_reserved) over all steps, `states` what stands between two steps. On the CPU they are resident
    bytes.
    """
    named = {**asdict(case), "name": case.name}
    free(device)
    reset_peak_memory(device)
    before, host_s = memory_bytes(device), median(probe_host(device))
    try:
        check_environment(make_plan(case.job(), case.strategy()), force=True)
        with _trainer(case, device) as (trainer, recorder):
            seconds, loss = _steps(trainer, recorder)
            found = {"step_s": seconds, "median_s": median(seconds), "loss": loss, "host_s": host_s}
            states = memory_bytes(device)
    except torch.OutOfMemoryError as error:
        return {**named, "out_of_memory": str(error).splitlines()[0]}
    except TraincastError as error:
        return {**named, "refused": str(error)}
    memory = {"before": before, "states": states, "peak_allocated": peak_memory_bytes(device)}
    if device.type == "cuda":
        memory["peak_reserved"] = float(torch.cuda.max_memory_reserved(device))
    return {**named, **found, "memory": memory}


@contextmanager
def _trainer(case: Case, device: torch.device) -> Iterator[tuple[Trainer, Recorder]]:
    """The executor's only worker, in this process, and what notes its times."""
    with tempfile.TemporaryDirectory(prefix="traincast-gpu-") as directory:
        clock = CpuClock() if device.type == "cpu" else CudaClock()
        recorder = Recorder(0, clock, Heartbeat(Path(directory) / "heartbeat"))
        plan = make_plan(case.job(), case.strategy())
        workload = Workload(job=plan.job)
        yield Trainer(plan, 0, device, ALONE, recorder, workload=workload), recorder


def _steps(trainer: Trainer, recorder: Recorder) -> tuple[list[float], float]:
    ends: list[float] = []
    loss = 0.0
    for step in range(WARMUP + MOST_STEPS):
        recorder.step = step
        (loss,) = trainer.walk(step)
        ends.append(recorder.settle())
        counted = ends[WARMUP - 1 :]
        if len(counted) > LEAST_STEPS and counted[-1] - counted[0] > STEPS_S:
            break
    seconds = [after - before for before, after in zip(ends[WARMUP - 1 :], ends[WARMUP:], strict=False)]
    return seconds, loss


def free(device: torch.device) -> None:
    """Give back what nobody holds."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def kernel_profile(device: torch.device) -> str:
    """Kernels of the third step of a GPT-2 and a Llama of two blocks, in order, and memory by layer."""
    from torch.profiler import ProfilerActivity, profile

    parts = []
    for model in PROFILE_MODELS:
        MODELS[f"{model}-shallow"] = replace(MODELS[model], layers=2)
        for recompute in ("none", "full"):
            case = Case(model=f"{model}-shallow", seq_len=1024, micro_batch=4, recompute=recompute)
            with _trainer(case, device) as (trainer, recorder):
                for step in range(2):
                    trainer.walk(step)
                moments = _watched(trainer, device)
                activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
                with profile(activities=activities[: 2 if device.type == "cuda" else 1]) as found:
                    trainer.walk(2)
                    recorder.settle()
            parts += [f"## {case.name}", *moments, *_kernels_in_order(found)]
            free(device)
    return "\n".join(parts) + "\n"


def _watched(trainer: Trainer, device: torch.device) -> list[str]:
    """A step with the memory at the beginning of every layer's passes, and the peak since the one before."""
    lines: list[str] = []

    def note(title: str) -> None:
        if device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)
            lines.append(f"{title:<20} {memory_bytes(device) / 2**20:10.1f} MiB, {peak / 2**20:10.1f} before")

    handles = []
    for place, layer in enumerate(trainer.stages[0].layers.layers):
        handles.append(layer.register_forward_pre_hook(lambda *_, p=place: note(f"forward {p}")))
        handles.append(layer.register_full_backward_pre_hook(lambda *_, p=place: note(f"backward {p}")))
    trainer.walk(1)
    note("end")
    for handle in handles:
        handle.remove()
    return lines


def _kernels_in_order(found: Any) -> list[str]:
    events = [e for e in found.events() if str(e.device_type).endswith("CUDA")]
    events.sort(key=lambda e: e.time_range.start)
    first = events[0].time_range.start if events else 0.0
    return [
        f"{e.time_range.start - first:10.1f} {e.time_range.elapsed_us():9.2f} {e.name[:150]}" for e in events
    ]
