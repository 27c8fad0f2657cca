"""The digits' gradients are those of the loss, and a protocol can learn from them."""

from __future__ import annotations

import numpy as np
import pytest

from traincast.sim.convergence.digits import read_digits

pytest.importorskip("sklearn")


def test_the_gradient_is_the_slope_of_the_loss():
    """Over all pictures, against central differences."""
    digits = read_digits(hidden=4, batch=64)
    chosen = digits.chosen(0, 0)
    one = type(digits)(pictures=digits.pictures[chosen], classes=digits.classes[chosen], hidden=4)
    parameters = one.initial()
    got = digits.gradient(parameters, 0, 0)
    for place in range(0, len(parameters), 37):
        shift = np.zeros_like(parameters)
        shift[place] = 1e-5
        slope = (one.loss(parameters + shift) - one.loss(parameters - shift)) / 2e-5
        assert got[place] == pytest.approx(slope, abs=1e-7)


def test_a_thousand_steps_learn_the_digits():
    digits = read_digits()
    parameters = digits.initial()
    assert digits.loss(parameters) == pytest.approx(np.log(10), rel=0.2)
    for number in range(1000):
        parameters = parameters - 0.5 * digits.gradient(parameters, 0, number)
    assert digits.loss(parameters) < 0.1


def test_batches_differ_by_worker_and_number_and_repeat():
    digits = read_digits(seed=3)
    assert np.array_equal(digits.chosen(1, 2), digits.chosen(1, 2))
    assert not np.array_equal(digits.chosen(1, 2), digits.chosen(2, 2))
    assert not np.array_equal(digits.chosen(1, 2), digits.chosen(1, 3))
