"""A worker of parameter servers: pulls parameters, computes gradients, pushes them, as its actions say.

Gradients of a bucket leave as soon as they are whole, while backward runs on. A thread for each server takes
what it sends, so that parameters which come meanwhile are noted when they are there; they are used from the
next round on. Messages are CPU tensors, wherever the worker computes: gradients are staged.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ...sim.errors import RunError
from ...sim.plan.action import Action, Actions, Kind
from ...sim.plan.plan import Plan
from ..measure.recorder import COMPUTE, CpuClock, Recorder
from ..model.decoder import COMPILED
from ..model.optimizer import make_optimizer
from ..model.workload import Workload
from ..train.handlers import Handlers, walk
from ..train.stage import precision, use_products_of
from .buckets import WholeBuckets
from .exchange import FINISHED, PULL, PUSH, Line, RemoteLine, packed, unpacked, word_of
from .holding import exchanged
from .ledger import puts_together
from .server import end_process

HANDLED = (Kind.PULL, Kind.FORWARD, Kind.BACKWARD, Kind.PUSH, Kind.STEP)
"""Kinds of actions that a worker of servers knows."""


class ServerWorker:
    """Worker ``rank`` of a plan, for ``rounds`` rounds; ``home`` are lines to a server in the same process,
    by portion."""

    def __init__(
        self,
        plan: Plan,
        rank: int,
        device: torch.device,
        recorder: Recorder,
        workload: Workload,
        rounds: int,
        *,
        home: dict[int, Line] | None = None,
        on_failure: Callable[[BaseException], None] = end_process,
    ):
        use_products_of(plan.job)
        self.plan, self.rank, self.device, self.recorder = plan, rank, device, recorder
        self.messages = Recorder(rank, CpuClock(), recorder.heartbeat)
        """Of what passes to and from servers, which the CPU does."""
        self.workload, self.samples, self.rounds = workload, workload.samples(), rounds
        strategy = plan.strategy
        # Drawn on the CPU, where the servers draw theirs.
        self.layers = workload.layers(
            range(len(plan.job.model.layers)),
            recompute=strategy.recompute,
            recompute_blocks=strategy.recompute_blocks,
        ).to(device)
        if strategy.stack == COMPILED:
            self.layers.compile_blocks()
        self.layers.set_loss_scale(1.0 / plan.micro_batches)
        self.portions = exchanged(plan, self.layers)
        self.local_steps = max(1, strategy.protocol[1]) if strategy.protocol[0] == "local" else 1
        trained = [parameter for own in self.portions for parameter in own]
        self.optimizer = make_optimizer(plan.job, trained) if self._averages else None
        self.lines: list[Line] = [
            (home or {}).get(number) or self._remote(number) for number in range(len(self.portions))
        ]
        self.arrivals = _Arrivals(plan, self.lines, self.messages.clock.stamp, on_failure)
        self.posted: list[object] = [None for _ in self.lines]
        self.read = [0 for _ in self.lines]
        """By portion: the version that it computes on."""
        self.joint = puts_together(strategy)
        self.turn = self.step = -1
        self.steps: list[int] = []
        """By turn: the step that its gradients are made for: a joint update, or the turn itself."""
        self.losses: list[list[float]] = []
        """By turn: the mean loss of the worker's samples in each of its local steps."""
        self._split_actions()
        for number in range(len(self.lines)):
            self._expect(number)

    @property
    def _averages(self) -> bool:
        return self.plan.strategy.protocol[0] == "local"

    def _remote(self, number: int) -> RemoteLine:
        own, like = self.plan.portions[number], self.portions[number]
        dtype = like[0].dtype if like else torch.get_default_dtype()
        values = sum(p.numel() for p in like)
        return RemoteLine(self.plan.server_ranks[own.server], number, values, dtype, takes=PULL, sends=PUSH)

    def _split_actions(self) -> None:
        """Pulls come before anything is computed; buckets that follow a backward go out inside it."""
        actions = self.plan.actions[0]
        self.pulls: Actions = [action for action in actions if action.kind is Kind.PULL]
        self.rest: Actions = [action for action in actions if action.kind is not Kind.PULL]
        by_bucket = any(action.kind is Kind.PUSH and action.bucket >= 0 for action in actions)
        backwards = [action.micro_batch for action in self.rest if action.kind is Kind.BACKWARD]
        self.pushing = backwards[-1] if by_bucket else -1
        """The micro-batch whose backward makes gradients whole."""
        self.buckets = WholeBuckets(self.portions, self._send) if by_bucket else None
        self.handlers: Handlers = {
            Kind.FORWARD: self._forward,
            Kind.BACKWARD: self._backward,
            Kind.PUSH: self._push,
            Kind.STEP: self._step,
        }

    def train_turn(self) -> bool:
        """One round of the plan's actions; False, with nothing computed, once all rounds are over."""
        self._pull_all()
        if self.step >= self.rounds:
            self._finish()
            return False
        self.recorder.step = self.step
        self.steps.append(self.step)
        strategy, first = self.plan.strategy, self.step * self.local_steps
        self.batches = [
            part
            for step in range(first, first + self.local_steps)
            for part in self.samples.micro_batches(step, self.rank, strategy.dp, strategy.micro_batch)
        ]
        self.values: dict[int, Tensor] = {}
        walk(self.rest, self.handlers)
        count = self.plan.micro_batches
        parts = [float(self.values[index]) for index in range(len(self.batches))]
        self.losses.append([sum(parts[i : i + count]) for i in range(0, len(parts), count)])
        self.messages.settle()
        return True

    def _pull_all(self) -> None:
        """Wait for all parameters, and take them over."""
        self.turn += 1
        for action in self.pulls:
            for number in self._numbers(action):
                with self.recorder.heartbeat.waiting():
                    message, end = self.arrivals.wait(number)
                version = self.read[number] = word_of(message)
                step = version if self.joint else self.turn
                if step < self.rounds:
                    self._note(action, number, self.posted[number], end, step)
                with torch.no_grad():
                    pairs = zip(self.portions[number], unpacked(message, self.portions[number]), strict=True)
                    for parameter, values in pairs:
                        parameter.copy_(values)
        self.step = min(self.read) if self.joint else self.turn

    def _numbers(self, action: Action) -> list[int]:
        """Portions that an action is about; of all of them every server in turn, from another one than the
        neighbour begins with."""
        if action.bucket >= 0:
            return [action.bucket]
        count = len(self.portions)
        return [(self.rank + place) % count for place in range(count)]

    def _forward(self, action: Action) -> None:
        issued = self.recorder.clock.stamp()
        inputs, targets = self.batches[action.micro_batch]
        with precision(self.plan.job, self.device):
            outputs = self.layers(inputs.to(self.device))
            loss = self.workload.loss(outputs, targets.to(self.device)) / self.plan.micro_batches
        if not torch.isfinite(loss):
            raise RunError(f"loss is {float(loss)} at step {self.recorder.step}")
        self.values[action.micro_batch] = loss
        self.recorder.add(action, COMPUTE, issued, self.recorder.clock.stamp())

    def _backward(self, action: Action) -> None:
        issued = self.recorder.clock.stamp()
        pushes = self.buckets if action.micro_batch == self.pushing else None
        loss = self.values[action.micro_batch]
        if pushes:
            pushes.begin()
        loss.backward()
        if pushes:
            pushes.end()
        self.values[action.micro_batch] = loss.detach()
        self.recorder.add(action, COMPUTE, issued, self.recorder.clock.stamp())

    def _step(self, action: Action) -> None:
        """A local step of the worker's own parameters."""
        assert self.optimizer is not None, "only workers that average step by themselves"
        issued = self.recorder.clock.stamp()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.recorder.add(action, COMPUTE, issued, self.recorder.clock.stamp())

    def _push(self, action: Action) -> None:
        """Send all at once; buckets have left inside the backward before."""
        if action.bucket < 0:
            for number in self._numbers(action):
                self._send(number)

    def _send(self, number: int) -> None:
        """Push a portion's gradients, which are then the server's, or the parameters to be averaged."""
        own = self.portions[number]
        if self._averages:
            message = packed(own, self.step)
        else:
            message = packed([_gradient(p) for p in own], self.step)
            for parameter in own:
                parameter.grad = None
        issued = self.messages.clock.stamp()
        # Expected before the push that it answers.
        self._expect(number)
        self.lines[number].send(message)
        bucket = self.plan.portions[number].bucket
        action = Action.of(Kind.PUSH, stage=0, bucket=bucket)
        self._note(action, number, issued, None, self.step)

    def _expect(self, number: int) -> None:
        self.lines[number].settle()
        self.posted[number] = self.messages.clock.stamp()
        self.arrivals.expect(number)

    def _note(self, action: Action, number: int, issued: object, end: object, step: int) -> None:
        portion, channel = self.plan.portions[number], f"ps:{action.kind}:{self.rank}:{number}"
        self.messages.add(
            action,
            "ps",
            issued,
            end,
            size_bytes=portion.size_bytes,
            key=f"{channel}:{self.turn}",
            channel=channel,
            step=step,
        )

    def _finish(self) -> None:
        """Tell every server that no more comes, and leave nothing under way."""
        for line, own in zip(self.lines, self.portions, strict=True):
            line.send(packed(own, FINISHED))
        self.arrivals.end()
        with self.recorder.heartbeat.waiting():
            for line in self.lines:
                line.settle()


