"""Update protocols compared by what they are for: loss against seconds, predicted from a few measured times.

One server, workers of known speed. A worker's gradients take times drawn from those it was seen to take.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..updates.engine import run_updates
from ..updates.model import UpdateModel
from .virtual_training import Curve, Problem, carry

CLEAR = 0.10
"""Times to the target that differ by less are no order: about what two runs of one protocol differ by."""

NOMINAL_MESSAGE_S = 4e-4
"""A message of 20 kB between two processes over gloo on loopback, with torch 2.13 on two virtual cores."""

NOMINAL_SEND_S = 1e-4
"""What of it holds up its sender."""

NOMINAL_APPLY_S = 2e-4
"""One update of 2,410 parameters in torch there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """What workers, messages and the server take, in seconds."""

    compute_s: Sequence[Sequence[float]]
    """By worker: gradients, as measured; one is drawn for each that is played."""
    message_s: float = NOMINAL_MESSAGE_S
    send_s: float = NOMINAL_SEND_S
    apply_s: float = NOMINAL_APPLY_S


def forecast(
    problem: Problem, synchrony: str, timing: Timing, *, horizon_s: float, rate: float, seed: int
) -> Curve:
    """The loss of ``problem`` under one protocol for ``horizon_s`` seconds. The same seed, the same curve.

    Raises:
        InputError: ``synchrony`` is none that these workers can have.
    """
    model = _model(synchrony, timing, horizon_s, seed)
    return carry(problem, model, run_updates(model), rate=rate, until_s=horizon_s)


def _model(synchrony: str, timing: Timing, horizon_s: float, seed: int) -> UpdateModel:
    fastest = min(float(np.mean(own)) for own in timing.compute_s)
    wanted = math.ceil(1.2 * horizon_s / fastest) + 1
    steps = int(synchrony.partition(":")[2] or 1) if synchrony.startswith("local:") else 1
    gradients = max(1, math.ceil(wanted / max(1, steps))) * max(1, steps)
    drawn = [
        np.random.default_rng([seed, worker]).choice(np.asarray(own, dtype=np.float64), gradients)
        for worker, own in enumerate(timing.compute_s)
    ]
    # One unit of size, so that a message holds its sender, and its receiver, for `send_s`.
    rate = 1.0 / max(timing.send_s, 1e-9)
    return UpdateModel(
        synchrony=synchrony,
        compute_s=np.array(drawn),
        shard_bytes=[1.0],
        apply_s=[timing.apply_s],
        bandwidth=[rate] * (len(drawn) + 1),
        latency_s=max(0.0, timing.message_s - timing.send_s),
    )


def order_agrees(
    predicted: Mapping[str, float | None], measured: Mapping[str, float | None], *, clear: float = CLEAR
) -> bool:
    """Whether all protocols whose predicted times to a target differ by more than the fraction ``clear`` come
    in that order measured.

    A protocol that never came to the target is slower than any that did.
    """
    first, second = (
        {name: math.inf if at is None else at for name, at in times.items()}
        for times in (predicted, measured)
    )
    return all(
        second[a] < second[b]
        for a in first
        for b in first
        if b in second and first[a] * (1 + clear) < first[b]
    )
