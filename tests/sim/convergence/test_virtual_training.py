"""Training in virtual time comes to what is known in closed form, and repeats to the byte."""

from __future__ import annotations

import numpy as np
import pytest

from traincast.sim.convergence.virtual_training import Curve, Quadratic, carry
from traincast.sim.updates.engine import run_updates
from traincast.sim.updates.model import UpdateModel


def workers(synchrony: str, compute_s: np.ndarray, **fields) -> UpdateModel:
    """One server whose updates take a thousandth of a second."""
    shards = len(fields.get("shard_bytes", [0.0]))
    defaults = {"shard_bytes": [0.0], "apply_s": [1e-3] * shards, "bandwidth": [1.0] * (len(compute_s) + 4)}
    return UpdateModel(synchrony=synchrony, compute_s=compute_s, **(defaults | fields))


def curve(problem, model: UpdateModel, rate: float) -> Curve:
    return carry(problem, model, run_updates(model), rate=rate)


def test_synchronous_descent_is_the_closed_form():
    """x_t = (1 - η λ)^t x_0."""
    model = workers("sync", np.ones((3, 10)))
    got = curve(Quadratic(curvature=[2.0], start=[1.0]), model, rate=0.1)
    assert got.losses == pytest.approx([(1 - 0.2) ** (2 * t) for t in range(11)])
    assert got.times_s[1:] == pytest.approx([1.001 * (t + 1) for t in range(10)])


@pytest.mark.parametrize("n", [2, 3, 4])
def test_asynchronous_descent_follows_the_delayed_recursion(n):
    """With n equal workers every gradient is n - 1 updates old, after the first n.

    x_(t+1) = x_t - (η/n) λ x_(t-n+1), whose solution is a sum of powers of the roots of
    z^n = z^(n-1) - η λ / n, fitted to the first n values.
    """
    rounds, rate = 12, 0.4
    model = workers("async", np.ones((n, rounds)))
    got = curve(Quadratic(curvature=[1.0], start=[1.0]), model, rate=rate)
    steps = (len(got.losses) - 1) * n
    roots = np.roots([1.0, -1.0, *[0.0] * (n - 2), rate / n])
    first = [1.0 - rate / n * t for t in range(n)]  # the first n gradients are all of x_0
    powers = np.vander(roots, n, increasing=True).T
    weights = np.linalg.solve(powers, np.array(first, dtype=complex))
    expected = [(weights * roots**t).sum().real for t in range(0, steps + 1, n)]
    assert got.losses == pytest.approx([0.5 * x * x for x in expected], rel=1e-9)
    assert set(got.staleness[n:]) == {n - 1}


def test_noise_of_synchronous_descent_is_averaged_over_workers():
    """In the long run the variance of x is η σ² / (n λ (2 - η λ)), an AR(1) process's."""
    n, rate, sigma = 4, 0.5, 1.0
    model = workers("sync", np.ones((n, 4000)))
    problem = Quadratic(curvature=[1.0], start=[0.0], noise=sigma, seed=1)
    losses = np.array(curve(problem, model, rate).losses[100:])
    assert losses.mean() == pytest.approx(0.5 * rate * sigma**2 / (n * (2 - rate)), rel=0.1)


def test_local_steps_of_one_worker_are_plain_descent():
    """With one worker, H local steps and a push of the average are H steps of descent."""
    problem = Quadratic(curvature=[1.0, 3.0], start=[1.0, -2.0])
    local = curve(problem, workers("local:4", np.ones((1, 12))), rate=0.2)
    plain = curve(problem, workers("sync", np.ones((1, 12))), rate=0.2)
    assert local.losses == pytest.approx(plain.losses[::4])


def test_shards_have_their_own_order_but_one_problem():
    """Synchronous descent does not depend on how the parameters are cut."""
    problem = Quadratic(curvature=[1.0, 2.0, 3.0], start=[1.0, 1.0, 1.0], noise=0.1)
    whole = curve(problem, workers("sync", np.ones((2, 5))), rate=0.1)
    cut = curve(problem, workers("sync", np.ones((2, 5)), shard_bytes=[0.0] * 3, servers=2), rate=0.1)
    assert cut.losses == pytest.approx(whole.losses)


@pytest.mark.parametrize("synchrony", ["sync", "async", "stale:1", "backup:1", "local:3"])
def test_the_same_seed_gives_the_same_bytes(synchrony):
    factors = np.random.default_rng(5).lognormal(0, 0.3, (4, 30))
    problem = Quadratic(curvature=[1.0, 0.2], start=[1.0, 1.0], noise=0.5, seed=7)
    first, second = (curve(problem, workers(synchrony, factors), rate=0.2) for _ in range(2))
    assert first == second
    assert first.losses[-1] < first.losses[0]


def test_time_to_a_target_lies_between_the_points():
    got = Curve(synchrony="sync", times_s=(0.0, 2.0, 4.0), losses=(1.0, 0.5, 0.25), staleness=(0, 0))
    assert got.time_to(0.75) == 1.0
    assert got.time_to(0.5) == 2.0
    assert got.time_to(2.0) == 0.0
    assert got.time_to(0.1) is None


def test_backup_workers_are_faster_and_local_steps_move_further():
    """One worker of four is slowed threefold: what is known of each protocol in theory."""
    compute = np.ones((4, 90))
    compute[1] *= 3
    problem = Quadratic(curvature=[1.0], start=[1.0])
    at = {s: curve(problem, workers(s, compute), 0.1).time_to(0.05) for s in ("sync", "async", "backup:1")}
    assert at["backup:1"] < at["async"] < at["sync"]
    assert at["sync"] / at["backup:1"] == pytest.approx(3.0, rel=0.02)
    # Per 3 s: ten updates of a quarter of the rate against one of the whole
    assert at["sync"] / at["async"] == pytest.approx(2.5, rel=0.1)
