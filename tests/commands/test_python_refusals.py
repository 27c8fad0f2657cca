"""What cannot be asked of a function is refused by our own errors, as on the command line."""

from __future__ import annotations

import math
from typing import Any

import pytest

import traincast
from traincast.sim.errors import InputError, UsageError

tc: Any = traincast
"""Without its types, which forbid what is tried here."""

JOB = {"global_batch": 32, "seq_len": 4096}
ON = ("llama3-8b", "hgx-h100")
GOODPUT = {"step_time": "10 s", "days": 1.0, "samples": 4}


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda: tc.cluster(3), "cluster of type int: expected a Cluster, a preset or a path"),
        (lambda: tc.cluster("hgx-h100", nodes=1.5), "--nodes 1.5: expected a whole number, at least 1"),
        (lambda: tc.cluster("hgx-h100", nodes="2"), "--nodes '2': expected a whole number"),
        (lambda: tc.cluster("hgx-h100", nodes=True), "--nodes True: expected a whole number"),
        (lambda: tc.accelerator(3), "accelerator of type int: expected an Accelerator"),
        (lambda: tc.model(None), "model of type NoneType: expected a Model, a preset or a path"),
        (lambda: tc.make_plan("llama3-8b", seq_len=4096), "a model needs --global-batch"),
        (lambda: tc.make_plan(tc.Job("llama3-8b", **JOB), global_batch=8), "a Job says its own global_batch"),
        (
            lambda: tc.make_plan(tc.Job("llama3-8b", **JOB), "tp2"),
            "strategy of type str: expected a Strategy",
        ),
        (
            lambda: tc.simulate(*ON, tp=8, samples=-1, **JOB),
            "samples -1: expected a whole number, from 0 to 100,000",
        ),
        (lambda: tc.simulate(*ON, tp=8, samples=1.5, **JOB), "samples 1.5: expected a whole number"),
        (lambda: tc.predict(*ON, tp=8, seed=-1, **JOB), "seed -1: expected a whole number, at least 0"),
        (lambda: tc.predict(*ON, tp=8, seed="x", **JOB), "seed 'x': expected a whole number"),
        (lambda: tc.predict(*ON, tp=8, jitter=-1, **JOB), "jitter -1: expected a number of 0 to 10"),
        (lambda: tc.simulate(*ON, tp=8, jitter=math.nan, **JOB), "jitter nan: expected a number of 0 to 10"),
        (lambda: tc.predict(*ON, tp=8, jitter=1e300, **JOB), "jitter 1e+300: expected a number of 0 to 10"),
        (lambda: tc.predict(*ON, tp=8, jitter="0.1", **JOB), "jitter '0.1': expected a number of 0 to 10"),
        (lambda: tc.plan(*ON, top=0, **JOB), "top 0: expected a whole number, at least 1"),
        (lambda: tc.plan(*ON, samples=-1, **JOB), "samples -1: expected a whole number, from 0 to 100,000"),
        (lambda: tc.plan(*ON, [3], **JOB), "strategy of type int: expected a Strategy"),
        (lambda: tc.collective("all_reduce", "hgx-h100", ranks=1.5), "ranks 1.5: expected a whole number"),
        (
            lambda: tc.collective("all_reduce", "hgx-h100", ranks=[2, "3"]),
            "ranks '3': expected a whole number",
        ),
        (lambda: tc.collective("all_reduce", "hgx-h100", ranks=[]), "0 ranks: expected 2 or more"),
        (lambda: tc.collective("all_reduce", "hgx-h100", sizes=None), "sizes []: expected bytes above 0"),
        (lambda: tc.schedules(ranks="2", micro_batches=2), "ranks '2': expected a whole number, at least 1"),
        (lambda: tc.schedules(ranks=2, micro_batches=2.5), "micro_batches 2.5: expected a whole number"),
        (lambda: tc.schedules(ranks=2, micro_batches=2, virtual_stages=0), "virtual_stages 0: expected"),
        (
            lambda: tc.schedules(ranks=2, micro_batches=2, kept_share=7),
            "kept_share 7: expected a number of 0",
        ),
        (lambda: tc.goodput("hgx-h100", **{**GOODPUT, "samples": 0}), "samples 0: expected a whole number"),
        (lambda: tc.goodput("hgx-h100", **{**GOODPUT, "days": "5"}), "days '5': expected a number"),
        (lambda: tc.goodput("hgx-h100", steps=0, **GOODPUT), "steps 0: expected a whole number, at least 1"),
        (
            lambda: tc.goodput("hgx-h100", spare_nodes=-1, **GOODPUT),
            "spare_nodes -1: expected a whole number",
        ),
        (lambda: tc.validate("korthikanti_recompute", samples=0), "samples 0: expected a whole number"),
        (lambda: tc.converge(workers="4"), "workers '4': expected a whole number"),
        (lambda: tc.converge(rate="x"), "rate 'x': expected a number"),
    ],
)
def test_a_value_that_cannot_be_is_refused(call, what):
    with pytest.raises(tc.UsageError) as refused:
        call()
    assert what in str(refused.value)


@pytest.mark.parametrize(
    ("call", "faults"),
    [
        (
            lambda: tc.Job("llama3-8b", global_batch="32", seq_len=4096.0, precision=3, dropout="no"),
            [
                "job.global_batch: '32' -> expected a whole number",
                "job.seq_len: 4096.0 -> expected a whole number",
                "job.precision: 3 -> expected a text",
                "job.dropout: 'no' -> expected True or False",
            ],
        ),
        (
            lambda: tc.make_plan(
                "llama3-8b", dp="2", tp=True, micro_batch=2.0, overlap_gradients="no", **JOB
            ),
            [
                "strategy.dp: '2' -> expected a whole number",
                "strategy.tp: True -> expected a whole number",
                "strategy.micro_batch: 2.0 -> expected a whole number",
                "strategy.overlap_gradients: 'no' -> expected True or False",
            ],
        ),
        (
            lambda: tc.simulate(*ON, tc.Strategy(synchrony=3, stage_layers=(16, "16")), **JOB),
            [
                "strategy.stage_layers: (16, '16') -> expected a tuple of whole numbers",
                "strategy.synchrony: 3 -> expected a text",
            ],
        ),
        (
            lambda: tc.make_plan("llama3-8b", learning_rate=-1.0, **JOB),
            ["job.learning_rate: -1.0 -> expected 0 or more, finite"],
        ),
    ],
)
def test_fields_of_wrong_types_are_all_told(call, faults):
    with pytest.raises(InputError) as refused:
        call()
    for fault in faults:
        assert fault in str(refused.value)


def test_whole_numbers_of_numpy_and_one_strategy_are_taken():
    numpy = pytest.importorskip("numpy")
    cluster = tc.cluster("hgx-h100", nodes=numpy.int64(1))
    found = tc.plan("llama3-8b", cluster, tc.Strategy(tp=numpy.int64(8)), top=1, samples=0, **JOB)
    assert found.best.plan.strategy.tp == 8


@pytest.mark.parametrize("samples", [-1, 10**9])
def test_samples_have_bounds(samples: int):
    with pytest.raises(UsageError, match=r"samples .*from 0 to 100,000"):
        traincast.simulate("llama3-8b", "hgx-h100", tp=8, global_batch=8, seq_len=4096, samples=samples)
