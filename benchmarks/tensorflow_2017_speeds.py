"""The two speeds of the stack `tensorflow-2017`, fitted on a grid, and what they miss of networks that they
were not fitted on.

    python benchmarks/tensorflow_2017_speeds.py
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np

from traincast.sim.plan import software_stacks as stacks
from traincast.sim.published.derivations import step_s
from traincast.sim.published.prediction import Predictor
from traincast.sim.published.table import Row, read_table
from traincast.sim.published.validation import judge

CONVOLUTIONS = (0.68, 0.72, 0.74, 0.76, 0.78, 0.8, 0.84, 0.88)
NORMS = (0.28, 0.3, 0.32, 0.34, 0.38, 0.45)
NAME = "tensorflow-2017"
Errors = list[tuple[str, float]]
"""Network, and signed error in percent."""


def main() -> None:
    found = {speeds: errors(*speeds) for speeds in product(CONVOLUTIONS, NORMS)}
    best = min(found, key=lambda speeds: mean(found[speeds]))
    print(f"all rows: convolution_speed {best[0]}, norm_speed {best[1]}: {mean(found[best]):.2f} %")
    left_out: Errors = []
    for name in sorted({name for name, _ in found[best]}):
        others = min(found, key=lambda speeds: mean([e for e in found[speeds] if e[0] != name]))
        own = [e for e in found[others] if e[0] == name]
        left_out += own
        bias = np.mean([error for _, error in own])
        print(f"without {name}: {others}, {len(own)} rows, {mean(own):.1f} %, bias {bias:+.1f} %")
    print(f"each left out in turn: {mean(left_out):.2f} %")


def mean(own: Errors) -> float:
    return float(np.mean([abs(error) for _, error in own]))


def errors(convolution_speed: float, norm_speed: float) -> Errors:
    """Of every row, under a stack with these speeds."""
    speeds = {"convolution_speed": convolution_speed, "norm_speed": norm_speed}
    kept = stacks.STACKS[NAME]
    stacks.STACKS[NAME] = replace(kept, **speeds)  # type: ignore[index]
    try:
        return [
            (rows[0].get("model"), error)
            for rows in alike(read_table("tf_benchmarks_2017"))
            for error in _errors(rows)
        ]
    finally:
        stacks.STACKS[NAME] = kept  # type: ignore[index]


def alike(rows: list[Row]) -> list[list[Row]]:
    """Rows that are predicted alike: synthetic and real input."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        named = ("model", "accelerator", "gpus", "micro_batch", "variable_update")
        groups.setdefault(tuple(row.get(name) for name in named), []).append(row)
    return list(groups.values())


def _errors(rows: list[Row]) -> list[float]:
    (judged,) = judge(rows[:1], Predictor(samples=1))
    assert judged.prediction is not None
    measured = [step_s(row) for row in rows]
    return [100 * (judged.prediction.step_s / seconds - 1) for seconds in measured if seconds]


if __name__ == "__main__":
    main()
