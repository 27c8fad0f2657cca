"""How fast traincast is where a user stands: through the public API, and from the shell.

"A new plan" is one whose table of actions nobody made before; "again" is the same plan with another seed, as
for more samples. `engine_speed.py` prints these rows.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

from speed_rows import REPEATS, Row, Sizes, cpu_s, demand, limit_row, once_s

from traincast import Job, Strategy, make_plan, read_cluster, read_model, simulate
from traincast.sim.engine import reference as engine_simpy
from traincast.sim.engine.walk import walk
from traincast.sim.plan import make_plan as making
from traincast.sim.program.build import build_program
from traincast.sim.program.step_arrays import step_arrays


def api_rows(sizes: Sizes) -> Iterator[Row]:
    """Through the public API: 1F1B with its spans and without, next to simpy; Llama 3.1 405B with jitter."""
    ranks, micro_batches = sizes.stages, sizes.micro_batches
    job = Job(model=read_model("llama3-70b"), global_batch=micro_batches, seq_len=4096)
    cluster = read_cluster("hgx-h100").with_nodes(max(1, ranks // 8))
    strategy = Strategy(pp=ranks, schedule="1f1b")

    def new_plan():
        making._table.cache_clear()
        making._lowered.cache_clear()
        return make_plan(job, strategy)

    seconds, plan = cpu_s(new_plan)
    name = f"1F1B {ranks} × {micro_batches} on {ranks} ranks"
    yield limit_row(f"make_plan, {name}", seconds, 0.03)
    simpy_s, (_, ends) = once_s(lambda: engine_simpy.run(build_program(plan, cluster).program))
    beside = f"our simpy engine {simpy_s:.3g} s"
    seeds = iter(range(10**6))
    plans = [new_plan() for _ in range(REPEATS + 1)]
    seconds, trace = cpu_s(lambda: simulate(plans.pop(), cluster))
    demand(trace.step_time_s == max(ends), name)
    yield limit_row(f"simulate, a new plan, {name}, {len(trace.spans):,} spans", seconds, 0.06, beside)
    seconds, _ = cpu_s(lambda: simulate(plan, cluster, seed=next(seeds)))
    yield limit_row("simulate, the same plan again, with spans", seconds, 0.06, beside)
    plans = [new_plan() for _ in range(REPEATS + 1)]
    seconds, _ = cpu_s(lambda: simulate(plans.pop(), cluster, spans=False))
    yield limit_row("simulate(spans=False), a new plan", seconds, 0.06, beside)
    seconds, trace = cpu_s(lambda: simulate(plan, cluster, spans=False, seed=next(seeds)))
    demand(trace.step_time_s == max(ends), name)
    yield limit_row("simulate(spans=False), the same plan again", seconds, 0.01, beside)
    step = step_arrays(plan, cluster)
    assert step is not None
    seconds, _ = cpu_s(lambda: walk(step, compiled=False), 3)
    yield limit_row("what each of these takes longer where numba is not loaded, at most", seconds, 0.2)
    yield _many_gpus_row(sizes)


def _many_gpus_row(sizes: Sizes) -> Row:
    """Llama 3.1 405B: every rank its own jitter in each of 32 drawn steps."""
    dp = sizes.replicas
    job = Job(model=read_model("llama3.1-405b"), global_batch=16 * dp, seq_len=8192)
    cluster = replace(read_cluster("hgx-h100").with_nodes(16 * dp), jitter=0.05)
    strategy = Strategy(dp=dp, tp=8, pp=16, schedule="1f1b", sequence_parallel=True, sharding="zero1")
    plan, count = make_plan(job, strategy), 32
    seconds, trace = cpu_s(lambda: simulate(plan, cluster, samples=count), 3)
    low, _, high = trace.quantiles.values()
    beside = f"{count} steps drawn: p5 {low:.2f} s, p95 {high:.2f} s"
    work = f"simulate, Llama 3.1 405B on {plan.world_size:,} GPUs, each with its own jitter"
    return limit_row(work, seconds, 1.0, beside)


FIRST = (
    "simulate llama3-8b --cluster hgx-h100 --nodes 2 --tp 8 --pp 2 --global-batch 64 --seq-len 8192 --json"
)
SEARCH = "plan llama3-70b --cluster hgx-h100 --nodes 16 --global-batch 1024 --seq-len 8192 --json"


def shell_row(arguments: str, most: float, repeats: int) -> Row:
    """Processor seconds of a command in a process of its own, interpreter and imports included."""
    seconds = []
    for _ in range(repeats):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "traincast", *arguments.split()]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)  # noqa: S603
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        demand(done.returncode == 0, f"traincast {arguments}: exit status {done.returncode}")
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return limit_row(f"`traincast {arguments}`", statistics.median(seconds), most, "from the shell")


def load_walk() -> None:
    """Load the kernel that steps as arrays are walked by, or compile it."""
    plan = make_plan(Job(model=read_model("llama3-8b"), global_batch=64, seq_len=4096), Strategy(pp=4))
    step = step_arrays(plan, read_cluster("hgx-h100"))
    assert step is not None
    walk(step, compiled=True)
