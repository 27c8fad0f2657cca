"""A parameter server: holds the layers of its shard with their optimizer, and does what its actions say.

Where an APPLY is for all workers, the server goes through its actions in order: it averages all gradients and
steps once. Where each is for one worker, it goes through each worker's actions at that worker's pace, at
1/workers of the learning rate, so that as many updates as there are workers move the parameters as far as one
synchronous step would (Dean et al. 2012, section 4.1).
"""

from __future__ import annotations

import threading

import torch
import torch.distributed as dist
from torch import Tensor

from ...sim.plan.action import Action, Actions, Kind
from ...sim.plan.plan import Plan
from ..measure.recorder import COMPUTE, CpuClock, Recorder
from ..model.decoder import build_layers
from ..model.optimizer import make_optimizer
from ..train.handlers import walk
from .exchange import PULL, PUSH, flat, started, unflatten


def serves_each(plan: Plan, rank: int) -> bool:
    """Whether ``rank`` is a server that applies every worker's gradients by themselves."""
    return plan.is_server(rank) and any(
        action.kind is Kind.APPLY and action.worker >= 0 for action in plan.rank_actions(rank)
    )


class Server:
    """Holds a shard of the layers and steps them."""

    def __init__(self, plan: Plan, rank: int, recorder: Recorder, seed: int):
        self.plan, self.recorder, self.clock = plan, recorder, CpuClock()
        self.actions = plan.rank_actions(rank)
        self.each = serves_each(plan, rank)
        number = rank - plan.strategy.workers
        self.size_bytes, self.shard = plan.sizes.shards[number], plan.shards[number]
        layers = range(len(plan.job.model.layers))
        self.whole = build_layers(plan.job.model.decoder, layers, seed=seed)
        held = self.whole.layer_parameters()
        self.parameters = [p for index in self.shard for p in held[index]]
        workers = plan.strategy.dp
        self.optimizer = make_optimizer(
            plan.job, self.parameters, rate_factor=1.0 / workers if self.each else 1.0
        )
        self.buffers = [flat(self.parameters) for _ in range(workers)]
        """By worker: the gradients that it pushes."""
        self.version = 0
        self.staleness: list[int] = []
        self.lock = threading.Lock()
        self._values: Tensor | None = None
        self._failure: BaseException | None = None

    def serve_step(self, step: int) -> None:
        """Go through all actions once."""
        Round(self, self.actions, step).walk()

    def serve_each(self, steps: int) -> None:
        """Go through every worker's actions ``steps`` times, at its own pace."""
        workers = sorted({action.worker for action in self.actions})
        threads = [
            threading.Thread(target=self._serve, args=(worker, steps), name=f"worker-{worker}")
            for worker in workers
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._failure:
            raise self._failure

    def _serve(self, worker: int, steps: int) -> None:
        own = tuple(action for action in self.actions if action.worker == worker)
        try:
            for step in range(steps):
                Round(self, own, step).walk()
        except BaseException as error:
            self._failure = self._failure or error

    def values(self) -> Tensor:
        """All parameters in one tensor that nobody changes."""
        if self._values is None:
            self._values = flat(self.parameters)
        return self._values

    def apply(self, gradients: Tensor) -> None:
        """Step with all gradients in one tensor."""
        for parameter, gradient in zip(self.parameters, unflatten(gradients, self.parameters), strict=True):
            parameter.grad = gradient
        self.optimizer.step()
        self.version += 1
        self._values = None

    def kept_state(self) -> dict[str, dict[str, Tensor]]:
        """Copies of the parameters of its shard, by name (`Layers.named`)."""
        named = self.whole.named()
        own = {id(p) for p in self.parameters}
        return {"parameters": {n: p.detach().clone() for n, p in named.items() if id(p) in own}}


class Round:
    """One walk of a server through its actions, or through those for one worker."""

    def __init__(self, server: Server, actions: Actions, step: int):
        self.server, self.actions, self.step = server, actions, step
        self.recorder, self.clock = server.recorder, server.clock
        # Posted before anything is sent, or the two directions would serialise.
        self.receives = {
            action.worker: started(dist.irecv(server.buffers[action.worker], action.worker, tag=PUSH))
            for action in actions
            if action.kind is Kind.PUSH
        }
        self.posted = self.clock.stamp()
        self.sends: dict[int, dist.Work] = {}
        self.read = 0
        """The version that was sent last."""

    def walk(self) -> None:
        """Do the actions in order."""
        walk(self.actions, {Kind.PULL: self._pull, Kind.PUSH: self._push, Kind.APPLY: self._apply})

    def _pull(self, action: Action) -> None:
        with self.server.lock:
            values, self.read = self.server.values(), self.server.version
        issued = self.clock.stamp()
        self.sends[action.worker] = started(dist.isend(values, action.worker, tag=PULL))
        self._note(action, issued, None)

    def _push(self, action: Action) -> None:
        with self.recorder.heartbeat.waiting():
            self.sends[action.worker].wait()
            self.receives[action.worker].wait()
        self._note(action, self.posted, self.clock.stamp())

    def _apply(self, action: Action) -> None:
        server = self.server
        with server.lock:
            begun = self.clock.stamp()
            if action.worker < 0:
                server.apply(torch.stack([server.buffers[worker] for worker in self.receives]).mean(dim=0))
            else:
                server.staleness.append(server.version - self.read)
                server.apply(server.buffers[action.worker])
                self.recorder.heartbeat.ended(server.version // server.plan.strategy.dp - 1)
            self.recorder.add(action, COMPUTE, begun, self.clock.stamp(), step=self.step)

    def _note(self, action: Action, issued: object, end: object) -> None:
        key = f"{action.kind}:{action.worker}:{action.server}"
        size = self.server.size_bytes
        self.recorder.add(
            action, "ps", issued, end, size_bytes=size, key=key, channel=f"ps{key}", step=self.step
        )
