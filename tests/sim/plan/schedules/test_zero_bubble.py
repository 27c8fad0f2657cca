"""Zero Bubble Pipeline Parallelism (Qi et al., ICLR 2024): its tables from its profiled times.

Table 5 is the authors' cost model and is met to the rounding, interleaved 1F1B within 0.4 points. Table 4
is measured. The profile (Table 6, taken under ZB-2p) leaves out 7 to 10 % of what a micro-batch then takes
in every model, ZB-2p itself included, so steps made of profiled passes alone come out too short by that.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path
from statistics import mean

import pytest

from traincast.sim.engine.pipeline.pipeline import Timeline, pipeline_timeline
from traincast.sim.plan.pass_times import PassTimes
from traincast.sim.plan.schedules import schedule

NAMES = {
    "1F1B": "1f1b",
    "1F1B-I": "interleaved",
    "ZB-H1": "zb-h1",
    "ZB-H2": "zb-h2",
    "ZB-1p": "zb-1p",
    "ZB-2p": "zb-2p",
}
MEGATRON = ("1F1B", "1F1B-I")
"""Baselines of Megatron-LM; the zero-bubble schedules run on the authors' own runtime."""
SEQ_LEN = 1024


def read_rows() -> list[dict[str, str]]:
    lines = (Path(__file__).parents[3] / "data/zero_bubble.csv").read_text().splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


ROWS = read_rows()
MEASURED = [row for row in ROWS if row["samples_per_gpu_s"]]


def kept_share(row: dict[str, str]) -> float:
    """32sbh of 34sbh + 5abs² bytes of a block stay for the weight gradient (section 2.3, footnote; the
    formula of the whole is Korthikanti et al. 2022, eq. 1)."""
    return 32 / (34 + 5 * int(row["heads"]) * SEQ_LEN / int(row["hidden"]))


def timeline(row: dict[str, str], *, blocking: bool = False) -> Timeline:
    """The row's schedule with its profiled times; interleaved has one layer in each chunk.

    ``blocking`` lets compute wait for every message, so that passes are longer by it: in Megatron-LM's
    1F1B a rank exchanges with its neighbours in one batch after a pass and waits for it. Its interleaved
    schedule can overlap, or not (`--no-overlap-p2p-communication`); the paper does not say which it ran.
    Taken as overlapped it would come out before ZB-1p in blocks where it was measured behind.
    """
    stages = int(row["stages"])
    chunks = (int(row["layers"]) + 2) // stages if row["schedule"] == "1F1B-I" else 1
    forward, first, second, transfer = (float(row[f"t_{key}_ms"]) / 1e3 for key in ("f", "b", "w", "comm"))
    waits = transfer if blocking else 0.0
    times = PassTimes.alike(
        stages * chunks,
        forward_s=forward / chunks + waits,
        input_gradient_s=first / chunks + waits,
        weight_gradient_s=second / chunks,
        transfer_s=transfer - waits,
        kept_share=kept_share(row),
    )
    orders = schedule(NAMES[row["schedule"]], stages, chunks, int(row["micro_batches"]), times)
    return pipeline_timeline(orders, times)


def measured_s(row: dict[str, str]) -> float:
    samples = int(row["micro_batch"]) * int(row["micro_batches"])
    return samples / (int(row["stages"]) * float(row["samples_per_gpu_s"]))


@pytest.fixture(scope="module")
def predicted() -> list[float]:
    """Step time of every row of Table 4."""
    return [timeline(row, blocking=row["schedule"] in MEGATRON).step_time_s for row in MEASURED]


@pytest.mark.parametrize("name", NAMES)
def test_bubble_rates_of_table_5(name):
    """Printed to 0.01 points, which all but interleaved 1F1B meet; that one is within 0.4."""
    rows = [row for row in ROWS if row["schedule"] == name]
    assert len(rows) == 12
    within = 0.004 if name == "1F1B-I" else 0.0001
    for row in rows:
        assert timeline(row).bubble_rate == pytest.approx(float(row["bubble_rate"]), abs=within), row


def test_ranking_of_schedules_in_every_block_of_table_4(predicted):
    """No schedule that was measured faster than another is predicted slower (one pair is measured equal)."""
    blocks = defaultdict(list)
    for row, step in zip(MEASURED, predicted, strict=True):
        blocks[row["model"], row["micro_batches"]].append((measured_s(row), step))
    assert len(blocks) == 12
    for block, steps in blocks.items():
        assert len(steps) == 4
        wrong = [(a, b) for a in steps for b in steps if a[0] < b[0] and a[1] >= b[1]]
        assert not wrong, block


def test_step_times_of_table_4_from_the_profile_alone(predicted):
    """All too short, by 7.1 % in the mean: the profile has not all that a micro-batch takes."""
    errors = [step / measured_s(row) - 1 for row, step in zip(MEASURED, predicted, strict=True)]
    assert len(errors) == 48
    assert all(-0.11 < error < 0 for error in errors)
    assert mean(map(abs, errors)) < 0.075


def test_step_times_of_table_4_scaled_by_the_schedule_that_was_profiled(predicted):
    """One factor, from the ZB-2p rows, brings the 36 others within 3 % in the mean."""
    pairs = list(zip(MEASURED, predicted, strict=True))
    profiled = [step / measured_s(row) for row, step in pairs if row["schedule"] == "ZB-2p"]
    others = [
        step / measured_s(row) / mean(profiled) - 1 for row, step in pairs if row["schedule"] != "ZB-2p"
    ]
    assert (len(profiled), len(others)) == (12, 36)
    assert mean(map(abs, others)) < 0.03
    assert max(map(abs, others)) < 0.07
