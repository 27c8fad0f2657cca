"""How fast traincast is where a user stands, and how fast its engines are alone, in one run.

    python benchmarks/engine_speed.py [--quick] [--search] [-o FILE]

The first rows go through the public API (`from traincast import make_plan, simulate`) and the shell; those
below run the engines by themselves, next to the reference engine and what others measured.
``--search`` also times `traincast plan llama3-70b` on 128 GPUs, which takes a quarter of a minute.
Times are processor seconds, medians of several runs, in a process whose kernels are compiled and loaded (what
that took is printed apart). Where two engines ran the same thing their results must be equal, or the program
stops. ``--quick`` makes all cases small, to see that the program works; its numbers mean nothing. Peers'
figures were measured elsewhere on a 2-core machine: ASTRA-sim 2 (commit 518bd513, analytical back end), and
SimGrid 3.32 (model CM02) with as many flows of one size on as large a tree, but not between the same hosts.
"""

from __future__ import annotations

import argparse
import platform
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from api_speed import FIRST, SEARCH, api_rows, load_walk, shell_row
from llama_step import links_of, llama_step
from speed_rows import QUICK, REPEATS, Row, Sizes, cpu_s, demand, limit_row, once_s, ratio_row, table
from update_speed import model as update_model

from traincast.sim.engine import reference as engine_simpy
from traincast.sim.engine.compiled import run_arrays
from traincast.sim.engine.lanes import run_lanes
from traincast.sim.engine.pipeline.orders import regular_orders
from traincast.sim.engine.pipeline.pipeline import pipeline_program
from traincast.sim.engine.pipeline.worklist import pipeline_flat, run_pipeline
from traincast.sim.files.writer import write_text_atomic
from traincast.sim.network.fabrics.fat_tree import Shape, fat_tree
from traincast.sim.network.flows.flows import finish_times, flows_on
from traincast.sim.plan.pass_times import PassTimes
from traincast.sim.plan.schedules import schedule
from traincast.sim.program.arrays import FlatProgram
from traincast.sim.program.flat import Folded, unfold_flat
from traincast.sim.program.program import Program
from traincast.sim.program.ring_steps import ring_all_reduce_ends
from traincast.sim.updates import engine_compiled as updates_compiled
from traincast.sim.variability.jitter import LaneFactors

ASTRA_1F1B_S, ASTRA_RING_S = 5.6, 252.0
"""ASTRA-sim 2: 1F1B of 64 stages × 512 micro-batches; a 1 GiB ring all-reduce over 4,096 NPUs."""
SIMGRID_FLOWS_S = 13.0
"""SimGrid 3.32: 4,000 flows of equal size on a 1,024-host fat-tree, the quickest of its runs (13 to 41 s)."""


