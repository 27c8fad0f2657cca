"""Tensor and sequence parallelism: the numbers of one process, and the traffic that is predicted."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import pytest

pytest.importorskip("torch")

import torch
from divided_layers import GPT2, LATENT, LLAMA, check, plan_of

from traincast.executor.calibrate.alone import Division, divided
from traincast.executor.model.workload import Workload
from traincast.executor.parallel import tensor
from traincast.executor.parallel.surroundings import Surroundings
from traincast.sim.model.decoder import Decoder
from traincast.sim.plan.rank_parameters import held_parameters

DECODERS = {"gpt2": GPT2, "llama": LLAMA, "latent": LATENT}


@pytest.mark.slow
@pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS)
@pytest.mark.parametrize("tp", [2, 4])
@pytest.mark.parametrize("sequence", [False, True], ids=["tp", "sp"])
def test_agrees_with_one_process_and_with_the_simulator(decoder: Decoder, tp: int, sequence: bool):
    """Loss, gradients and parameters, and every collective of either pass; what is whole is so everywhere."""
    found = check(plan_of(decoder, tp=tp, sequence_parallel=sequence))
    plan = plan_of(decoder, tp=tp)
    expected = sum(held_parameters(layer, plan.strategy) for layer in plan.job.model.layers)
    held = [sum(p.numel() for p in one.parameters.values()) for one in found]
    assert max(held) == expected if decoder.vocab % tp == 0 else min(held) <= expected <= max(held)
    assert [sequence] * tp == [any("mlp_norm" in name for name in one.partial) for one in found]


@pytest.mark.slow
@pytest.mark.parametrize("sequence", [False, True], ids=["tp", "sp"])
def test_backward_in_halves_sends_everything_once(sequence: bool):
    check(plan_of(LLAMA, tp=2, sequence_parallel=sequence), halves=True)


@pytest.mark.slow
@pytest.mark.parametrize("recompute", ["selective", "full"])
@pytest.mark.parametrize("sequence", [False, True], ids=["tp", "sp"])
def test_what_is_computed_again_is_sent_again(recompute: str, sequence: bool):
    """As the simulator says of each policy, with the same numbers."""
    check(plan_of(LLAMA, tp=2, sequence_parallel=sequence, recompute=recompute))


@pytest.mark.slow
@pytest.mark.parametrize("decoder", [GPT2, LLAMA], ids=["gpt2", "llama"])
@pytest.mark.parametrize("sequence", [False, True], ids=["tp", "sp"])
def test_half_precision_is_exchanged_as_it_is_computed_with(decoder: Decoder, sequence: bool):
    """Two bytes a value, but four of the residual stream and the loss."""
    check(plan_of(decoder, tp=2, sequence_parallel=sequence, precision="bf16"))


def test_whole_matrices_go_when_they_are_cut():
    """Of a lone rank's layers: nothing holds them any more."""
    job = plan_of(LLAMA, tp=2).job
    workload = Workload(job=job)
    layers = workload.layers(range(LLAMA.layers + 2))
    wholes = [weakref.ref(p) for p in layers.parameters() if p.dim() == 2]
    part = divided(layers, workload, Division(tp=2), torch.device("cpu"))
    gc.collect()
    assert wholes
    assert [whole() for whole in wholes] == [None] * len(wholes)
    assert sum(p.dim() == 2 for p in part.layers.parameters()) == len(wholes)


@pytest.mark.slow
def test_what_is_computed_again_by_operations_is_sent_again():
    check(plan_of(GPT2, tp=2, recompute="selective_op"))


def test_refusals_name_what_is_missing():
    cpu = Surroundings(kind="cpu")
    assert tensor.refusals(plan_of(LLAMA, tp=2, sequence_parallel=True), cpu) == []
    overlapped = plan_of(LLAMA, tp=2, sequence_parallel=True, overlap_tensor=True)
    (why,) = tensor.refusals(overlapped, cpu)
    assert "gloo" in why
    (why,) = tensor.refusals(overlapped, Surroundings(kind="gpu"))
    assert "gloo" not in why
    few = plan_of(replace(LLAMA, vocab=3), tp=4)
    assert tensor.refusals(few, cpu) == ["tp 4 (the vocabulary has 3 rows, not one for every rank)"]
