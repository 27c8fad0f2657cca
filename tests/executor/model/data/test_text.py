"""Batches of text depend on seed and step alone, and replicas share them out."""

from __future__ import annotations

import pytest

from traincast.sim.plan.job import Job

torch = pytest.importorskip("torch")

from traincast.executor.model.data.text import Text, corpus  # noqa: E402

JOB = Job("tiny-llama-bytes", global_batch=8, seq_len=16, precision="fp32")


def test_targets_are_the_tokens_after_the_inputs():
    inputs, targets = Text(JOB, 0).batch(3)
    assert inputs.shape == targets.shape == (8, 16)
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    assert all(bytes(row.tolist()) in corpus() for row in inputs)


def test_replicas_share_a_batch_out_in_order():
    text = Text(JOB, 5)
    parts = [part for replica in range(2) for part in text.micro_batches(1, replica, 2, 2)]
    assert [len(x) for x, _ in parts] == [2, 2, 2, 2]
    whole = text.batch(1)
    assert torch.equal(torch.cat([x for x, _ in parts]), whole[0])
    assert torch.equal(torch.cat([y for _, y in parts]), whole[1])


def test_batches_depend_on_seed_and_step():
    first = Text(JOB, 0).batch(0)[0]
    assert torch.equal(first, Text(JOB, 0).batch(0)[0])
    assert not torch.equal(first, Text(JOB, 1).batch(0)[0])
    assert not torch.equal(first, Text(JOB, 0).batch(1)[0])
