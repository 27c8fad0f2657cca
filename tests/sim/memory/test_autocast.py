"""What eager torch under autocast keeps, against torch's own allocator on an H200."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from machines import gpu_cluster, llama

import traincast
from traincast.sim.memory.assumptions import assumptions
from traincast.sim.memory.layer_bytes import kept_bytes
from traincast.sim.memory.parameters import rank_states
from traincast.sim.memory.peak import memory
from traincast.sim.plan.job import Job
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.software_stacks import EXECUTOR_STACK
from traincast.sim.plan.strategy import Strategy

BENCHMARKS = Path(traincast.__file__).parent / "benchmarks"
RECORD = json.loads((BENCHMARKS / "results" / "gpu_nvidia-h200_2026-11-27.json").read_text())
CLUSTER = gpu_cluster(nodes=1, per_node=1)


@pytest.fixture(scope="module")
def cases():
    """(case, measured peak in bytes) of the record."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        from gpu_cases import Case
    finally:
        sys.path.remove(str(BENCHMARKS))
    return [(Case.of(step), step["memory"]["peak_allocated"]) for step in RECORD["steps"]]


def test_peaks_are_those_of_the_allocator(cases):
    """43 runs of seven models: every micro-batch, sequence, recomputation, precision and accumulation."""
    assert len(cases) == 43
    errors = {
        case.name: memory(make_plan(case.job(), case.strategy()), CLUSTER)[0].allocated_bytes / measured - 1
        for case, measured in cases
    }
    assert {name: error for name, error in errors.items() if abs(error) > 0.05} == {}
    assert sorted(map(abs, errors.values()))[len(errors) // 2] < 0.01


def test_assumptions_are_those_of_eager_torch():
    said = " ".join(assumptions(*one()))
    assert "4 + 4 + 8 bytes per parameter: fp32 weight" in said
    assert "those that torch saves of eager layers" in said
    assert "Korthikanti" not in said


def one(**changes) -> tuple[Job, Strategy]:
    precision = changes.pop("precision", "bf16")
    job = Job(model=llama(), global_batch=4, seq_len=128, precision=precision)
    return job, Strategy(micro_batch=2, stack=EXECUTOR_STACK, **changes)


def test_a_block_keeps_its_saved_tensors_each_once():
    """Stream and its cast before both norms; queries, keys and values, the turned ones, the output twice, a
    log-sum a head; gate, up, silu and their product; and the weights that were cast."""
    job, strategy = one()
    d = job.model.decoder
    each = 2 * (4 + 2) * d.hidden + 2 * 8
    each += 2 * (d.q_size + 2 * d.kv_size) + 2 * (d.q_size + d.kv_size) + 2 * 2 * d.q_size + 4 * d.heads
    each += 2 * 4 * d.ffn
    weights = 2 * (d.attention_parameters + d.mlp_parameters)
    assert kept_bytes(job, strategy, "block") == pytest.approx(2 * 128 * each + weights)


def test_recomputed_blocks_keep_their_input_in_fp32():
    job, strategy = one(recompute="full")
    assert kept_bytes(job, strategy, "block") == 2 * 128 * job.model.decoder.hidden * 4


def test_gradients_stand_at_the_peak_only_where_earlier_micro_batches_left_them():
    """fp32 weights and two states; a fourth copy with accumulation."""
    job, strategy = one()
    parameters = job.model.parameters
    several = memory(make_plan(job, strategy), CLUSTER)[0]
    assert several.weights_bytes + several.optimizer_bytes == 12 * parameters
    assert several.gradients_bytes == 4 * parameters
    single = Job(model=job.model, global_batch=2, seq_len=128, precision="bf16")
    assert memory(make_plan(single, strategy), CLUSTER)[0].gradients_bytes == 0


def test_fp8_keeps_what_was_cast_and_the_weights_copies_for_a_step():
    """A byte for what GEMMs read, bf16 for the rest; no casts of weights, but two copies a step."""
    (bf16, strategy), (fp8, _) = one(), one(precision="fp8")
    d = bf16.model.decoder
    parameters = d.attention_parameters + d.mlp_parameters
    each = 2 * d.hidden + d.o_size + d.ffn
    saved = 2 * 128 * each + 2 * parameters
    assert kept_bytes(bf16, strategy, "block") - kept_bytes(fp8, strategy, "block") == pytest.approx(saved)
    weights = [rank_states(make_plan(job, strategy), 0).weights for job in (bf16, fp8)]
    assert weights[1] - weights[0] == pytest.approx(2 * d.layers * parameters)


def test_dropout_keeps_its_masks():
    job, strategy = one()
    dropped = replace(job, dropout=True)
    for kind, masks in (("embedding", 1), ("block", 2), ("head", 0)):
        more = kept_bytes(dropped, strategy, kind) - kept_bytes(job, strategy, kind)
        assert more == 2 * 128 * masks * job.model.decoder.hidden


def test_an_offloaded_optimizer_is_not_on_the_device():
    job, strategy = one()
    here, away = (
        rank_states(make_plan(job, replace(strategy, offload=offload)), 0)
        for offload in ("none", "optimizer")
    )
    assert here.optimizer == 8 * job.model.parameters
    assert away.optimizer == 0.0
    assert away.weights == here.weights