def shared_by_stage(program: Program, ranks: int) -> None:
    """Let the messages of eight neighbouring stages queue for one card, as `pipeline_rows` has it."""
    names = {stream: key for key, stream in program.streams.items()}
    for operation in program.operations:
        rank, name = names[operation.streams[0]]
        if name != "compute":
            operation.resources = (program.resource("card", rank * 8 // ranks),)


def pipeline_rows(sizes: Sizes) -> Iterator[Row]:
    """1F1B: in one scenario, in lanes, with shared links."""
    ranks, micro_batches = sizes.stages, sizes.micro_batches
    name = f"1F1B {ranks} × {micro_batches}, {2 * ranks * micro_batches:,} passes"
    times = PassTimes.alike(
        ranks, forward_s=0.01, transfer_s=0.001, input_gradient_s=0.01, weight_gradient_s=0.01
    )

    def scenario():
        return run_pipeline(regular_orders("1f1b", ranks, 1, micro_batches), times, compiled=True)

    seconds, found = cpu_s(scenario, 4 * REPEATS)
    program = pipeline_program(schedule("1f1b", ranks, 1, micro_batches), times)
    simpy_s, (_, ends) = once_s(lambda: engine_simpy.run(program))
    demand(found.ends.tolist() == ends[: len(found.ends)], name)
    yield ratio_row(f"{name}, with building", seconds, "ASTRA-sim", ASTRA_1F1B_S, 1000)
    yield ratio_row(f"{name}, with building", seconds, "our simpy engine", simpy_s, 200)
    flat = pipeline_flat(regular_orders("1f1b", ranks, 1, micro_batches), times)
    yield _lanes_row(name, flat, sizes.lanes, simpy_s)
    cards = np.arange(ranks) * 8 // ranks
    shared_by_stage(program, ranks)
    orders = regular_orders("1f1b", ranks, 1, micro_batches)
    seconds, (_, fast) = cpu_s(lambda: run_arrays(pipeline_flat(orders, times, cards)))
    simpy_s, (_, ends) = once_s(lambda: engine_simpy.run(program))
    demand(fast[: orders.passes].tolist() == ends[: orders.passes], f"{name}, shared")
    yield ratio_row(f"{name}, 8 cards shared", seconds, "our simpy engine", simpy_s, 60)


def _lanes_row(name: str, flat: FlatProgram, lanes: int, simpy_s: float) -> Row:
    """Every lane its own jitter on every pass and message."""
    none = np.zeros(flat.operations, dtype=np.int64)
    folded = Folded(flat=flat, axes={}, sync=none, pattern=none, rank=none - 1)
    factors = LaneFactors(cv=0.05, seed=1, samples=range(lanes))
    seconds, found = cpu_s(lambda: run_lanes(folded, factors, compiled=True).makespans)
    one = run_arrays(flat, factors.durations(flat.durations, lanes - 1))[1].max()
    demand(one == found[-1], f"{name}, lanes")
    return ratio_row(
        f"the same, {lanes} lanes of jitter, each", seconds / lanes, "our simpy engine", simpy_s, 1000
    )


def ring_row(sizes: Sizes) -> Row:
    """All-reduce of 1 GiB round a ring, every rank with its own ready time and step."""
    ranks, random = sizes.ring, np.random.default_rng(0)
    step_s = 1e-6 + 2**30 / ranks / 50e9
    alike = ring_all_reduce_ends(np.zeros(ranks), step_s)
    demand(bool((abs(alike - 2 * (ranks - 1) * step_s) < 1e-9).all()), "ring of alike ranks")
    ready, steps = random.random(ranks) * 1e-3, step_s * (1 + 0.05 * random.random(ranks))
    seconds, _ = cpu_s(lambda: ring_all_reduce_ends(ready, steps, compiled=True))
    work = f"1 GiB ring all-reduce, {ranks:,} ranks, each its own ready time and step"
    return ratio_row(work, seconds, "ASTRA-sim", ASTRA_RING_S, 10_000)


def llama_rows(sizes: Sizes) -> Iterator[Row]:
    """Llama 3 405B: folded, every rank with its own jitter, on shared links."""
    _demand_lanes_are_the_unfolded_step()
    seconds, ends = cpu_s(lambda: run_arrays(llama_step(sizes.replicas).folded.flat)[1])
    alike = ends.max()
    name = f"Llama 3 405B step, {sizes.replicas * 128:,} GPUs"
    yield limit_row(f"{name}, folded, {len(ends):,} operations, with building", seconds, 0.05)
    for replicas, limit_s in ((sizes.replicas, 2.0), (sizes.more_replicas, 15.0)):
        yield _jitter_row(replicas, limit_s, alike)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    yield Row(
        work="peak memory of this process so far",
        seconds=0.0,
        beside=f"{peak / 2**30:.2f} GiB, the cases above included",
        required="≤ 2 GiB",
        holds=peak <= 2 * 2**30,
    )
    yield _fabric_row(sizes)


def _demand_lanes_are_the_unfolded_step() -> None:
    """On 512 GPUs, in both forms of the step."""
    for coarse in (False, True):
        folded, factors = llama_step(4, coarse=coarse).folded, LaneFactors(cv=0.05, seed=1)
        unfolded = unfold_flat(folded)
        lanes = unfolded.lanes
        drawn = factors.durations(unfolded.flat.durations, 0, lanes.base, lanes.lane)
        ends = run_arrays(unfolded.flat, drawn)[1]
        demand(ends.max() == run_lanes(folded, factors, compiled=True).makespans[0], "lanes of the step")


def _jitter_row(replicas: int, limit_s: float, alike: float) -> Row:
    factors = LaneFactors(cv=0.05, seed=1)
    seconds, times = cpu_s(lambda: run_lanes(llama_step(replicas).folded, factors, compiled=True), 3)
    step = llama_step(replicas)
    total = _unfolded_operations(step.folded)
    rate = f"{total / 1e6:.1f} M rank-operations, {total / seconds / 1e6:,.0f} M a second"
    beside = f"{rate}; step {times.makespans[0]:.3f} s, without jitter {alike:.3f} s"
    work = f"Llama 3 405B step, {replicas * 128:,} GPUs, every rank its own jitter"
    return limit_row(work, seconds, limit_s, beside)


def _unfolded_operations(folded: Folded) -> int:
    """What ranks do, one for each member of a collective."""
    return folded.flat.operations * folded.lanes


def _fabric_row(sizes: Sizes) -> Row:
    """A layer as two operations, messages and rings step by step on the links of a three-tier fat-tree with
    half the bandwidth at each tier up; every rank with its own jitter, and without contention beside it."""
    shape = Shape(hosts=sizes.pods * 1024, radix=32, pod=32, oversubscription=2.0)
    fabric = fat_tree(shape, bandwidth=50e9, latency=1e-6, trunk_bandwidth=50e9, trunk_latency=1e-6)

    def whole():
        step = llama_step(sizes.replicas, coarse=True)
        unfolded = unfold_flat(step.folded, links_of(step, fabric))
        flat, lanes = unfolded.flat, unfolded.lanes
        factors = LaneFactors(cv=0.05, seed=1)
        drawn = factors.durations(flat.durations, 0, lanes.base, lanes.lane)
        return flat, run_arrays(flat, drawn)[1].max()

    seconds, (flat, makespan) = once_s(whole)
    coarse = llama_step(sizes.replicas, coarse=True).folded
    alone = run_lanes(coarse, LaneFactors(cv=0.05, seed=1)).makespans[0]
    gpus = f"{sizes.replicas * 128:,} GPUs with jitter"
    work = f"Llama 3 405B step, {gpus} on a {shape.hosts:,}-host fat-tree, links shared"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    beside = (
        f"{flat.operations / 1e6:.1f} M operations, {len(flat.slot_resource) / 1e6:.1f} M uses of "
        f"{fabric.links:,} links; step {makespan:.3f} s, alone {alone:.3f} s; "
        f"peak memory {peak / 2**30:.1f} GiB"
    )
    return limit_row(work, seconds, 60.0, beside)


def update_row(sizes: Sizes) -> Row:
    """Asynchronous parameter servers."""
    whole = update_model("async", sizes.workers, sizes.updates)
    seconds, _ = cpu_s(lambda: updates_compiled.run(whole, compiled=True))
    return limit_row(f"async PS, {sizes.workers} workers × {sizes.updates:,} updates", seconds, 1.0)


def flow_rows(sizes: Sizes) -> Iterator[Row]:
    """Max-min fair flows between random hosts of fat-trees."""
    speeds = {"bandwidth": 1e10, "latency": 1e-6, "trunk_bandwidth": 1e10, "trunk_latency": 1e-6}
    random = np.random.default_rng(0)
    small = fat_tree(Shape(hosts=sizes.flow_leaves * 32, radix=32), **speeds)
    ends = random.integers(0, small.hosts, (2, sizes.flows))
    flows, network = flows_on(small, *ends, 1e9)
    seconds, _ = cpu_s(lambda: finish_times(flows, network, compiled=True), 3)
    work = f"max-min flows, {sizes.flows:,} on a {small.hosts:,}-host fat-tree"
    yield ratio_row(work, seconds, "SimGrid", SIMGRID_FLOWS_S, 10)
    large = fat_tree(Shape(hosts=sizes.flow_pods * 1024, radix=32, pod=32), **speeds)
    flows, network = flows_on(large, np.arange(large.hosts), random.permutation(large.hosts), 1e9)
    seconds, _ = once_s(lambda: finish_times(flows, network, compiled=True))
    yield limit_row(f"max-min flows, a permutation of {large.hosts:,} hosts to completion", seconds, 5.0)


def warm() -> float:
    """Processor seconds to load every kernel, or to compile it if this machine never did."""
    begin = time.process_time()
    load_walk()
    for _ in (
        *api_rows(QUICK),
        *pipeline_rows(QUICK),
        *llama_rows(QUICK),
        *flow_rows(QUICK),
        update_row(QUICK),
    ):
        pass
    ring_row(QUICK)
    return time.process_time() - begin


def main() -> None:
    """Read the arguments, run everything, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small cases")
    parser.add_argument("--search", action="store_true", help="also a search from the shell")
    parser.add_argument("-o", "--output", type=Path, help="write the table there too")
    arguments = parser.parse_args()
    sizes = QUICK if arguments.quick else Sizes()
    loading_s = warm()
    shell = [shell_row(FIRST, 0.5, REPEATS)]
    if arguments.search:
        shell.append(shell_row(SEARCH, 18.0, 1))
    shown = table([*api_rows(sizes), *shell])
    rows = [*pipeline_rows(sizes), ring_row(sizes), *llama_rows(sizes), update_row(sizes), *flow_rows(sizes)]
    text = (
        f"Python {platform.python_version()}, numpy {np.__version__}, {platform.machine()}; kernels were "
        f"loaded or compiled before, in {loading_s:.1f} s.\n\n"
        f"Through the public API and from the shell:\n\n{shown}\n\nEngines alone:\n\n{table(rows)}\n"
    )
    print(text)
    if arguments.output:
        write_text_atomic(arguments.output, text)


if __name__ == "__main__":
    main()
