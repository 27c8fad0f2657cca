"""What `long_run.py` means, one run as simpy processes: every step, checkpoint, failure and repair an event.

The oracle of the tests. Time is in whole ticks; what falls on the tick of a failure still happened.
"""

from __future__ import annotations

import heapq
from collections.abc import Generator, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import simpy
from simpy.events import EventPriority

from .failures import FailureTimes
from .long_run import CAUSES, LongJob, Runs, WholeJob, whole

_LAST = EventPriority(2)
"""Priority of an event that comes after all others of its tick; simpy's own are 0 and 1."""

Events = Generator[simpy.Event, Any, Any]


def play_one_by_one(job: LongJob, times: FailureTimes) -> Runs:
    """As `long_run.play`, sample by sample and event by event."""
    samples = len(times.ticks)
    made = whole(job, samples)
    rows = [
        _Run(made, int(made.step[i]), times.ticks[i], times.takes_node[i], times.until).result()
        for i in range(samples)
    ]
    columns = {f.name: np.array([row[f.name] for row in rows]) for f in fields(Runs)}
    return Runs(**columns)


class _Last(simpy.Event):
    """A timeout after everything else of its tick."""

    def __init__(self, env: simpy.Environment, delay: int):
        super().__init__(env)
        self._ok, self._value = True, None
        env.schedule(self, priority=_LAST, delay=delay)


class _Run:
    """One sample."""

    def __init__(
        self, job: WholeJob, step: int, moments: Sequence[int], takes_node: Sequence[bool], until: int
    ):
        self.job, self.step = job, step
        self.env = simpy.Environment()
        self.spent: dict[str, int] = dict.fromkeys((*CAUSES, "useful"), 0)
        self.steps = self.saved = self.failures = 0
        self.finished = False
        self.spares = [0] * job.spare_nodes
        self.healthy_at = 0
        # Spent since the last checkpoint that counts: lost if a failure comes, kept if none does.
        self.since: dict[str, int] = {"useful": 0, "checkpoint": 0}
        self.open: tuple[dict[str, int], str, int] | None = None
        """What is being done now: the book it goes to, under which name, since when."""
        self.writes: list[simpy.Process] = []
        self.trainer = self.env.process(self._live())
        self.env.process(self._fail(moments, takes_node, until))
        self.env.run(until=self.env.any_of([self.trainer, _Last(self.env, until)]))
        self._keep()

    def result(self) -> dict[str, int | bool]:
        return {
            **self.spent,
            "wall": int(self.env.now),
            "steps": self.steps,
            "failures": self.failures,
            "finished": self.finished,
        }

    def _fail(self, moments: Sequence[int], takes_node: Sequence[bool], until: int) -> Events:
        for moment, takes in zip(moments, takes_node, strict=True):
            if moment >= until:
                return
            yield _Last(self.env, int(moment) - int(self.env.now))
            if self.finished:
                return
            self.failures += 1
            self.trainer.interrupt(bool(takes))

    def _live(self) -> Events:
        """Train; after each failure recover, anew if another comes meanwhile."""
        failed = yield from self._interrupted(self._train())
        while not self.finished:
            failed = yield from self._interrupted(self._recover_and_train(failed))

    def _interrupted(self, work: Events) -> Events:
        try:
            yield from work
        except simpy.Interrupt as failure:
            self._lose()
            return failure.cause

    def _recover_and_train(self, takes_node: bool) -> Events:
        if takes_node:
            heapq.heappush(self.spares, int(self.env.now) + self.job.repair)
            self.healthy_at = max(self.healthy_at, heapq.heappop(self.spares))
        yield from self._spend(self.spent, "detection", self.job.detection)
        yield from self._spend(self.spent, "waiting", max(self.healthy_at - int(self.env.now), 0))
        yield from self._spend(self.spent, "restart", self.job.restart)
        yield from self._train()

    def _spend(self, book: dict[str, int], cause: str, duration: int) -> Events:
        """Let ``duration`` pass and book it."""
        self.open = (book, cause, int(self.env.now))
        yield self.env.timeout(duration)
        self._close()

    def _close(self) -> None:
        """Book what is being done up to now, whether it is done or was broken off."""
        if self.open:
            book, cause, begin = self.open
            book[cause] += int(self.env.now) - begin
            self.open = None

    def _train(self) -> Events:
        while True:
            for _ in range(self.job.interval_steps):
                yield from self._spend(self.since, "useful", self.step)
                self.steps += 1
                if self.steps == self.job.steps:
                    self.finished = True
                    return
            yield from self._spend(self.since, "checkpoint", self.job.stall)
            self.writes = [self.env.process(self._write(self.steps, dict(self.since)))]

    def _write(self, steps: int, spent: dict[str, int]) -> Events:
        """Write a checkpoint in the background; when it is there, what went before counts."""
        try:
            yield self.env.timeout(self.job.write)
        except simpy.Interrupt:
            return
        self.saved = steps
        for cause, duration in spent.items():
            self.spent[cause] += duration
            self.since[cause] -= duration

    def _lose(self) -> None:
        self._close()
        for write in self.writes:
            if write.is_alive:
                write.interrupt()
        self.spent["lost"] += sum(self.since.values())
        self.since = {"useful": 0, "checkpoint": 0}
        self.steps = self.saved

    def _keep(self) -> None:
        self._close()
        for cause, duration in self.since.items():
            self.spent[cause] += duration
