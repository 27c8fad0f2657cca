"""Training carried through virtual time: real gradients, applied in the simulated order of updates.

Each update applies the gradient computed at the parameters that its worker read at its simulated moment, so
a protocol's loss against seconds is predicted, not only its speed. Parameters are one vector; with several
shards it is cut into equal parts, each with its own order of updates.

Who does not wait for all gradients applies each at 1/workers of the rate, so that as many updates as there
are workers move the parameters as far as one synchronous step would (Dean et al. 2012, section 4.1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np

from ..updates.model import UpdateModel
from ..updates.record import UpdateRecord


class Problem(Protocol):
    """Something to be learned by gradient descent."""

    def initial(self) -> np.ndarray:
        """The first parameters, float64[p]."""
        ...

    def gradient(self, parameters: np.ndarray, worker: int, number: int) -> np.ndarray:
        """The gradient of the ``number``-th batch of ``worker``, float64[p]; always the same."""
        ...

    def loss(self, parameters: np.ndarray) -> float:
        """What is to become small."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Loss against seconds of one protocol."""

    synchrony: str
    times_s: tuple[float, ...]
    losses: tuple[float, ...]
    staleness: tuple[int, ...]
    """Of every gradient applied."""

    @property
    def mean_staleness(self) -> float:
        return sum(self.staleness) / len(self.staleness) if self.staleness else 0.0

    def time_to(self, target: float) -> float | None:
        """When the loss first falls to ``target``, linear between points; None if it never does."""
        for place, loss in enumerate(self.losses):
            if loss <= target:
                return self._crossing(place, target) if place else self.times_s[0]
        return None

    def _crossing(self, place: int, target: float) -> float:
        before, after = self.losses[place - 1], self.losses[place]
        start, end = self.times_s[place - 1], self.times_s[place]
        return start + (end - start) * (before - target) / (before - after)


def carry(
    problem: Problem, model: UpdateModel, record: UpdateRecord, *, rate: float, until_s: float = math.inf
) -> Curve:
    """Train ``problem`` through the updates of ``record``, up to when the first worker has none left.

    ``rate`` is the learning rate of a step over all workers; ``until_s`` may end it earlier. The loss is
    taken after every round of updates: as many as there are workers, or one joint one.
    """
    run = _Run(problem, model, record, rate, until_s)
    between = (1 if model.joint else model.workers) * model.shards
    times, losses = [0.0], [problem.loss(run.parameters)]
    for count, moment in enumerate(run.updates(), start=1):
        if count % between == 0:
            times.append(moment)
            losses.append(problem.loss(run.parameters))
    stale = record.staleness[: run.applied]
    return Curve(
        synchrony=model.synchrony,
        times_s=tuple(times),
        losses=tuple(losses),
        staleness=tuple(stale.tolist()),
    )


class _Run:
    """The parameters after every update of every shard, as far as updates need them."""

    def __init__(
        self, problem: Problem, model: UpdateModel, record: UpdateRecord, rate: float, until_s: float
    ):
        self.until_s = until_s
        self.problem, self.model, self.record = problem, model, record
        self.rate = rate if model.joint else rate / model.workers
        self.parameters = np.array(problem.initial(), dtype=np.float64)
        cuts = np.linspace(0, len(self.parameters), model.shards + 1).astype(int)
        self.parts = [slice(first, end) for first, end in pairwise(cuts)]
        self.history: list[list[np.ndarray]] = [[self.parameters[part].copy()] for part in self.parts]
        """By shard and version."""
        self.moves: dict[tuple[int, int], np.ndarray] = {}
        """By worker and round: how far its gradients move the parameters, until each shard has it."""
        self.owed: dict[tuple[int, int], int] = {}
        self.applied = 0
        """Gradients applied on the first shard."""

    def updates(self):
        """Apply all updates in order; yields the moment of each, seconds."""
        for moment, shard, members in self._order():
            part = self.parts[shard]
            own = [self._move(worker, turn)[part] for worker, turn in members]
            self.parameters[part] += sum(own) / len(own)
            self.history[shard].append(self.parameters[part].copy())
            self.applied += len(own) if shard == 0 else 0
            yield moment

    def _order(self) -> list[tuple[float, int, list[tuple[int, int]]]]:
        """(seconds, shard, gradients of the update as (worker, round)), up to when somebody runs out."""
        place, applied = self.record.place, self.record.applied_s
        found: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for worker, turn, shard in np.argwhere(place >= 0).tolist():
            found.setdefault((shard, int(place[worker, turn, shard])), []).append((worker, turn))
        until = self.until_s if self.model.joint else min(self.until_s, applied.max(axis=2)[:, -1].min())
        order = [
            (float(applied[members[0]][shard]), shard, number, members)
            for (shard, number), members in found.items()
        ]
        return [(moment, shard, members) for moment, shard, _, members in sorted(order) if moment <= until]

    def _move(self, worker: int, turn: int) -> np.ndarray:
        """What a worker's round adds to the parameters, from those that it read."""
        key = (worker, turn)
        if key not in self.moves:
            versions = self.record.version[worker, turn]
            read = np.concatenate([self.history[s][v] for s, v in enumerate(versions)])
            self.moves[key] = self._stepped(read, worker, turn) - read
            self.owed[key] = self.model.shards
        move = self.moves[key]
        self.owed[key] -= 1
        if not self.owed[key]:
            del self.moves[key], self.owed[key]
        return move

    def _stepped(self, parameters: np.ndarray, worker: int, turn: int) -> np.ndarray:
        steps = self.model.local_steps
        for number in range(turn * steps, (turn + 1) * steps):
            parameters = parameters - self.rate * self.problem.gradient(parameters, worker, number)
        return parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class Quadratic:
    """½ Σ λ x²: gradients λ x with normal noise, and known answers.

    Under a staleness of s that never changes, expected parameters follow x' = x - η λ x_s, where x_s are
    those s updates ago: closed form by the roots of z^(s+1) = z^s - η λ.
    """

    curvature: Sequence[float]
    start: Sequence[float]
    noise: float = 0.0
    """Standard deviation of each component of a gradient."""
    seed: int = 0

    def initial(self) -> np.ndarray:
        return np.array(self.start, dtype=np.float64)

    def gradient(self, parameters: np.ndarray, worker: int, number: int) -> np.ndarray:
        exact = np.asarray(self.curvature) * parameters
        if not self.noise:
            return exact
        random = np.random.default_rng([self.seed, worker, number])
        return exact + self.noise * random.standard_normal(len(exact))

    def loss(self, parameters: np.ndarray) -> float:
        return float(0.5 * np.sum(np.asarray(self.curvature) * parameters**2))