class _Arrivals:
    """What servers send, with the moment at which it was there: a thread for each server waits for it."""

    def __init__(
        self,
        plan: Plan,
        lines: list[Line],
        stamp: Callable[[], object],
        on_failure: Callable[[BaseException], None],
    ):
        self.lines, self.stamp, self.on_failure = lines, stamp, on_failure
        self.server_of = [own.server for own in plan.portions]
        self.there: list[queue.SimpleQueue[tuple[Tensor, object]]] = [queue.SimpleQueue() for _ in lines]
        self.wanted: dict[int, queue.SimpleQueue[int | None]] = {
            server: queue.SimpleQueue() for server in sorted(set(self.server_of))
        }
        self.threads = [
            threading.Thread(target=self._take, args=(own,), name=f"server-{server}", daemon=True)
            for server, own in self.wanted.items()
        ]
        for thread in self.threads:
            thread.start()

    def expect(self, number: int) -> None:
        """Wait for a portion's next parameters."""
        self.lines[number].expect()
        self.wanted[self.server_of[number]].put(number)

    def wait(self, number: int) -> tuple[Tensor, object]:
        """They and when they came, once they are there."""
        return self.there[number].get()

    def end(self) -> None:
        """Nothing more is expected."""
        for own in self.wanted.values():
            own.put(None)
        for thread in self.threads:
            thread.join()

    def _take(self, own: queue.SimpleQueue[int | None]) -> None:
        try:
            while (number := own.get()) is not None:
                message = self.lines[number].take()
                self.there[number].put((message, self.stamp()))
        except BaseException as error:
            self.on_failure(error)


def _gradient(parameter: nn.Parameter) -> Tensor:
    return parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
