"""How far off predictions are for plans that run here: python benchmarks/executed_plans.py -o FILE.md

Every family of strategies of two or three models, on the processes that the machine has cores for and twice
as many. Predicted from calibration alone, in turns with the runs, for the speed that the speed probe says
the processor had meanwhile; with --load N beside N busy processes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

from traincast.lab.families import spread, ways
from traincast.lab.trial import Tried, Turns, quantile, take_turns
from traincast.sim.plan.family import family
from traincast.sim.plan.job import Job
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.plan import Plan
from traincast.sim.trace.load import load_of, probe_ratio

MODELS = {"tiny-llama-bytes": 19, "tiny-moe-bytes": 4, "tiny-gpt2-bytes": 19}
"""How many plans of each."""
BUSY = "while True: pass"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append", help="MODEL[:PLANS]; default: a list of its own")
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--global-batch", type=int, default=16)
    parser.add_argument("--seq-len", type=int, default=128)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", default="", help="families with this in their names")
    parser.add_argument("--load", type=int, default=0, help="busy processes next to the runs")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    chosen = dict(_asked(text) for text in options.model) if options.model else MODELS
    began, sections, everything = time.monotonic(), [], []
    for model, most in chosen.items():
        plans = plans_of(model, most, options)
        found = take_turns(
            plans,
            rounds=options.rounds,
            steps=options.steps,
            announce=_say,
            alongside=lambda: busy(options.load),
        )
        everything += found.tried
        sections.append(section(model, found))
        _say(sections[-1])
    text = "\n\n".join([head(options, everything, time.monotonic() - began), *sections]) + "\n"
    if options.output:
        options.output.write_text(text)
        rows = [row(one) for one in everything]
        options.output.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
    sys.stdout.write(text)
    return 0


def plans_of(model: str, most: int, options: argparse.Namespace) -> list[Plan]:
    """Plans of as many families as there are, those of two ranks first."""
    from traincast.executor.run.environment import check_environment
    from traincast.sim.errors import EnvironmentMismatchError

    job = Job(model, global_batch=options.global_batch, seq_len=options.seq_len, precision="fp32")
    found = []
    for strategy in sorted(ways(job, options.ranks), key=lambda s: (s.world_size, abs(s.micro_batch - 4))):
        if options.only not in family(strategy):
            continue
        plan = make_plan(job, strategy)
        try:
            check_environment(plan)
        except EnvironmentMismatchError:
            continue
        found.append(strategy)
    return [make_plan(job, strategy) for strategy in spread(found, most)]


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Run ``count`` processes that do nothing but take processor time."""
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]  # noqa: S603
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def head(options: argparse.Namespace, tried: list[Tried], seconds: float) -> str:
    """The figures over all."""
    errors = [abs(one.error_pct) for one in tried]
    untold = [abs(one.untold_error_pct) for one in tried]
    others = [load.others for one in tried if (load := load_of(one.measured))]
    memory = [abs(one.memory_error_pct) for one in tried]
    families = {one.family for one in tried}
    return "\n".join(
        [
            f"# Plans run for real, {date.today().isoformat()}",
            "",
            f"`python benchmarks/executed_plans.py {_asked_for(options)}`: {platform.machine()}, "
            f"{len(os.sched_getaffinity(0))} cores, {options.load} busy processes beside, which with"
            f" all other programs took {quantile(others, 0.5):.2f} cores in the median; {seconds:.0f} s.",
            "",
            f"- {len(tried)} plans of {len(families)} families",
            f"- step time: {quantile(errors, 0.5):.1f} % in the median, {quantile(errors, 0.9):.1f} % at the "
            f"90th percentile, {max(errors):.1f} % at worst; of predictions that are not told how fast the"
            f" processor was and what others took of it, {quantile(untold, 0.5):.1f} %, "
            f"{quantile(untold, 0.9):.1f} % and {max(untold):.1f} %",
            f"- peak memory of the fullest rank: {quantile(memory, 0.5):.1f} % in the median, "
            f"{quantile(memory, 0.9):.1f} % at the 90th percentile, {max(memory):.1f} % at worst",
        ]
    )


def section(model: str, found: Turns) -> str:
    """A table of one model's plans, in order of measured time."""
    lines = [
        f"## {model}",
        "",
        f"At one speed of the machine the plan predicted fastest is {found.regret_pct:.1f} % slower than the"
        " fastest.",
        "",
        "| plan | family | speed | predicted ms | measured ms | error | MiB predicted | measured | error |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for one in sorted(found.tried, key=lambda one: one.measured.step_time_s):
        r = row(one)
        lines.append(
            f"| {r['plan']} | {r['family']} | {r['speed']:.2f} | {r['predicted_ms']:.1f} | "
            f"{r['measured_ms']:.1f} | {r['error_pct']:+.1f} % | "
            f"{r['predicted_mib']:.0f} | {r['measured_mib']:.0f} | {r['memory_error_pct']:+.1f} % |"
        )
    lines += [f"\n{label} did not run: {why}" for label, why in found.failed.items()]
    return "\n".join(lines)


def row(one: Tried) -> dict[str, object]:
    """Plain values."""
    predicted, measured = (max(t.peak_memory_bytes.values()) for t in (one.predicted, one.measured))
    return {
        "model": one.plan.job.model.name,
        "plan": one.plan.strategy.label,
        "family": one.family,
        "speed": 1.0 / probe_ratio(one.predicted, one.measured),
        "predicted_ms": 1e3 * one.expected.step_time_s,
        "measured_ms": 1e3 * one.measured.step_time_s,
        "error_pct": one.error_pct,
        "untold_error_pct": one.untold_error_pct,
        "predicted_mib": predicted / 2**20,
        "measured_mib": measured / 2**20,
        "memory_error_pct": one.memory_error_pct,
        "load": one.measured.metadata.get("load"),
    }


def _asked_for(options: argparse.Namespace) -> str:
    """The command's arguments, but for where the record goes."""
    given = sys.argv[1:]
    kept = [text for text in given if text not in ("-o", "--output", str(options.output))]
    return " ".join(kept)


def _asked(text: str) -> tuple[str, int]:
    model, _, count = text.partition(":")
    return model, int(count or 20)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
