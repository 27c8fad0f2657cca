"""Digits are those that scikit-learn loads, in the shape that a network wants."""

from __future__ import annotations

import numpy as np
import pytest

from traincast.sim.plan.job import Job

torch = pytest.importorskip("torch")
datasets = pytest.importorskip("sklearn.datasets")

from traincast.executor.model.data.digits import Digits, load_digits  # noqa: E402

JOB = Job("resnet-digits", global_batch=6, precision="fp32")


def test_pictures_are_those_of_the_library():
    pictures, classes = load_digits()
    wanted = datasets.load_digits()
    assert np.array_equal(pictures[:, 0] * 16, wanted.images)
    assert np.array_equal(classes, wanted.target)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (64,), (256,)])
def test_samples_have_the_shape_asked_for(shape):
    pictures, classes = Digits(JOB, 0, shape).batch(0)
    assert pictures.shape == (6, *shape)
    assert classes.shape == (6,)
    assert classes.dtype == torch.int64
    assert 0 <= pictures.min() < pictures.max() <= 1


def test_batches_depend_on_seed_and_step():
    first = Digits(JOB, 0).batch(0)[0]
    assert torch.equal(first, Digits(JOB, 0).batch(0)[0])
    assert not torch.equal(first, Digits(JOB, 1).batch(0)[0])
    assert not torch.equal(first, Digits(JOB, 0).batch(1)[0])
