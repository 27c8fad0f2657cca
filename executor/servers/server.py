"""A parameter server: threads that take what workers push, make updates, and answer those who may go on.

One thread attends to each worker, in the order in which it pushes; updates and answers are made under one
lock, as one processor would. Where other servers hold copies, an update goes down the chain of its holders
(van Renesse and Schneider 2004), each of which applies it; the last one confirms it to the first, and only
then are workers answered with what it made.
"""

from __future__ import annotations

import os
import queue
import threading
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from torch import Tensor

from ...sim.plan.action import Action, Kind
from ...sim.plan.plan import Plan
from ..measure.recorder import COMPUTE, Recorder
from ..model.workload import Workload
from .exchange import CONFIRM, COPY, FINISHED, PULL, PUSH, Line, RemoteLine, packed, word_of
from .holding import Holding, exchanged, together
from .ledger import Ledger, Member


def end_process(error: BaseException) -> None:
    """A server that fails ends its process, since others wait for it where nothing can wake them."""
    traceback.print_exception(error)
    os._exit(1)


class Server:
    """Server ``number`` of a plan, for ``rounds`` rounds.

    ``home`` are lines to a worker in the same process, by portion. ``recorder`` is its own, with a clock of
    the CPU. A thread that fails calls ``on_failure``.
    """

    def __init__(
        self,
        plan: Plan,
        number: int,
        recorder: Recorder,
        workload: Workload,
        rounds: int,
        *,
        home: dict[int, Line] | None = None,
        on_failure: Callable[[BaseException], None] = end_process,
    ):
        self.plan, self.number, self.recorder, self.on_failure = plan, number, recorder, on_failure
        self.rounds = rounds
        strategy, portions = plan.strategy, plan.portions
        held = {p: hop for p, own in enumerate(portions) if (hop := self._hop(own.server)) is not None}
        whole = workload.layers(range(len(plan.job.model.layers)))
        own = exchanged(plan, whole)
        self.holdings = {p: Holding(plan.job, strategy, own[p]) for p in held}
        self.names = {id(parameter): name for name, parameter in whole.named().items()}
        self.own = [p for p, hop in held.items() if hop == 0]
        """Portions that it holds first."""
        self.copies = {p: hop for p, hop in held.items() if hop > 0}
        self.ledgers = {p: Ledger.of(strategy, rounds) for p in self.own}
        self.lines: dict[tuple[int, int], Line] = {
            (p, w): self._line(p, w, takes=PUSH, sends=PULL) for p in self.own for w in range(strategy.dp)
        }
        self.lines |= {(p, plan.server_ranks[number]): line for p, line in (home or {}).items()}
        self.pushed: dict[tuple[int, int], Tensor] = {}
        """By portion and worker: its last gradients."""
        self.posted: dict[tuple[int, int], object] = {}
        self.applied_s: dict[int, list[float]] = {p: [] for p in self.own}
        """By portion: when each update was made, on the clock of all processes of a host."""
        self.lock = threading.Lock()
        self._make_chain()

    def _hop(self, first: int) -> int | None:
        """Places behind the server ``first`` in the chain of its holders; None if it is not in it."""
        hop = (self.number - first) % self.plan.strategy.servers
        return hop if hop < self.plan.strategy.server_replicas else None

    def _line(self, portion: int, peer: int, *, takes: int, sends: int) -> RemoteLine:
        holding = self.holdings[portion]
        values = 0 if CONFIRM in (takes, sends) else holding.values
        return RemoteLine(peer, portion, values, holding.dtype, takes=takes, sends=sends)

    def _make_chain(self) -> None:
        """Lines to the next holder and from the last one, for what it holds first; and those of copies."""
        replicas, servers = self.plan.strategy.server_replicas, self.plan.strategy.servers
        ranks, number = self.plan.server_ranks, self.number
        following, before = ranks[(number + 1) % servers], ranks[(number - 1) % servers]
        last = ranks[(number + replicas - 1) % servers]
        chained = self.own if replicas > 1 else []
        self.onward = {p: self._line(p, following, takes=COPY, sends=COPY) for p in chained}
        self.back = {p: self._line(p, last, takes=CONFIRM, sends=CONFIRM) for p in chained}
        self.unconfirmed: dict[int, queue.SimpleQueue[list[Member] | None]] = {
            p: queue.SimpleQueue() for p in chained
        }
        self.incoming = {p: self._line(p, before, takes=COPY, sends=COPY) for p in self.copies}
        for p, hop in self.copies.items():
            first = ranks[self.plan.portions[p].server]
            self.onward[p] = (
                self._line(p, first, takes=CONFIRM, sends=CONFIRM)
                if hop == replicas - 1
                else self._line(p, following, takes=COPY, sends=COPY)
            )

    def start(self) -> None:
        """Answer every worker with the first parameters, and attend to them from then on."""
        if not self.own:
            self.recorder.heartbeat.ended(self.rounds - 1)
        with self.lock:
            for portion in self.own:
                self._answer(portion)
        workers = range(self.plan.strategy.dp) if self.own else ()
        self._attending = [self._thread(f"worker-{w}", partial(self._attend, w)) for w in workers]
        self._chained = [
            *(self._thread(f"confirms-{p}", partial(self._await_confirmations, p)) for p in self.back),
            *(self._thread(f"copies-{p}", partial(self._keep_copy, p)) for p in self.copies),
        ]

    def _thread(self, name: str, work: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                self.on_failure(error)

        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        return thread

    def join(self) -> None:
        """Wait until every worker has finished, and every copy is made."""
        for thread in self._attending:
            thread.join()
        for portion in self.back:
            self.onward[portion].send(packed(self.holdings[portion].parameters, FINISHED))
            self.unconfirmed[portion].put(None)
        for thread in self._chained:
            thread.join()
        for line in (*self.lines.values(), *self.onward.values()):
            line.settle()

    def _attend(self, worker: int) -> None:
        """Take what one worker pushes, until it has finished with every portion."""
        left = list(self.own)
        while left:
            for portion in list(left):
                with self.recorder.heartbeat.waiting():
                    message = self.lines[portion, worker].take()
                with self.lock:
                    if word_of(message) == FINISHED:
                        left.remove(portion)
                    else:
                        self._take(portion, worker, message)
                        self._answer(portion)

    def _take(self, portion: int, worker: int, message: Tensor) -> None:
        ledger = self.ledgers[portion]
        # Its answer was there before it could compute on it.
        self.lines[portion, worker].settle()
        issued, end = self.posted[portion, worker], self.recorder.clock.stamp()
        step = word_of(message)
        self._note(Kind.PUSH, portion, worker, issued, end, step)
        self.pushed[portion, worker] = message
        members = ledger.arrive(worker, step)
        if members:
            self._apply(portion, members)

    def _apply(self, portion: int, members: list[Member]) -> None:
        """Make one update, and pass it on or confirm it."""
        ledger, begun = self.ledgers[portion], self.recorder.clock.stamp()
        update = together([self.pushed[portion, one.worker] for one in members])
        self.holdings[portion].apply(update)
        ledger.apply(members)
        end = self.recorder.clock.stamp()
        self.applied_s[portion].append(self.recorder.clock.resolve(end))  # type: ignore[arg-type]
        joint = ledger.joint
        action = self._action(Kind.APPLY, portion, -1 if joint else members[0].worker)
        step = ledger.applied - 1 if joint else members[0].turn
        self.recorder.add(action, COMPUTE, begun, end, step=step)
        if portion in self.back:
            self.onward[portion].send(update)
            self.unconfirmed[portion].put(members)
        else:
            self._confirm(portion, members)

    def _confirm(self, portion: int, members: list[Member]) -> None:
        self.ledgers[portion].confirm(members)
        self.recorder.heartbeat.ended(min(ledger.done for ledger in self.ledgers.values()) - 1)

    def _answer(self, portion: int) -> None:
        """Send the parameters to all that may go on."""
        holding, ledger = self.holdings[portion], self.ledgers[portion]
        for worker, version in ledger.due():
            line = self.lines[portion, worker]
            line.expect()
            issued = self.posted[portion, worker] = self.recorder.clock.stamp()
            line.send(holding.message(version))
            step = version if ledger.joint else len(ledger.reads[worker]) - 1
            if step < self.rounds:
                self._note(Kind.PULL, portion, worker, issued, None, step)

    def _await_confirmations(self, portion: int) -> None:
        """Answer for each update once its last holder has it."""
        while (members := self.unconfirmed[portion].get()) is not None:
            self.back[portion].expect()
            self.back[portion].take()
            with self.lock:
                self.onward[portion].settle(1)
                self._confirm(portion, members)
                self._answer(portion)

    def _keep_copy(self, portion: int) -> None:
        """Make the updates that the holder before passes on, and pass them on, or confirm them."""
        incoming, onward = self.incoming[portion], self.onward[portion]
        holding = self.holdings[portion]
        is_last = self.copies[portion] == self.plan.strategy.server_replicas - 1
        incoming.expect()
        while True:
            update = incoming.take().clone()
            if word_of(update) == FINISHED:
                if not is_last:
                    onward.send(update)
                return
            incoming.expect()
            with self.lock:
                holding.apply(update)
            onward.send(update[-1:].clone() if is_last else update)

    def _action(self, kind: Kind, portion: int, worker: int) -> Action:
        bucket = self.plan.portions[portion].bucket
        return Action.of(kind, server=self.number, worker=worker, bucket=bucket)

    def _note(self, kind: Kind, portion: int, worker: int, issued: object, end: object, step: int) -> None:
        """The mark of a message, with the step that the worker counts it to."""
        channel, turn = f"ps:{kind}:{worker}:{portion}", len(self.ledgers[portion].reads[worker]) - 1
        self.recorder.add(
            self._action(kind, portion, worker),
            "ps",
            issued,
            end,
            size_bytes=self.plan.portions[portion].size_bytes,
            key=f"{channel}:{turn}",
            channel=channel,
            step=step,
        )

    def parameters(self) -> dict[str, Tensor]:
        """A copy of what it holds first, by name (`Layers.named`)."""
        return self._named(self.own)

    def copied(self) -> dict[str, Tensor]:
        """A copy of what it holds for other servers."""
        return self._named(self.copies)

    def _named(self, portions: Iterable[int]) -> dict[str, Tensor]:
        held = [parameter for p in portions for parameter in self.holdings[p].parameters]
        return {self.names[id(parameter)]: parameter.detach().clone() for parameter in held}

    def part(self) -> dict[str, Any]:
        """By portion, as plain values: what was read and applied in which order, and when."""
        return {
            str(p): {
                "rounds": self.rounds,
                "reads": ledger.reads,
                "updates": [[list(member) for member in members] for members in ledger.updates],
                "applied_s": self.applied_s[p],
                "staleness": ledger.staleness,
                "dropped": ledger.dropped,
            }
            for p, ledger in self.ledgers.items()
        }
