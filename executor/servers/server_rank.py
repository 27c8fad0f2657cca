"""What one rank of a plan with parameter servers is: a worker, a server, or both in one process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...sim.plan.plan import Plan
from ..measure.heartbeat import Silent
from ..measure.recorder import CpuClock, Mark, Recorder
from ..model.workload import Workload
from .exchange import HomeLine, Line
from .server import Server, end_process
from .server_worker import ServerWorker


def paces(plan: Plan, rank: int) -> int:
    """Threads of ``rank`` that must wait for others before it counts as waiting: a server has one for each
    worker."""
    return plan.strategy.dp if plan.strategy.servers and plan.is_server(rank) else 1


class ServerRank:
    """Rank ``rank`` of ``plan``, for ``rounds`` rounds, in the default process group.

    ``recorder`` is the rank's, whose steps are those of its worker; ``on_failure`` is called by a thread that
    cannot go on, and does not return.
    """

    def __init__(
        self,
        plan: Plan,
        rank: int,
        device: torch.device,
        recorder: Recorder,
        workload: Workload,
        rounds: int,
        *,
        on_failure: Callable[[BaseException], None] = end_process,
    ):
        ranks = plan.server_ranks
        number = ranks.index(rank) if rank in ranks else None
        works = not plan.is_server(rank)
        held = [p for p, own in enumerate(plan.portions) if own.server == number]
        pairs = {p: HomeLine.pair() for p in held} if works and number is not None else {}
        ends: list[dict[int, Line]] = [{p: pair[end] for p, pair in pairs.items()} for end in (0, 1)]
        self.recorder, self.server, self.worker = recorder, None, None
        if number is not None:
            own = Recorder(rank, CpuClock(), Silent() if works else recorder.heartbeat)
            self.server = Server(plan, number, own, workload, rounds, home=ends[0], on_failure=on_failure)
        if works:
            self.worker = ServerWorker(
                plan, rank, device, recorder, workload, rounds, home=ends[1], on_failure=on_failure
            )

    def run(self, end_step: Callable[[int], None]) -> None:
        """Train until all rounds are over; calls ``end_step`` with each step that the worker has ended."""
        if self.server:
            self.server.start()
        if self.worker:
            while self.worker.train_turn():
                end_step(self.worker.step)
        if self.server:
            self.server.join()
            self.server.recorder.settle()

    @property
    def marks(self) -> list[Mark]:
        """All that was noted."""
        found = list(self.recorder.marks)
        if self.worker:
            found += self.worker.messages.marks
        if self.server:
            found += self.server.recorder.marks
        return found

    def part(self) -> dict[str, Any]:
        """What it found, as plain values: a worker's `steps` and `losses` by turn, a server's `portions`."""
        worker, server = self.worker, self.server
        return {
            "steps": worker.steps if worker else [],
            "losses": worker.losses if worker else [],
            "portions": server.part() if server else {},
        }

    def kept_state(self) -> dict[str, dict[str, Tensor]]:
        """The parameters that a server holds first, by name (`Layers.named`); a worker's copy may be old."""
        return {"parameters": self.server.parameters() if self.server else {}}
