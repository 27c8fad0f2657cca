"""Operations per second of both engines, side by side, on one 1F1B step.

Run it from anywhere, with the number of stages and of micro-batches, while nothing else runs:

    python benchmarks/engine_speed.py 8 32
    python benchmarks/engine_speed.py 64 512 --shared 8 --repeats 5

Every forward and backward is an operation on its stage's compute stream, every activation and gradient
passed on one on its sender's and its receiver's transfer streams. With ``--shared k`` the transfers of k
neighbouring stages also queue for one network card to leave by. Times are medians of processor seconds;
all rows give the same times, to the bit, or the program stops.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable

from traincast.sim import engine_compiled, engine_simpy
from traincast.sim.plan import Kind
from traincast.sim.program import Program
from traincast.sim.schedules import one_f_one_b

FORWARD_S, BACKWARD_S, TRANSFER_S, LATENCY_S = 0.010, 0.020, 0.001, 5e-6


def one_f_one_b_program(stages: int, micro_batches: int, shared: int = 0) -> Program:
    """One step; ``shared`` > 0 gives that many neighbouring stages one card to send by."""
    program = Program()
    orders = one_f_one_b(stages, micro_batches)
    compute = {}
    for stage, actions in enumerate(orders):
        stream = program.stream(stage, "compute")
        for action in actions:
            seconds = FORWARD_S if action.kind is Kind.FORWARD else BACKWARD_S
            compute[action.stage, action.kind, action.index] = program.add(seconds, (stream,))
    for (stage, kind, index), op in list(compute.items()):
        target = stage + 1 if kind is Kind.FORWARD else stage - 1
        if not 0 <= target < stages:
            continue
        ports = (program.stream(stage, f"{kind} out"), program.stream(target, f"{kind} in"))
        card = (program.resource("card", stage // shared),) if shared else ()
        transfer = program.add(TRANSFER_S, ports, after=[(op, 0.0)], resources=card)
        program.depend(compute[target, kind, index], transfer, LATENCY_S)
    for index in range(micro_batches):
        program.depend(compute[stages - 1, Kind.BACKWARD, index], compute[stages - 1, Kind.FORWARD, index])
    return program


def cpu_s(work: Callable[[], object], repeats: int) -> tuple[float, object]:
    """Median processor seconds of ``work``, and what it gave."""
    seconds = []
    result = None
    for _ in range(repeats):
        begin = time.process_time()
        result = work()
        seconds.append(time.process_time() - begin)
    return statistics.median(seconds), result


def report(stages: int, micro_batches: int, shared: int, repeats: int, largest_simpy: int) -> str:
    """The table, as Markdown."""
    build_s, _ = cpu_s(lambda: one_f_one_b_program(stages, micro_batches, shared), repeats)
    program = one_f_one_b_program(stages, micro_batches, shared)
    count = len(program.operations)
    flatten_s, _ = cpu_s(lambda: engine_compiled.flatten(program), repeats)
    flat = engine_compiled.flatten(program)
    runs: dict[str, Callable[[], object]] = {
        "interpreted, arrays ready": lambda: engine_compiled.run_flat(flat, compiled=False),
        "interpreted, with flatten": lambda: engine_compiled.run_flat(
            engine_compiled.flatten(program), compiled=False
        ),
        "numba, arrays ready": lambda: engine_compiled.run_flat(flat, compiled=True),
    }
    if count <= largest_simpy:
        runs["simpy"] = lambda: engine_simpy.run(program)
    expected = engine_compiled.run_flat(flat, compiled=True)  # compiles, before any clock runs
    lines = [
        f"{stages} stages x {micro_batches} micro-batches, {count} operations"
        + (f", one card for {shared} stages" if shared else "")
        + f"; build {build_s:.4f} s, flatten {flatten_s:.4f} s",
        "",
        "| engine | CPU s | operations/s |",
        "|---|---|---|",
    ]
    for name, work in runs.items():
        seconds, result = cpu_s(work, repeats)
        if result != expected:
            raise SystemExit(f"{name} gives other times")
        lines.append(f"| {name} | {seconds:.5f} | {count / seconds:,.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Read the arguments and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("stages", type=int)
    parser.add_argument("micro_batches", type=int)
    parser.add_argument("--shared", type=int, default=0, metavar="K", help="stages that share a card")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--largest-simpy", type=int, default=200_000, help="operations above which simpy rests"
    )
    args = parser.parse_args()
    print(f"Python {platform.python_version()}, {platform.machine()}\n")
    print(report(args.stages, args.micro_batches, args.shared, args.repeats, args.largest_simpy))


if __name__ == "__main__":
    main()
