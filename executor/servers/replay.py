"""One process goes through what a run with parameter servers did, in the order that its servers wrote down.

Which gradients an update is made of, and which versions they were computed on, is all that is a matter of
timing in an asynchronous run; with that given, losses and parameters follow. Nothing is exchanged here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from ...sim.plan.plan import Plan
from ..model.optimizer import make_optimizer
from ..model.workload import Workload
from ..train.stage import precision
from .exchange import packed, unpacked
from .holding import Holding, exchanged, together
from .ledger import Member, puts_together


@dataclass(frozen=True, kw_only=True)
class Order:
    """What servers wrote down, by portion."""

    rounds: int
    """Joint updates, or rounds of each worker."""
    reads: list[list[list[int]]]
    """By portion, worker and turn: the version that was read."""
    updates: list[list[list[Member]]]
    """By portion and version, from the first on: the gradients that made it."""

    @classmethod
    def of(cls, portions: Mapping[str, Mapping[str, Any]]) -> Order:
        """From the parts of all servers, or a trace's metadata `applied_order`."""
        numbers = sorted(map(int, portions))
        own = [portions[str(number)] for number in numbers]
        return cls(
            rounds=own[0]["rounds"],
            reads=[one["reads"] for one in own],
            updates=[[[Member(*m) for m in members] for members in one["updates"]] for one in own],
        )


@dataclass
class Replay:
    """What comes of a replay."""

    losses: list[list[list[float]]]
    """By worker, turn and local step: the mean loss of the worker's samples."""
    steps: list[list[int]]
    """By worker and turn: the step of the run that it belongs to."""
    parameters: dict[str, Tensor] = field(default_factory=dict)
    """By name (`Layers.named`), after the last update."""

    def mean_losses(self) -> list[float]:
        """By step and local step: the mean over the workers that computed it."""
        return mean_losses(self.steps, self.losses)


def mean_losses(steps: list[list[int]], losses: list[list[list[float]]]) -> list[float]:
    """By step and local step: the mean of ``losses`` over the workers, whose turns belong to ``steps``."""
    found: dict[tuple[int, int], list[float]] = {}
    for own_steps, own_losses in zip(steps, losses, strict=True):
        for step, parts in zip(own_steps, own_losses, strict=True):
            for place, loss in enumerate(parts):
                found.setdefault((step, place), []).append(loss)
    return [sum(own) / len(own) for _, own in sorted(found.items())]


def replay(plan: Plan, order: Order, seed: int = 0) -> Replay:
    """Train in one process as ``order`` says, in fp32 on the CPU.

    Raises:
        ValueError: an update is of gradients that were computed on what never was.
    """
    return _Replayer(plan, order, seed).run()


class _Replayer:
    def __init__(self, plan: Plan, order: Order, seed: int):
        self.plan, self.order, workers = plan, order, plan.strategy.dp
        self.workload = Workload(job=plan.job, seed=seed)
        self.samples = self.workload.samples()
        indices = range(len(plan.job.model.layers))
        self.model = self.workload.layers(indices)
        self.model.set_loss_scale(1.0 / plan.micro_batches)
        self.served = self.workload.layers(indices)
        self.portions = exchanged(plan, self.model)
        self.holdings = [Holding(plan.job, plan.strategy, own) for own in exchanged(plan, self.served)]
        self.versions = [0 for _ in self.holdings]
        self.history = [{0: holding.message(0)} for holding in self.holdings]
        """By portion and version, as far as somebody still reads it: the parameters as a message."""
        self.uses = Counter(m for own in order.updates for members in own for m in members)
        """By gradient: updates that it is still to be part of."""
        self.averages = plan.strategy.protocol[0] == "local"
        trained = [parameter for own in self.portions for parameter in own]
        self.optimizers = [make_optimizer(plan.job, trained) for _ in range(workers)]
        """Of workers that make local steps."""
        self.joint = puts_together(plan.strategy)
        self.pushes: dict[Member, list[Tensor]] = {}
        """By gradient: what its worker pushes, by portion."""
        self.losses: list[list[list[float]]] = [[] for _ in range(workers)]
        self.steps: list[list[int]] = [[] for _ in range(workers)]

    def run(self) -> Replay:
        """All turns as soon as what they read is there, all updates as soon as their gradients are."""
        while self._turns() or self._updates():
            pass
        left = [len(own) - made for own, made in zip(self.order.updates, self.versions, strict=True)]
        if any(left):
            raise ValueError(f"updates that never become possible, by portion: {left}")
        parameters = {name: p.detach().clone() for name, p in self.served.named().items()}
        return Replay(losses=self.losses, steps=self.steps, parameters=parameters)

    def _turns(self) -> bool:
        """Compute what can be; whether anything could."""
        found = False
        for worker, done in enumerate(self.losses):
            reads = [own[worker] for own in self.order.reads]
            turn = len(done)
            if any(len(own) <= turn for own in reads):
                continue
            versions = [own[turn] for own in reads]
            if self._step(turn, versions) >= self.order.rounds:
                continue
            if all(version <= made for version, made in zip(versions, self.versions, strict=True)):
                self._compute(Member(worker, turn), versions)
                self._forget()
                found = True
        return found

    def _step(self, turn: int, versions: list[int]) -> int:
        """The step that gradients are made for."""
        return min(versions) if self.joint else turn

    def _forget(self) -> None:
        """Drop versions that nobody will read any more."""
        for own, reads in zip(self.history, self.order.reads, strict=True):
            turns = zip(reads, map(len, self.losses), strict=True)
            oldest = min((versions[turn] for versions, turn in turns if turn < len(versions)), default=None)
            for version in [v for v in own if oldest is None or v < oldest]:
                del own[version]

    def _updates(self) -> bool:
        """Apply what can be; whether anything could."""
        found = False
        for p, updates in enumerate(self.order.updates):
            version = self.versions[p]
            if version < len(updates) and all(member in self.pushes for member in updates[version]):
                update = together([self.pushes[member][p] for member in updates[version]])
                self.holdings[p].apply(update)
                self.versions[p] += 1
                self.history[p][version + 1] = self.holdings[p].message(version + 1)
                self._use(updates[version])
                found = True
        return found

    def _use(self, members: list[Member]) -> None:
        """Drop gradients that no update needs any more."""
        for member in members:
            self.uses[member] -= 1
            if not self.uses[member]:
                del self.pushes[member]

    def _compute(self, member: Member, versions: list[int]) -> None:
        with torch.no_grad():
            for p, version in enumerate(versions):
                values = unpacked(self.history[p][version], self.portions[p])
                for parameter, value in zip(self.portions[p], values, strict=True):
                    parameter.copy_(value)
        strategy, count = self.plan.strategy, self.plan.strategy.protocol[1]
        step = self._step(member.turn, versions)
        local = range(step * count, (step + 1) * count) if self.averages else (step,)
        losses = []
        for own_step in local:
            self.model.zero_grad(set_to_none=True)
            losses.append(self._backward(own_step, member.worker, strategy.dp, strategy.micro_batch))
            if self.averages:
                # A worker's optimizer keeps its states from turn to turn.
                self.optimizers[member.worker].step()
        self.losses[member.worker].append(losses)
        self.steps[member.worker].append(step)
        if self.uses[member]:
            self.pushes[member] = [packed([self._pushed(p) for p in own], step) for own in self.portions]

    def _backward(self, step: int, worker: int, workers: int, micro_batch: int) -> float:
        total = 0.0
        for inputs, targets in self.samples.micro_batches(step, worker, workers, micro_batch):
            with precision(self.plan.job, torch.device("cpu")):
                loss = self.workload.loss(self.model(inputs), targets) / self.plan.micro_batches
            loss.backward()
            total += float(loss.detach())
        return total

    def _pushed(self, parameter: torch.nn.Parameter) -> Tensor:
        if self.averages:
            return parameter
        return cast(Tensor, parameter.grad) if parameter.grad is not None else torch.zeros_like(parameter)
